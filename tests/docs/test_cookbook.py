"""Every recipe of the cookbook runs as it stands on a real output, and its three forms give one answer."""

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from fcn_core import LabelSet, Predictor
from pipeline.cli.app import run as fcn
from pipeline.insight.query import open_tables, run_query
from pipeline.segmentation.job import segment
from pipeline.segmentation.options import SegmentJob
from pipeline.storage.store import open_store
from tests.in_process import segment_in_process
from tests.labellings import CAMVID
from tests.samples import fill, model, photo

PAGE = (Path(__file__).parents[2] / "docs" / "cookbook.md").read_text()
SETUP, *QUESTIONS = re.split(r"^## (?=\d)", PAGE, flags=re.MULTILINE)
TITLES = [question.partition("\n")[0] for question in QUESTIONS]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def labels_with_road_in_sight(seed: int) -> LabelSet:
    """CamVid's classes, "road" the one that this model sees most of: an untrained model has no idea of roads."""
    mask = Predictor(model(CAMVID, seed)).predict([photo(96, 72)])[0].mask
    names = list(CAMVID.names)
    most, road = int(np.bincount(mask.ravel()).argmax()), names.index("road")
    names[most], names[road] = names[road], names[most]
    return CAMVID.model_copy(update={"names": tuple(names)})


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `labels/` in it: two models, three runs, an image that changed, one unreadable, one new."""
    folder = tmp_path_factory.mktemp("site")
    photos = folder / "photos"
    fill(photos / "north" / "a", 3)
    fill(photos / "south", 3, start=3)
    fill(photos, 1, start=9)
    (photos / "south" / "bad.jpg").write_bytes(b"no image")
    for seed in (0, 1):
        model(labels_with_road_in_sight(seed), seed).save(folder / f"model{seed}")
    job = SegmentJob(
        source=str(photos), output=str(folder / "labels"), model=str(folder / "model0"), device="cpu", actors=1,
        cpus_per_actor=1,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        segment_in_process(patch)
        segment(job)
        fill(photos / "south", 1, size=(50, 40), start=3)
        segment(job)
        segment(job.model_copy(update={"model": str(folder / "model1"), "include": ("*/*.jpg",)}))
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
    return round(float(value), 6) if isinstance(value, float | np.floating) else value


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
    assert len(expected) > 1, "the output has something to answer with"
    for setup, code in zip(blocks(SETUP, "python"), blocks(QUESTIONS[index], "python"), strict=True):
        names: dict[str, Any] = {}
        exec(compile(setup, "cookbook.md, setup", "exec"), names)
        exec(compile(code, f"cookbook.md, {TITLES[index]}", "exec"), names)
        assert rows(names["answer"]) == expected


def test_each_variant_counts_each_image_once(site: Path) -> None:
    (sql,) = blocks(SETUP, "sql")
    assert ask(sql)["images"].to_list() == [7, 8], "the newest model first, which left out the one at the top"


def test_the_commands_at_the_top_do_what_they_say(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    commands = re.findall(r'^    (fcn query labels/ ".*)$', SETUP, re.MULTILINE)
    assert commands
    for command in commands:
        assert fcn(shlex.split(command)[1:]) == 0
    assert "7" in capsys.readouterr().out, "those of the second model alone"
