"""Files in the current folder are images and nothing else: no Python file there runs, and nobody else gets at Ray."""

import os
import stat
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from ray.core.generated.common_pb2 import JobConfig

from pipeline.actors.private_folder import LONGEST_SOCKET, private_folder, session_folder, working_folder
from pipeline.actors.ray_start import OwnPathOnly
from tests.plugins.isolation import GUARD
from tests.processes import environment_without_ray
from tests.samples import jpeg

NOBODY = 65534

PLANTED = """
import posix
file = posix.open({log!r}, posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND, 0o666)
posix.write(file, (__name__ + "\\n").encode())
posix.close(file)
"""

OTHER_USER = """
import os, sys
for path in sys.stdin.read().split():
    try:
        # Whoever may write here may put a socket of their own in place of Ray's.
        os.close(os.open(os.path.join(os.path.dirname(path), "taken"), os.O_CREAT | os.O_WRONLY))
        print(path)
    except PermissionError:
        pass
"""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user takes root")


@pytest.fixture
def planted(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of two images with a Python file for every module that could be imported, and where those write."""
    folder, log = tmp_path / "photos", tmp_path / "ran"
    folder.mkdir()
    names = {*sys.stdlib_module_names, *packages_distributions(), "sitecustomize", "usercustomize", "tests"}
    for name in filter(str.isidentifier, names):
        (folder / f"{name}.py").write_text(PLANTED.format(log=str(log)))
    for seed in range(2):
        (folder / f"{seed}.jpg").write_bytes(jpeg(40, 30, seed=seed))
    return folder, log


def test_no_python_file_in_the_current_folder_runs_and_relative_paths_are_of_that_folder(
    planted: tuple[Path, Path], model_dir: Path
) -> None:
    folder, log = planted
    environment = environment_without_ray()
    fcn, model = Path(sys.executable).with_name("fcn"), os.path.relpath(model_dir, folder)
    done = subprocess.run(
        [fcn, "segment", ".", "../labels", "--model", model],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(GUARD)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )  # fmt: skip
    assert not log.exists(), sorted(set(log.read_text().split()))
    assert done.returncode == 0, done.stderr
    assert len(list((folder.parent / "labels" / "masks").rglob("*.png"))) == 2


def test_workers_of_a_cluster_import_from_the_script_s_folder_and_not_from_the_current_one() -> None:
    job = OwnPathOnly()
    job._py_driver_sys_path.extend(["/opt/scripts", os.getcwd()])
    assert list(JobConfig.FromString(job._serialize()).py_driver_sys_path) == ["/opt/scripts"]


def test_a_launched_job_imports_nothing_from_where_it_runs(planted: tuple[Path, Path]) -> None:
    from pipeline.jobs.segment import SegmentJob
    from pipeline.launch.launcher import command
    from pipeline.launch.work import Work

    folder, log = planted
    work = Work.of(SegmentJob(source="/nowhere", output=str(folder.parent / "out"), model="/none"))
    subprocess.run([sys.executable, *command(work, "x")[1:]], cwd=folder, env=os.environ | {"PYTHONPATH": str(GUARD)},
                   capture_output=True, timeout=120, check=False)  # fmt: skip
    assert not log.exists(), log.read_text()
    assert list((folder.parent / "out" / "launches").iterdir()), "it did not run"


@pytest.mark.slow
def test_a_flow_takes_neither_code_nor_settings_of_prefect_from_the_current_folder(planted: tuple[Path, Path]) -> None:
    folder, log = planted
    (folder / ".env").write_text("PREFECT_API_URL=http://127.0.0.1:1/api\n")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "flows", "segment", ".", "../labels", "--model", "../no-model"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(GUARD), "PREFECT_HOME": str(folder.parent / "prefect")},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert not log.exists(), sorted(set(log.read_text().split()))
    assert done.returncode == 2, done.stderr
    assert f"{folder.parent}/no-model" in done.stderr


@as_root
def test_another_user_cannot_take_over_a_socket_of_a_private_ray(ray_cluster: None) -> None:
    import ray

    session = Path(ray._private.worker.global_worker.node.get_session_dir_path())
    sockets = [str(path) for path in (session / "sockets").iterdir() if stat.S_ISSOCK(path.stat().st_mode)]
    assert sockets
    done = subprocess.run(
        ["/usr/bin/env", "python3", "-I", "-c", OTHER_USER],
        user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", env={"PATH": os.environ["PATH"]},
        input="\n".join(sockets), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def test_the_folder_of_a_private_ray_is_its_owner_s_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/tmp" if len(str(tmp_path)) > 25 else str(tmp_path))
    private = private_folder()
    assert private == private_folder()
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert list(working_folder(private).iterdir()) == []
    longest = session_folder(private) / "session_2026-11-29_06-50-05_123456_1234567/sockets/plasma_store"
    assert len(os.fsencode(longest)) <= LONGEST_SOCKET


def test_what_somebody_else_put_in_its_place_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil
    import tempfile

    base = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
    try:
        monkeypatch.setenv("RAY_TMPDIR", str(base))
        theirs, name = base / "theirs", base / f"fcn-ray-{os.geteuid()}"
        theirs.mkdir(mode=0o777)
        name.symlink_to(theirs)
        assert private_folder().parent == base
        assert private_folder() != name
        assert list(theirs.iterdir()) == []
        if os.geteuid() == 0:
            name.unlink()
            name.mkdir(mode=0o777)
            os.chown(name, NOBODY, NOBODY)
            assert private_folder() != name
    finally:
        shutil.rmtree(base)


def test_a_long_folder_for_temporary_files_is_not_used_for_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/tmp/" + "long" * 20)
    assert private_folder().parent == Path("/tmp")
    assert not Path("/tmp/" + "long" * 20).exists()
