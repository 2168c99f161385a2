"""`fcn runs watch`: a run as the storage tells of it."""

import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fcn_core import preset
from pipeline.cli import runs as command
from pipeline.cli.app import run as fcn
from pipeline.errors import AccessDenied
from pipeline.outputs.lease import Lease
from pipeline.outputs.runs import Attempt, Counts, Progress, RunRecord, progress_key, records, write_record
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store
from tests.commands import refused
from tests.reports import labelled_run


@pytest.fixture
def output(tmp_path: Path) -> Store:
    store = open_store(str(tmp_path / "labels"))
    mask = np.zeros((8, 10), np.uint8)
    labelled_run(store, open_store(str(tmp_path)), dict.fromkeys(("a.jpg", "b.jpg", "c.jpg"), mask), preset("camvid"))
    return store


def between_looks(monkeypatch: pytest.MonkeyPatch, *steps: Callable[[], None]) -> None:
    """Let each pause of the one who watches be the time in which the next of `steps` happens."""
    coming = iter(steps)
    monkeypatch.setattr(command, "time", SimpleNamespace(sleep=lambda seconds: next(coming)()))


def tell(output: Store, record: RunRecord, done: int, age: float = 0.0) -> None:
    progress = Progress(
        run_id=record.run_id,
        images=record.images,
        done=done,
        counts=Counts(images=done, ok=done),
        shards=1,
        shards_done=0,
        actors=1,
        images_per_second=2.0,
        eta_seconds=None,
        restarts=0,
        retries=0,
        updated=datetime.now(UTC) - timedelta(seconds=age),
    )
    output.put(progress_key(record.run_id), progress.model_dump_json().encode())


