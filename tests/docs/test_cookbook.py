"""Every recipe of the cookbook runs as it stands on a real output, and its three forms give one answer."""

import re
import shlex
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from fcn_core.labels import decode_mask
from pipeline.cli.app import run as fcn
from pipeline.outputs.masks import read_mask
from pipeline.outputs.query import open_tables, run_query
from pipeline.outputs.results import read_results, result_runs
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store
from tests.labellings import CAMVID, CAR, ROAD, SKY, Mask, striped, write_run

PAGE = (Path(__file__).parents[2] / "docs" / "cookbook.md").read_text()
RESULTS_PAGE = (Path(__file__).parents[2] / "docs" / "results.md").read_text()
SETUP, *QUESTIONS = re.split(r"^## (?=\d)", PAGE, flags=re.MULTILINE)
TITLES = [question.partition("\n")[0] for question in QUESTIONS]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


TWO = "5" * 16
A, B, C = (f"2026010{day}T000000Z-0001" for day in (1, 2, 3))


def plain(store: Store) -> None:
    """One run, with an image that could not be read and one at the top."""
    write_run(store, A, {**pictures(0), "top.jpg": striped(ROAD), "south/bad.jpg": "not_an_image"}, when=DAYS)


def two_models(store: Store) -> None:
    """The second model saw most of the images, failed on one of them, and nothing on its run is labelled by the first
    alone; one image changed in between."""
    plain(store)
    others: dict[str, Mask | str] = {**pictures(1), "north/a/0.jpg": "timed_out"}
    write_run(store, B, others, model=TWO, when=DAYS, etags={"south/1.jpg": "newer"})


def two_settings(store: Store) -> None:
    """One model with two settings, in two runs each."""
    plain(store)
    write_run(store, B, pictures(1), params="3" * 16, when=DAYS)
    write_run(store, C, dict(list(pictures(2).items())[:2]), params="3" * 16, when=DAYS)


def two_runs(store: Store) -> None:
    plain(store)
    write_run(store, B, {"south/1.jpg": striped(CAR, ROAD, SKY), "south/new.jpg": striped(SKY, ROAD)}, when=DAYS)


def replaced_images(store: Store) -> None:
    """Images of 0 to 2 replaced: by one that reads, by one that does not, by one that is mended."""
    plain(store)
    etags = dict.fromkeys(("north/a/0.jpg", "north/a/1.jpg", "south/bad.jpg"), "newer")
    replaced: dict[str, Mask | str] = {
        "north/a/0.jpg": striped(CAR, height=3), "north/a/1.jpg": "truncated", "south/bad.jpg": striped(ROAD, SKY)
    }  # fmt: skip
    write_run(store, B, replaced, etags=etags, when=DAYS)


def errors_only(store: Store) -> None:
    write_run(store, A, {"a.jpg": "truncated", "b/c.jpg": "not_an_image"})


def back_again(store: Store) -> None:
    """The newest run is by the variant that was there first."""
    two_models(store)
    write_run(store, C, {"south/0.jpg": striped(CAR)}, when=DAYS)


OUTPUTS = (plain, two_models, two_settings, two_runs, replaced_images, errors_only, back_again)
DAYS = {
    f"{folder}/{number}.jpg": datetime(2026, 11, 28, 21 + number, 38, tzinfo=UTC)
    for folder in ("north/a", "south") for number in range(3)
}  # fmt: skip


def pictures(seed: int) -> dict[str, Mask | str]:
    """Six masks in two folders, of unlike sizes, the last mostly road; each seed has others."""
    rng = np.random.default_rng(seed)
    masks: dict[str, Mask | str] = {key: rng.integers(0, 4, (6 + at, 8), np.uint8) for at, key in enumerate(DAYS)}
    return {**masks, "south/2.jpg": striped(ROAD, ROAD, SKY, height=9 + seed)}


