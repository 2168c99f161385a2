"""A run whose standard error is lost goes on to its end, and its record says so. Where there never was one, too."""

import os
import subprocess
import sys
from pathlib import Path
from typing import TextIO

import pytest

from pipeline.cli.app import run as fcn
from pipeline.cli.console import stderr_console
from pipeline.cli.console_retrain import observe
from pipeline.cli.lost_output import survive_lost_stderr
from pipeline.outputs.runs import records
from pipeline.retraining.observer import ActorsPart, TrainingPart
from pipeline.storage.opening import open_store
from tests.in_process import segment_in_process
from tests.plugins.isolation import child_path


def full_disk() -> TextIO:
    return open("/dev/full", "w")  # the test's own standard error


def no_reader() -> TextIO:
    reader, writer = os.pipe()
    os.close(reader)
    return os.fdopen(writer, "w")


def sound() -> TextIO:
    return open(os.devnull, "w")


@pytest.mark.parametrize(
    ("stderr", "lost"), [(full_disk, "No space left on device"), (no_reader, "Broken pipe"), (sound, None)]
)
def test_the_record_of_a_run_says_that_its_standard_error_was_lost(
    stderr: type[TextIO], lost: str | None, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment_in_process(monkeypatch)
    source, output = tmp_path / "photos", tmp_path / "labels"
    source.mkdir()
    (source / "a.jpg").write_bytes(b"not an image")
    command = ["segment", str(source), str(output), "--model", str(model_dir), "--device", "cpu", "--engine", "torch"]
    with stderr() as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        survive_lost_stderr()
        options = ["--actors", "1", "--cpus-per-actor", "1", "--no-report", "--max-error-rate", "1"]
        assert fcn([*command, *options]) == 0
    (record,) = records(open_store(str(output)))
    assert record.state == "finished"
    if lost is None:
        assert record.lost_output is None
    else:
        assert record.lost_output is not None
        assert record.lost_output.startswith("since 20")
        assert record.lost_output.endswith(f": {lost}")


@pytest.mark.parametrize(("closed", "said"), [(">&-", ""), ("2>&-", "fcn"), ("<&- >&- 2>&-", "")])
def test_streams_that_are_closed_from_the_start_are_done_without(closed: str, said: str) -> None:
    """As some daemons start what they start. Nothing that is opened later is written into by their numbers, either."""
    asks = "from pipeline.cli.app import main; main(['--help'])"
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -P -c "$1" {closed}', sys.executable, asks],
        env=os.environ | {"PYTHONPATH": child_path()}, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert said in done.stdout
    assert bool(said) == bool(done.stdout)


def test_the_records_of_a_retrainings_parts_hear_of_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with full_disk() as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        survive_lost_stderr()
        with observe(stderr_console()) as whole:
            parts = TrainingPart(whole), ActorsPart(whole, "labelling")
            assert [part.lost_output() for part in parts] == [None, None]
            whole.note("the champion has changed")
            for part in parts:
                assert str(part.lost_output()).endswith(": No space left on device")
