"""A run whose standard error is lost goes on to its end, and its record says so. Where there never was one, too."""

import json
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
from pipeline.errors import StorageError
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


def test_a_full_output_that_cannot_even_take_the_record_says_so(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    segment_in_process(monkeypatch)
    source, output = tmp_path / "photos", tmp_path / "labels"
    source.mkdir()
    (source / "a.jpg").write_bytes(b"not an image")

    def full(*arguments: object) -> None:
        raise StorageError(f"{output}/runs cannot be written: the disk is full or over quota.")

    monkeypatch.setattr("pipeline.segmentation.job.finish_tables", full)
    monkeypatch.setattr("pipeline.outputs.runs.write_record", full)
    options = [
        "--model",
        str(model_dir),
        "--device",
        "cpu",
        "--engine",
        "torch",
        "--actors",
        "1",
        "--cpus-per-actor",
        "1",
    ]
    assert fcn(["segment", str(source), str(output), *options]) == 1
    said = capsys.readouterr().err
    (record,) = records(open_store(str(output)))
    assert record.state == "running"
    assert f"the record of run {record.run_id} could not be written" in said
    assert "the disk is full or over quota" in said
    assert "the same command resumes it once that is mended" in said


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


def output_of(redirected: str, *words: str, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    """`fcn` in a shell that redirects its standard output."""
    begins = "from pipeline.cli.entry import main; main()"
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", f'"$0" -P -c "$@" {redirected}', sys.executable, begins, *words],
        env=os.environ | {"PYTHONPATH": child_path()} | environment, capture_output=True, timeout=100, check=False,
    )  # fmt: skip


@pytest.fixture
def odd_names(tmp_path: Path) -> Path:
    """An output whose run's record cannot be read, under a name that not every locale has."""
    key = tmp_path / "Straße 道路"
    (key / "runs" / "20260301T000000Z-0000").mkdir(parents=True)
    (key / "results" / "run_id=20260301T000000Z-0000").mkdir(parents=True)
    (key / "results" / "run_id=20260301T000000Z-0000" / "shard-00000000.parquet").write_bytes(b"no parquet")
    (key / "runs" / "20260301T000000Z-0000" / "run.json").write_bytes(b"{}")
    return key


@pytest.mark.parametrize(
    ("redirected", "code", "said"),
    [("> /dev/full", 1, "fcn: standard output could not be written (No space left on device)"), ("| true", 141, "")],
)
def test_standard_output_that_is_full_or_not_read_is_no_traceback(redirected: str, code: int, said: str) -> None:
    done = output_of(redirected, "--help")
    assert (done.returncode, b"Traceback" in done.stderr, b"Exception" in done.stderr) == (code, False, False)
    assert done.stderr.decode().startswith(said)


@pytest.mark.parametrize(
    ("environment", "encoding", "code"),
    [
        ({"LC_ALL": "POSIX"}, "utf-8", 1),
        # Here Python itself cannot read such a name in an argument, and that is said.
        ({"LC_ALL": "POSIX", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}, "utf-8", 2),
        ({"PYTHONIOENCODING": "latin-1"}, "latin-1", 1),
    ],
)
def test_standard_output_that_is_not_utf_8_loses_no_name_and_is_no_traceback(
    odd_names: Path, environment: dict[str, str], encoding: str, code: int
) -> None:
    done = output_of("", "verify", "--json", str(odd_names), **environment)
    assert b"Traceback" not in done.stderr
    assert done.returncode == code, done.stderr
    if code == 1:
        assert json.loads(done.stdout.decode(encoding))["findings"]
    else:
        assert b"is not UTF-8" in done.stderr
    helped = output_of("", "--help", **environment)
    assert (helped.returncode, helped.stderr) == (0, b"")
    assert "Usage" in helped.stdout.decode(encoding)