@pytest.fixture(scope="module", params=OUTPUTS, ids=lambda make: make.__name__)
def output(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `labels/` in it."""
    folder = tmp_path_factory.mktemp("site")
    request.param(open_store(str(folder / "labels")))
    return folder


@pytest.fixture
def site(output: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(output)
    return output


def rows(table: Any) -> list[tuple[Any, ...]]:
    """Rows to compare, in no order; numbers as far as float32 reaches."""
    columns = [str(name) for name in table.columns]
    records = table.to_dict("records") if isinstance(table, pd.DataFrame) else table.to_dicts()
    found = [tuple(_plain(record[name]) for name in columns) for record in records]
    return [tuple(columns), *sorted(found, key=repr)]


def _plain(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return None if np.isnan(value) else round(float(value), 6)
    return value


def ask(sql: str) -> pl.DataFrame:
    with open_tables(open_store("labels")) as connection:
        return pl.DataFrame(pl.from_arrow(run_query(connection, sql).read_all()))


def test_there_are_ten_questions_in_three_languages() -> None:
    assert len(QUESTIONS) == 10
    for question in QUESTIONS:
        assert len(blocks(question, "sql")) == 1
        assert [block.splitlines()[0] for block in blocks(question, "python")] == ["# pandas", "# polars"]


@pytest.mark.parametrize("index", range(len(QUESTIONS)), ids=TITLES)
def test_sql_pandas_and_polars_give_one_answer(site: Path, index: int) -> None:
    (sql,) = blocks(QUESTIONS[index], "sql")
    expected = rows(ask(sql))
    for setup, code in zip(blocks(SETUP, "python"), blocks(QUESTIONS[index], "python"), strict=True):
        names: dict[str, Any] = {}
        exec(compile(setup, "cookbook.md, setup", "exec"), names)
        exec(compile(code, f"cookbook.md, {TITLES[index]}", "exec"), names)
        assert rows(names["answer"]) == expected


def test_every_question_has_an_answer_somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    two_models(open_store(str(tmp_path / "labels")))
    for question in QUESTIONS:
        (sql,) = blocks(question, "sql")
        assert len(ask(sql)), question.partition("\n")[0]


def test_an_image_that_one_model_did_not_label_is_no_disagreement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store(str(tmp_path / "labels"))
    write_run(store, A, {"both.jpg": striped(SKY, ROAD), "only.jpg": striped(SKY)})
    write_run(store, B, {"both.jpg": striped(SKY, CAR), "failed.jpg": "truncated"}, model=TWO)
    (sql,) = blocks(QUESTIONS[7], "sql")
    assert ask(sql).rows() == [("both.jpg", 0.5)]


def test_an_upload_at_21_38_utc_is_of_the_28th_in_tokyo_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        when = {"cam/a.jpg": datetime(2026, 11, 28, 21, 38, tzinfo=UTC)}
        write_run(open_store(str(tmp_path / "labels")), A, {"cam/a.jpg": striped(SKY, ROAD)}, when=when)
        (sql,) = blocks(QUESTIONS[0], "sql")
        assert ask(sql).rows() == [("cam", date(2026, 11, 28), 0.5)]
        view, per_camera, *_ = re.findall(r"```sql\n(.*?)```", RESULTS_PAGE, re.DOTALL)
        shell = duckdb.connect()
        shell.execute("SET TimeZone = 'Asia/Tokyo'")
        shell.execute(view)
        assert shell.execute(per_camera).fetchall() == [("cam", date(2026, 11, 28), 0.5)]
    finally:
        monkeypatch.undo()
        time.tzset()


def test_the_commands_at_the_top_do_what_they_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    two_models(open_store(str(tmp_path / "labels")))
    commands = re.findall(r'^    (fcn query labels/ ".*)$', SETUP, re.MULTILINE)
    assert commands
    for command in commands:
        assert fcn(shlex.split(command)[1:]) == 0
    assert "6" in capsys.readouterr().out, "each image of the newest model once"
    (variants,) = blocks(SETUP, "sql")
    assert ask(variants)["images"].to_list() == [6, 8], "the newest variant first"


def test_pixels_by_class_are_those_of_the_masks_of_the_newest_variant_in_every_way(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store("labels")
    expected: dict[str, int] = {}
    rows = [row for table in map(pa.Table.to_pylist, tables_of(store)) for row in table]
    newest = max(rows, key=lambda row: row["run_id"])
    current: dict[str, dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row["run_id"]):
        if (row["model_id"], row["params_id"]) == (newest["model_id"], newest["params_id"]):
            current[row["key"]] = row
    for row in current.values():
        if row["status"] == "ok":
            mask = decode_mask(read_mask(store, row["mask_key"]))
            for index, count in enumerate(np.bincount(mask.ravel()).tolist()):
                if count:
                    expected[CAMVID.names[index]] = expected.get(CAMVID.names[index], 0) + count
    counted = "SELECT class_name, sum(pixels) AS pixels FROM class_areas GROUP BY ALL"
    assert dict(ask(counted).rows()) == expected
    shell = duckdb.connect()
    shell.execute(re.findall(r"```sql\n(.*?)```", RESULTS_PAGE, re.DOTALL)[0])
    unnested = "SELECT area.class_name, sum(area.pixels) FROM (SELECT unnest(areas) AS area FROM current) GROUP BY ALL"
    assert dict(shell.execute(unnested).fetchall()) == expected
    found: dict[str, Any] = {}
    (block,) = [block for block in blocks(RESULTS_PAGE, "python") if "class_areas" in block]
    exec(compile(block, "results.md, class_areas", "exec"), found)
    assert found["areas"].groupby("class_name").pixels.sum().to_dict() == expected


def tables_of(store: Store) -> list[pa.Table]:
    return [
        table.append_column("run_id", pa.array([run_id] * len(table), pa.string()))
        for run_id in result_runs(store)
        for table in read_results(store, run_id)
    ]