def test_a_run_is_followed_to_its_end(
    output: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (finished,) = records(output)
    running = finished.model_copy(update={"state": "running"})
    write_record(output, running)
    tell(output, running, 0)
    between_looks(
        monkeypatch,
        lambda: tell(output, running, 1),
        lambda: None,
        lambda: tell(output, running, 2),
        lambda: write_record(output, finished),
    )
    assert fcn(["runs", "watch", output.uri, finished.run_id[:8]]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[2] for line in lines[:-1]] == ["done=0/3", "done=1/3", "done=2/3"]
    assert lines[-1].startswith(f"run {finished.run_id} finished: 3 of 3 images segmented")


def test_a_run_that_failed_says_why_and_so_does_the_exit_code(
    output: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    (record,) = records(output)
    write_record(output, record.model_copy(update={"state": "failed", "reason": "storage stayed down"}))
    assert fcn(["runs", "watch", output.uri]) == 1
    assert "failed (storage stayed down)" in capsys.readouterr().err
    assert fcn(["runs", output.uri]) == 0
    assert f"run {record.run_id} failed: storage stayed down" in capsys.readouterr().out


def test_a_silent_run_is_said_to_be_silent_once(
    output: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (finished,) = records(output)
    began = datetime.now(UTC) - timedelta(seconds=2000)
    running = finished.model_copy(update={"state": "running", "started": began})
    write_record(output, running)
    tell(output, running, 1, age=1000)
    between_looks(monkeypatch, lambda: None, lambda: None, lambda: write_record(output, finished))
    assert fcn(["runs", "watch", output.uri]) == 0
    said = capsys.readouterr().err
    assert said.count("silent for 16 min 40 s: killed? the same command resumes; 3 of 3 images are committed") == 1


def start(output: Store, host: str, quiet: float, beat: bytes = b"2026-03-01T00:00:00+00:00") -> RunRecord:
    """The run as one that a driver on `host` began 300 s ago, whose last heartbeat is `quiet` seconds old."""
    (finished,) = records(output)
    began = datetime.now(UTC) - timedelta(seconds=300)
    owner = {"host": host, "pid": 7, "machine": host, "started": "x", "since": began.isoformat(), "nonce": "n"}
    output.put("lease/00000001.json", json.dumps(owner).encode())
    output.put("lease/00000001.heartbeat", beat)
    moment = time.time() - quiet
    os.utime(Path(output.uri) / "lease/00000001.heartbeat", (moment, moment))
    attempt = Attempt(started=began, lease=1)
    running = finished.model_copy(update={"state": "running", "counts": Counts(), "attempts": (attempt,)})
    write_record(output, running)
    return running


def test_runs_tells_the_living_from_the_dead_and_counts_what_is_committed(
    output: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    running = start(output, "worker-3", quiet=4)
    tell(output, running, 2, age=20)
    assert fcn(["runs", output.uri]) == 0
    table, line = capsys.readouterr().out.splitlines()[1:]
    assert table.split()[1:5] == ["running", "3", "3", "0"], "no zeros where images are committed"
    assert "is running (last heard " in line
    assert line.endswith("2 of 3 images done, now 2.0 images/s on 1 actor(s)")

    tell(output, running, 2, age=190)
    start(output, "worker-3", quiet=180)
    assert fcn(["runs", output.uri]) == 0
    table, line = capsys.readouterr().out.splitlines()[1:]
    assert table.split()[1] == "silent"
    assert "is silent for 3 min: killed? the same command resumes; 3 of 3 images are committed, no errors" in line


def test_a_driver_that_is_known_to_have_ended_is_gone_at_once(
    output: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On this machine its process is looked for; and one that gave its lease back, or was superseded, ended too."""
    start(output, "worker-3", quiet=1, beat=b"released")
    assert fcn(["runs", output.uri]) == 0
    assert "its driver (host worker-3, process 7) ended; the same command resumes" in capsys.readouterr().out

    monkeypatch.setattr("pipeline.outputs.lease._machine", lambda: "here")
    monkeypatch.setattr("pipeline.outputs.lease._is_running", lambda owner: False)
    start(output, "here", quiet=1)
    assert fcn(["runs", output.uri, "--json"]) == 0
    (run,) = json.loads(capsys.readouterr().out)
    assert (run["state"], run["driver"]["state"]) == ("running", "gone")
    monkeypatch.undo()

    start(output, "worker-3", quiet=1)
    Lease.acquire(output, takeover=True).release()
    assert fcn(["runs", output.uri]) == 0
    assert "gone for" in capsys.readouterr().out


def test_watch_speaks_of_a_driver_that_died_before_its_first_progress(
    output: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (finished,) = records(output)
    start(output, "worker-3", quiet=4)
    between_looks(
        monkeypatch,
        lambda: None,
        lambda: start(output, "worker-3", quiet=200, beat=b"released") and None,
        lambda: write_record(output, finished),
    )
    assert fcn(["runs", "watch", output.uri]) == 0
    first, second, last = capsys.readouterr().err.splitlines()
    assert first.startswith("running (last heard ")
    assert first.endswith("no progress yet")
    assert second.startswith("gone for ")
    assert "ended; the same command resumes" in second
    assert "finished" in last


def test_where_leases_may_not_be_read_progress_tells_alone(
    output: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(store: Store) -> None:
        raise AccessDenied("lease/ may not be read.")

    tell(output, start(output, "worker-3", quiet=4), 2, age=190)
    monkeypatch.setattr(Lease, "holder", refused)
    assert fcn(["runs", output.uri]) == 0
    assert "is silent for 3 min" in capsys.readouterr().out


def test_a_driver_that_has_begun_no_run_yet_is_spoken_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = open_store(str(tmp_path / "labels"))
    with Lease.acquire(output):
        assert fcn(["runs", output.uri]) == 0
        said = capsys.readouterr().err
        assert f"process {os.getpid()}), last heard " in said
        assert said.strip().endswith("has no run at work yet: it checks, lists or plans")
    assert fcn(["runs", output.uri]) == 0
    assert "process" not in capsys.readouterr().err


def test_a_run_that_is_not_there_is_named(output: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no run 1999" in refused(capsys, "runs", "watch", output.uri, "1999")
