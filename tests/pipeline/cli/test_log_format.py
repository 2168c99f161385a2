"""Log lines have a time where no person watches, may be JSON, and tell of each image when asked to."""

import json
import sys
from pathlib import Path

import pytest

from pipeline.cli.app import run as fcn
from pipeline.storage.opening import open_store
from tests.in_process import segment_in_process
from tests.log_lines import parse
from tests.samples import fill


@pytest.fixture
def command(model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A job of two images and a file that is none."""
    segment_in_process(monkeypatch)
    monkeypatch.delenv("FCN_LOG_FORMAT", raising=False)
    source, output = tmp_path / "photos", tmp_path / "labels"
    source.mkdir()
    fill(source, 2)
    (source / "bad.jpg").write_bytes(b"not an image")
    options = ["--device", "cpu", "--engine", "torch", "--actors", "1", "--cpus-per-actor", "1", "--no-report"]
    return ["segment", str(source), str(output), "--model", str(model_dir), *options]


def test_lines_have_the_time_they_were_written_at(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert fcn(command) == 0
    lines = [parse(line) for line in capsys.readouterr().err.splitlines() if "=" in line.split()[0]]
    times = [line["time"] for line in lines]
    assert times == sorted(times)
    assert {line["phase"] for line in lines if "phase" in line} >= {"listing", "segmenting"}
    assert all(time.startswith("20") and time.endswith("Z") for time in times)


def test_every_line_is_an_object_in_json(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = sys.stderr
    assert fcn([*command, "--log-format", "json"]) == 0
    assert sys.stderr is before
    said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert all(line["time"].endswith("Z") for line in said)
    (shard,) = [line for line in said if "shard" in line]
    assert (shard["images"], shard["ok"], shard["reasons"]) == (3, 2, "not_an_image:1")
    assert any("2 images segmented" in line.get("message", "") for line in said)

    monkeypatch.setenv("FCN_LOG_FORMAT", "json")
    assert fcn(["report", str(tmp_path / "none")]) == 2
    (refused,) = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert refused["message"].startswith("fcn: ")


def test_there_is_a_line_per_image_when_asked_for(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert fcn([*command, "--log-images"]) == 0
    lines = [parse(line) for line in capsys.readouterr().err.splitlines() if " key=" in line]
    assert len(lines) == 3
    (bad,) = [line for line in lines if line["key"] == "bad.jpg"]
    assert (bad["status"], bad["error"], "mask_key" in bad) == ("error", "not_an_image", False)
    output = open_store(command[2])
    for line in lines:
        if line is not bad:
            assert line["status"] == "ok"
            assert output.head(line["mask_key"])
