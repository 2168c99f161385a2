"""A driver that is stopped or killed leaves nothing running, and the same command finishes the job."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.cli.app import run as fcn
from pipeline.cli.interrupts import STOPPING
from pipeline.outputs.current import read_current
from pipeline.outputs.runs import records
from pipeline.storage.opening import open_store
from tests.gate import gated_images
from tests.processes import environment_without_ray, heed_hangups

IMAGES = 20
SHARD_SIZE = 2
MARK = "FCN_TEST_OUTPUT"
PATIENCE = 120.0
WORKERS = (b"pipeline.codec.worker_main", b"pipeline.actors.lone_main")


def command(source: str, output: Path, bundle: Path, *more: str) -> list[str]:
    options = [*more, "--model", str(bundle), "--shard-size", str(SHARD_SIZE), "--actors", "1", "--cpus-per-actor", "1"]
    return ["segment", source, str(output), *options, "--device", "cpu", "--engine", "torch", "--no-report"]


def start(output: Path, words: list[str]) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    environment = environment_without_ray()
    environment |= {MARK: str(output), "RAY_worker_niceness": "0"}
    program = [sys.executable, "-c", "from pipeline.cli.app import main; main()", *words]
    return subprocess.Popen(
        program, stderr=subprocess.PIPE, text=True, env=environment, start_new_session=True, preexec_fn=heed_hangups
    )


def wait_for_a_shard(driver: subprocess.Popen[str]) -> str:
    """Read the driver's lines until it tells of a shard; returns them."""
    assert driver.stderr
    told = ""
    for line in driver.stderr:
        told += line
        if " shard=" in line:
            return told
    pytest.fail(f"the driver ended before its first shard: {told}")


def run_processes(output: Path) -> set[int]:
    """Ray actors, lone workers and codec workers that work on `output`, orphans too: by the environment they
    inherited.
    """
    found = set()
    mark = f"{MARK}={output}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            works = command.startswith(b"ray::_ShardWorker") or any(module in command for module in WORKERS)
            if works and mark in environment.split(b"\0"):
                found.add(int(entry.name))
    return found


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("ray", "ways"),
    [
        pytest.param(("--ray-address", "local"), (*STOPPING, signal.SIGKILL), marks=pytest.mark.slow),
        # Without SIGTERM, which takes the way of SIGINT: tests/pipeline/cli has a job that it stops.
        ((), (signal.SIGINT, signal.SIGHUP, signal.SIGKILL)),
    ],
    ids=["ray", "alone"],
)
def test_the_same_command_finishes_what_stopped_and_killed_drivers_left(
    ray_cluster: None,
    s3_endpoint: str,
    tmp_path: Path,
    model_dir: Path,
    capsys: pytest.CaptureFixture[str],
    ray: tuple[str, ...],
    ways: tuple[signal.Signals, ...],
) -> None:
    output = tmp_path / "labels"
    store = open_store(str(output))
    with gated_images(s3_endpoint, IMAGES) as gate:
        words = command(gate.source, output, model_dir, *ray)
        committed = 0
        for how in ways:
            driver = start(output, words)
            try:
                gate.allow(committed + 2 * SHARD_SIZE)
                told = wait_for_a_shard(driver)
                assert run_processes(output), "the test looks for what would be left"
                if how == signal.SIGHUP:
                    os.killpg(driver.pid, how)  # as a terminal that is closed tells all of its processes, Ray's too
                else:
                    driver.send_signal(how)
                told += driver.communicate(timeout=PATIENCE)[1]
            finally:
                driver.kill()
            (record,) = records(store)
            if how == signal.SIGKILL:
                assert driver.returncode == -signal.SIGKILL
                assert record.state == "running", "nobody was left to say otherwise"
            else:
                assert driver.returncode == 130, told
                assert "the same command resumes" in told
                assert "Traceback" not in told
                assert record.state == "interrupted"
            assert (f"resuming run {record.run_id}" in told) == (how != signal.SIGINT)
            assert committed < len(read_current(store)) < IMAGES
            committed = len(read_current(store))

        gate.allow(IMAGES)
        capsys.readouterr()
        assert fcn(words) == 0
        assert f"resuming run {record.run_id}" in capsys.readouterr().err
    assert len(read_current(store)) == IMAGES
    assert len(list(store.list("masks/"))) == IMAGES
    assert [found.state for found in records(store)] == ["finished"]
    deadline = time.monotonic() + PATIENCE
    while run_processes(output) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert run_processes(output) == set(), "actors or codecs outlived their driver"
