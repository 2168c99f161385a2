"""`fcn train` as its user runs it: killed, interrupted, resumed, on a Ray of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from pipeline.cli.app import run as fcn
from pipeline.training import job as training
from pipeline.training.job import train
from pipeline.training.report import TrainReport
from tests.commands import refused
from tests.plugins.isolation import child_path
from tests.processes import descendants, environment_without_ray
from tests.trainings import Gate, InProcess, assert_each_once_an_epoch, job, kept, options, write_scenes

pytestmark = pytest.mark.timeout(900)

STEPS = 9
PLAN = {"val_split": None, "record_examples": True, "save_every": 2, "train": {"steps": STEPS}}
DEADLINE = 400.0

COMMAND = """
import sys
from pathlib import Path
from pipeline.cli.app import main
from tests.trainings import Gate

gate, examples = sys.argv.pop(1), int(sys.argv.pop(1))
with Gate(Path(gate), examples).closed():
    main()
"""
"""The command, with a gate on the way of its worker."""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    write_scenes(tmp_path / "data")
    return tmp_path


def file_of(place: Path, **changes: Any) -> Path:
    """A job file."""
    file = place / f"{changes['name']}.yaml"
    file.write_text(yaml.safe_dump(options(place, **changes)))
    return file


def start(file: Path, gate: Gate) -> subprocess.Popen[str]:
    """The command, in a process group of its own."""
    environment = environment_without_ray()
    environment["PYTHONPATH"] = child_path()
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(gate.folder), str(gate.examples), "train", str(file), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )


def wait_at_the_gate(driver: subprocess.Popen[str], gate: Gate) -> None:
    deadline = time.monotonic() + DEADLINE
    while not (gate.folder.exists() and gate.waiting()):
        assert driver.poll() is None, driver.stderr and driver.stderr.read()
        assert time.monotonic() < deadline, "the worker has not come to the gate"
        time.sleep(0.05)


def wait_for_the_end_of(processes: set[int]) -> None:
    deadline = time.monotonic() + DEADLINE
    while alive := {pid for pid in processes if Path(f"/proc/{pid}").exists() and not _is_zombie(pid)}:
        assert time.monotonic() < deadline, f"{alive} outlived their driver"
        time.sleep(0.05)


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture
def undisturbed(ray_cluster: None, place: Path) -> TrainReport:
    """The same training, at one go and in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "Group", InProcess)
        return train(job(place, name="undisturbed", **PLAN))


def disturb(driver: subprocess.Popen[str], gate: Gate, how: signal.Signals) -> str:
    """End a driver whose worker is at the gate; its log, once all it has started is gone."""
    wait_at_the_gate(driver, gate)
    started = {
        pid
        for pid, title in descendants(driver.pid).items()
        if title.startswith(("ray::RayTrainWorker", "ray::TrainController", "ray::GroupLeader"))
    }
    assert len(started) >= 3, "a leader, Ray Train's controller and its workers"
    if how == signal.SIGINT:
        os.killpg(driver.pid, how)  # as a terminal does it: to all of the group
    else:
        driver.send_signal(how)
    _, log = driver.communicate(timeout=DEADLINE)
    wait_for_the_end_of(started)
    return log


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_the_same_command_goes_on_where_its_driver_was_killed_and_where_it_was_stopped(
    how: signal.Signals, place: Path, undisturbed: TrainReport, capsys: pytest.CaptureFixture[str]
) -> None:
    file = file_of(place, name="run", **PLAN)
    store = kept(job(place, name="run", **PLAN))

    # Killed, with three steps done of which two were saved.
    gate = Gate(place / "first", examples=3 * 4)
    killed = start(file, gate)
    disturb(killed, gate, signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    assert store.checkpoint_steps() == [2]
    record = store.load_record()
    assert record is not None
    assert record.state == "running", "nobody was left to say otherwise"

    # Stopped, three steps later: it ends the one it is at, and saves.
    gate = Gate(place / "second", examples=3 * 4)
    stopped = start(file, gate)
    log = disturb(stopped, gate, how)
    assert stopped.returncode == 130, log
    assert "the same command resumes" in log
    assert "Traceback" not in log
    assert store.checkpoint_steps() == [4, 6]
    record = store.load_record()
    assert record is not None
    assert (record.state, record.step) == ("interrupted", 6)

    # In this process: that it goes on to the end on Ray as well, tests/pipeline/training/test_job.py has it.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "Group", InProcess)
        assert fcn(["train", str(file), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["state"] == "finished"
    assert report["model_id"] == undisturbed.model_id, "the weights are the same, bit for bit"
    assert_each_once_an_epoch(store, examples=12, steps=STEPS, batch_size=4)

    assert fcn(["train", str(file), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["nothing_to_do"]
    assert again["model_id"] == report["model_id"]


@pytest.mark.slow
def test_nothing_of_a_training_listens_beyond_this_machine(place: Path) -> None:
    gate = Gate(place / "gate", examples=2)
    driver = start(file_of(place, name="run", **PLAN | {"workers": 2, "train": {"steps": 2, "batch_size": 4}}), gate)
    try:
        wait_at_the_gate(driver, gate)
        heard = {
            (title.split()[0], each.laddr.ip.removeprefix("::ffff:"))
            for pid, title in (descendants(driver.pid) | {driver.pid: "driver"}).items()
            for each in psutil.Process(pid).net_connections("inet")
            if each.status == psutil.CONN_LISTEN
        }
    finally:
        disturb(driver, gate, signal.SIGKILL)
    assert {address for _, address in heard} == {"127.0.0.1"}, heard
    assert any(title.startswith("ray::RayTrainWorker") for title, _ in heard)


def test_more_workers_than_the_machine_has_cpus_are_refused(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training.cluster, "is_remote", lambda address: False)  # as if the tests had no Ray
    file = file_of(place, name="too-many", workers=64, train={"batch_size": 64})
    assert "64 worker(s) of 1 CPU do not fit this machine" in refused(capsys, "train", file)
    assert not (place / "runs/too-many/job.json").exists()
