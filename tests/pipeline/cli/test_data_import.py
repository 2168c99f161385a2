"""`fcn data import`, `add`, `log` and `diff`: what a person types and reads."""

import json
from pathlib import Path

import pytest

from pipeline.cli.app import run as fcn
from tests.commands import refused
from tests.pipeline.data.annotations.sources import PHOTO, write
from tests.pipeline.data.test_versions import export


def test_an_import_says_what_it_made_of_what(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = write(tmp_path, {"labels.json": {"name": "street", "names": ["other", "vehicle"]}}) + "/labels.json"
    source = write(tmp_path / "export", {**export(["a.jpg", "b.jpg"]), "images/b.jpg": b"\x1b[2J"})
    arguments = ["data", "import", source, "-o", str(tmp_path / "set"), "--labels", labels, "--map", "car=vehicle"]
    assert fcn([*arguments, "--unlabelled", "other"]) == 0
    text = capsys.readouterr().out
    assert "format coco: 1 usable images, 1 left out" in text
    assert "car -> vehicle" in text
    assert "b.jpg: " in text
    assert f"version 1 of {tmp_path / 'set'}: 1 train" in text
    assert "\x1b" not in text
    assert fcn(["data", "check", f"{tmp_path / 'set'}@1"]) == 0
    assert "other" in capsys.readouterr().out


def test_additions_are_logged_and_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dataset = str(tmp_path / "set")
    assert fcn(["data", "import", write(tmp_path / "one", export(["a.jpg"])), "-o", dataset]) == 0
    more = write(tmp_path / "two", export(["a.jpg", "b.jpg"], category=2))
    assert fcn(["data", "add", dataset, more, "--json"]) == 0
    report = json.loads(capsys.readouterr().out.rpartition("\n{")[2].join(["{", ""]))
    assert (report["version"], report["added"], report["corrected"]) == (2, 1, 1)
    assert fcn(["data", "log", dataset]) == 0
    newest, oldest = capsys.readouterr().out.splitlines()
    assert newest.split()[0] == "2"
    assert "1 new, 1 corrected" in newest
    assert "1 new, 0 corrected" in oldest
    assert fcn(["data", "diff", f"{dataset}@1", f"{dataset}@latest"]) == 0
    text = capsys.readouterr().out
    assert "added (1):\n    b.jpg" in text
    assert "mask corrected (1):\n    a.jpg" in text


def test_what_cannot_be_imported_is_refused_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "export", export(["a.jpg"]))
    for arguments, message in [
        ((tmp_path / "none", "-o", tmp_path / "set"), "does not exist"),
        ((write(tmp_path / "photos", {"a.jpg": PHOTO}), "-o", tmp_path / "set"), "no format that is recognised"),
        ((source, "-o", tmp_path / "set", "--format", "voc"), "there is no format 'voc'"),
        ((source, "-o", tmp_path / "set", "--map", "car"), "should be NAME=CLASS"),
        ((source, "-o", tmp_path / "set", "--map", "car=boat", "--labels", "camvid"), "no such class"),
        ((source, "-o", tmp_path / "set", "--labels", "camvid", "--unlabelled", "sea"), "no such class"),
        ((source, "-o", tmp_path / "set", "--group", "("), "no regular expression"),
    ]:
        assert message in refused(capsys, "data", "import", *arguments)
    assert not (tmp_path / "set/versions").exists()
    assert "has no versions" in refused(capsys, "data", "log", tmp_path / "export")
    assert "names no version" in refused(capsys, "data", "diff", tmp_path / "set", tmp_path / "set")


def test_an_import_of_nothing_usable_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "export", export(["a.jpg"], photos=False))
    assert fcn(["data", "import", source, "-o", str(tmp_path / "set")]) == 2
    assert "nothing changed, and no version was made" in capsys.readouterr().out
