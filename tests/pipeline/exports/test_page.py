"""The commands of docs/exports.md, on an output of its own."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from pipeline.cli.app import run
from pipeline.storage.opening import open_store
from tests.commands import refused
from tests.pipeline.exports.outputs import files_under, write_run

PAGE = Path(__file__).parents[3] / "docs" / "exports.md"


def test_the_page_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    half = np.repeat(np.array([[0], [1]], np.uint8), 20, axis=0).repeat(30, axis=1)
    write_run(open_store("labels"), {f"{index}.jpg": half for index in range(9)})
    commands = re.findall(r"^    fcn (.*)$", PAGE.read_text(), re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        assert run(shlex.split(command)) == 0
    printed = capsys.readouterr().out
    assert printed.count("9 masks of recipe") == 2
    assert "7 masks of recipe" in printed
    assert len(files_under(tmp_path / "plain")) == 9
    assert len(json.loads((tmp_path / "coco" / "annotations.json").read_text())["images"]) == 7
    first = (tmp_path / "yolo" / "labels" / "0.txt").read_text()
    assert first == "0 0 0 1 0 1 0.5 0 0.5\n1 0 0.5 1 0.5 1 1 0 1\n"
    assert run(shlex.split(commands[1])) == 0
    assert "7 of them since before" in capsys.readouterr().out

    for options, said in (
        (["--format", "coco"], "coco"),
        (["--tolerance", "-1"], "tolerance"),
        (["--min-area", "9"], "--min-area is nothing that png has"),
        (["--where", "confidence > 2"], "no mask that fits the condition"),
    ):
        assert said in refused(capsys, "masks", "export", "labels", "new", *options)
    assert not (tmp_path / "new").exists()
