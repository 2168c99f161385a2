"""`fcn runs watch`: a run as the storage tells of it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from fcn_core import preset
from pipeline.cli import runs as command
from pipeline.cli.app import run as fcn
from pipeline.outputs.runs import Counts, Progress, RunRecord, progress_key, records, write_record
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
    assert [line.split()[1] for line in lines[:-1]] == ["done=0/3", "done=1/3", "done=2/3"]
    assert lines[-1].startswith(f"run {finished.run_id} finished: 3 of 3 images labelled")


def test_a_run_that_failed_says_why_and_so_does_the_exit_code(
    output: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    (record,) = records(output)
    write_record(output, record.model_copy(update={"state": "failed", "reason": "storage stayed down"}))
    assert fcn(["runs", "watch", output.uri]) == 1
    assert "failed (storage stayed down)" in capsys.readouterr().err


def test_a_silent_run_is_said_to_be_silent_once(
    output: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (finished,) = records(output)
    running = finished.model_copy(update={"state": "running"})
    write_record(output, running)
    tell(output, running, 1, age=1000)
    between_looks(monkeypatch, lambda: None, lambda: None, lambda: write_record(output, finished))
    assert fcn(["runs", "watch", output.uri]) == 0
    assert capsys.readouterr().err.count("nothing was heard of it for 1000 s") == 1


def test_a_run_that_is_not_there_is_named(output: Store, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no run 1999" in refused(capsys, "runs", "watch", output.uri, "1999")
