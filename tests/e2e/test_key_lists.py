"""A job over a list of keys: what it names is labelled or has a row that says why not, and nothing else is touched."""

import json
from pathlib import Path

import pytest

from pipeline.cli.app import run as fcn
from pipeline.outputs.current import read_current
from pipeline.storage.opening import open_store
from tests.commands import refused
from tests.in_process import segment_in_process
from tests.samples import fill


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    segment_in_process(monkeypatch)


def test_a_list_of_keys_stands_for_the_listing(
    tmp_path: Path, model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, labels, names = tmp_path / "photos", tmp_path / "labels", tmp_path / "names.txt"
    fill(photos, 6)
    names.write_text(f"0004.jpg\ngone.jpg\n{photos}/0001.jpg\n0004.jpg\nnotes.md\n")
    command = ["segment", str(photos), str(labels), "--model", str(model_dir), "--device", "cpu", "--actors", "1"]
    listed = [*command, "--cpus-per-actor", "1", "--engine", "torch", "--no-report", "--key-list", str(names), "--json"]

    assert fcn(listed) == 0
    first = json.loads(capsys.readouterr().out)
    assert (first["images"], first["ok"], first["errors"]) == (3, 2, {"missing": 1})
    rows = {row["key"]: row for row in read_current(open_store(str(labels))).to_pylist()}
    assert rows.keys() == {"0001.jpg", "0004.jpg", "gone.jpg"}
    assert rows["gone.jpg"]["message"]

    fill(photos, 1, start=9)
    (photos / "0009.jpg").rename(photos / "gone.jpg")
    assert fcn(listed) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["images"], again["ok"], again["already_done"]) == (1, 1, 2), "what was missing is tried again"


def test_a_list_that_cannot_be_read_is_refused_before_any_work(
    tmp_path: Path, model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path / "photos", 1)
    command = ("segment", tmp_path / "photos", tmp_path / "labels", "--model", model_dir, "--key-list")
    assert "does not exist" in refused(capsys, *command, tmp_path / "none.csv")
    (tmp_path / "names.orc").write_bytes(b"ORC")
    assert "ORC" in refused(capsys, *command, tmp_path / "names.orc")
    assert not (tmp_path / "labels").exists()
