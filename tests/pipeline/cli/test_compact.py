"""`fcn compact` says what it made."""

import json
from pathlib import Path

import pytest

from pipeline.cli.app import run as fcn
from pipeline.storage.opening import open_store
from tests.labellings import SKY, striped, write_run


def test_compact_says_what_its_index_covers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def compact(*options: str) -> str:
        assert fcn(["compact", str(tmp_path), *options]) == 0
        return capsys.readouterr().out

    assert compact("--allow-empty") == f"there are no results under {tmp_path}\n"
    assert json.loads(compact("--allow-empty", "--json")) is None
    write_run(open_store(str(tmp_path)), "20260101T000000Z-0000", {f"{index}.jpg": striped(SKY) for index in range(10)})
    first = compact()
    assert first.startswith("index 00000001-")
    assert "covers 3 results files (10 rows), 3 of them new" in first
    assert "nothing was new" in compact()
    assert json.loads(compact("--json"))["shards"] == 3


def test_compact_of_a_place_that_is_not_there_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fcn(["compact", str(tmp_path / "nowhere")]) == 2
    assert "nowhere does not exist" in capsys.readouterr().err
