"""A job over a bucket of rubbish need not go on to its end to say so."""

import json
from pathlib import Path

import pytest

from pipeline.cli.app import run as fcn
from pipeline.outputs.runs import records
from pipeline.storage.opening import open_store
from tests.in_process import segment_in_process

IMAGES = 200


def test_too_many_errors_on_the_way_stop_the_job_and_leave_it_resumable(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    segment_in_process(monkeypatch)
    source = tmp_path / "photos"
    source.mkdir()
    for index in range(IMAGES):
        (source / f"{index:03d}.jpg").write_bytes(b"not an image")
    output = tmp_path / "labels"
    command = ["segment", str(source), str(output), "--model", str(model_dir), "--device", "cpu", "--json"]
    options = ["--actors", "1", "--cpus-per-actor", "1", "--shard-size", "20", "--no-report", "--engine", "torch"]

    assert fcn([*command, *options, "--abort-error-rate", "0.5"]) == 3
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert told["state"] == "interrupted"
    assert "images failed: 100 %, more than abort_error_rate 50 % allows" in told["aborted"]
    assert "the same command resumes" in captured.err.replace("\n", " ")
    assert 100 <= told["images"] < IMAGES, "not before a hundred images, and not after all"
    (record,) = records(open_store(str(output)))
    assert (record.state, record.reason) == ("interrupted", told["aborted"])

    assert fcn([*command, *options, "--max-error-rate", "1"]) == 0
    resumed = json.loads(capsys.readouterr().out)
    assert (resumed["state"], resumed["runs"], resumed["images"]) == ("finished", [record.run_id], IMAGES)
