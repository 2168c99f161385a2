"""A driver that is stopped or killed leaves nothing running, and the same command finishes the job."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.outputs.results import read_current
from pipeline.outputs.runs import records
from pipeline.storage.store import open_store
from tests.samples import fill

IMAGES = 120
MARK = "FCN_TEST_OUTPUT"


def start(source: Path, output: Path, bundle: Path) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment[MARK] = str(output)
    command = [
        sys.executable,
        "-c",
        "from pipeline.cli.app import main; main()",
        "segment",
        str(source),
        str(output),
    ]
    options = [
        "--model",
        str(bundle),
        "--shard-size",
        "4",
        "--device",
        "cpu",
        "--cpus-per-actor",
        "1",
        "--actors",
        "1",
    ]
    return subprocess.Popen([*command, *options], stderr=subprocess.PIPE, text=True, env=environment)


def wait_for_a_shard(driver: subprocess.Popen[str]) -> None:
    assert driver.stderr
    for line in driver.stderr:
        if " shard=" in line:
            return
    pytest.fail("the driver ended before its first shard")


def run_processes(output: Path) -> set[int]:
    """The Ray actors and codec workers that work on `output`, orphans too: by the environment they inherited."""
    found = set()
    mark = f"{MARK}={output}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes()
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            works = command.startswith(b"ray::_ShardWorker") or b"pipeline.codec.worker_main" in command
            if works and mark in environment.split(b"\0"):
                found.add(int(entry.name))
    return found


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_same_command_finishes_what_a_stopped_driver_left(
    how: signal.Signals, tmp_path: Path, model_dir: Path
) -> None:
    source, output = tmp_path / "photos", tmp_path / "labels"
    fill(source, IMAGES, size=(320, 240))
    driver = start(source, output, model_dir)
    wait_for_a_shard(driver)
    assert run_processes(output), "the test looks for what would be left"
    driver.send_signal(how)
    _, rest = driver.communicate(timeout=60)
    store = open_store(str(output))
    (record,) = list(records(store))
    if how == signal.SIGKILL:
        assert driver.returncode == -signal.SIGKILL
        assert record.state == "running", "nobody was left to say otherwise"
    else:
        assert driver.returncode == 130
        assert "the same command resumes" in rest
        assert "Traceback" not in rest
        assert record.state == "interrupted"
    committed = len(read_current(store))
    assert 0 < committed < IMAGES, "the test wants to stop in the middle"

    again = start(source, output, model_dir)
    _, log = again.communicate(timeout=200)
    assert again.returncode == 0, log
    assert f"resuming run {record.run_id}" in log
    assert len(read_current(store)) == IMAGES
    assert len(list(store.list("masks/"))) == IMAGES
    assert [found.state for found in records(store)] == ["finished"]
    deadline = time.monotonic() + 30
    while run_processes(output) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert run_processes(output) == set(), "actors or codecs outlived their driver"
