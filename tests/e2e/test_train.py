"""`fcn train` as its user runs it: killed, interrupted, resumed, on a Ray of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.training.store import TrainStore
from tests.processes import descendants
from tests.trainings import assert_each_once_an_epoch, job, kept, options, write_scenes

STEPS = 60
DISTURBED = {
    "val_split": None,
    "record_examples": True,
    "save_every": 3,
    "width": 0.25,
    "train": {"steps": STEPS, "augmentation": {"crop_height": 128, "crop_width": 128}},
}
"""Some 0.1 s a step on one core: seconds between the first checkpoint and the end, to be disturbed in."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    write_scenes(folder / "data")
    return folder


def start(place: Path, **changes: Any) -> subprocess.Popen[str]:
    """The command, in a process group of its own."""
    file = place / f"{changes['name']}.yaml"
    file.write_text(yaml.safe_dump(options(place, **changes)))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.Popen(
        [sys.executable, "-c", "from pipeline.cli.app import main; main()", "train", str(file), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )


def wait_for_checkpoint(driver: subprocess.Popen[str], store: TrainStore, seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not store.checkpoint_steps():
        assert driver.poll() is None, driver.stderr and driver.stderr.read()
        assert time.monotonic() < deadline, "no checkpoint"
        time.sleep(0.1)


def finish(driver: subprocess.Popen[str]) -> dict[str, Any]:
    out, log = driver.communicate(timeout=900)
    assert driver.returncode == 0, log
    report: dict[str, Any] = json.loads(out)
    return report


def wait_for_the_end_of(processes: set[int]) -> None:
    deadline = time.monotonic() + 60
    while alive := {pid for pid in processes if Path(f"/proc/{pid}").exists() and not _is_zombie(pid)}:
        assert time.monotonic() < deadline, f"{alive} outlived their driver"
        time.sleep(0.2)


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture(scope="module")
def undisturbed(place: Path) -> dict[str, Any]:
    return finish(start(place, name="undisturbed", **DISTURBED))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_same_command_goes_on_where_its_driver_ended(
    how: signal.Signals, place: Path, undisturbed: dict[str, Any]
) -> None:
    asked = {"name": f"ended-by-{how.name.lower()}"} | DISTURBED
    store = kept(job(place, **asked))
    driver = start(place, **asked)
    wait_for_checkpoint(driver, store)
    started = {
        pid
        for pid, title in descendants(driver.pid).items()
        if title.startswith(("ray::RayTrainWorker", "ray::TrainController", "ray::GroupLeader"))
    }
    assert len(started) == 3, "a leader, Ray Train's controller and a worker"
    if how == signal.SIGINT:
        os.killpg(driver.pid, how)  # as a terminal does it: to all of the group
    else:
        driver.send_signal(how)
    _, log = driver.communicate(timeout=600)
    wait_for_the_end_of(started)
    before = store.checkpoint_steps()[-1]
    assert before < STEPS, "the test wants to stop in the middle"
    record = store.load_record()
    assert record is not None
    if how == signal.SIGKILL:
        assert driver.returncode == -signal.SIGKILL
        assert record.state == "running", "nobody was left to say otherwise"
    else:
        assert driver.returncode == 130, log
        assert "the same command resumes" in log
        assert "Traceback" not in log
        assert record.state == "interrupted"
        assert record.step == before, "it saved where it stopped"

    report = finish(start(place, **asked))
    assert report["state"] == "finished"
    assert report["model_id"] == undisturbed["model_id"], "the weights are the same, bit for bit"
    assert_each_once_an_epoch(store, examples=12, steps=STEPS, batch_size=4)

    again = finish(start(place, **asked))
    assert again["nothing_to_do"]
    assert again["model_id"] == report["model_id"]


@pytest.mark.timeout(900)
def test_more_workers_than_the_machine_has_cpus_are_refused(place: Path) -> None:
    driver = start(place, name="too-many", workers=64, train={"batch_size": 64})
    out, log = driver.communicate(timeout=600)
    assert driver.returncode == 2
    assert out == ""
    (line,) = [line for line in log.splitlines() if line.startswith("fcn: ")]
    assert "64 worker(s) of 1 CPU do not fit this machine" in line
    assert not (place / "runs/too-many/job.json").exists()
