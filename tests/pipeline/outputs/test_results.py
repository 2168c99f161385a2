"""One commit a shard, the first writer wins, and every other table can be made again from it."""

import io
from datetime import UTC, datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.errors import StorageError
from pipeline.outputs.current import read_current
from pipeline.outputs.results import (
    CLASS_AREAS_SCHEMA,
    RESULTS_SCHEMA,
    ClassArea,
    ResultRow,
    commit_shard,
    committed_shards,
    encode_results,
    finish_tables,
    read_class_totals,
    read_results,
    shard_key,
)
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store

WHEN = datetime(2026, 1, 1, 2, 3, 4, 567890, UTC)
CLASSES = ["sky", "road", "car"]


def ok(key: str, pixels: dict[int, int], etag: str = "e", model: str = "m") -> ResultRow:
    total = sum(pixels.values())
    areas = tuple(ClassArea(number, CLASSES[number], count, count / total) for number, count in pixels.items())
    return ResultRow(
        key, etag, 10, WHEN, "ok", model, "p", width=total, height=1, orientation=1, mask_key=f"masks/{key}.png",
        mask_sha256="0" * 64, areas=areas, confidence=0.5,
    )  # fmt: skip


def failed(key: str, reason: str = "truncated") -> ResultRow:
    return ResultRow(key, "e", 10, WHEN, "error", "m", "p", error=reason, message="the file ends early")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def test_equal_rows_give_equal_bytes() -> None:
    rows = [ok("a.jpg", {0: 3, 2: 1}), failed("b.jpg")]
    assert encode_results(rows) == encode_results(list(rows))


def test_rows_read_back_as_written(store: Store) -> None:
    committed = commit_shard(store, "r", 0, [ok("ä'\n.jpg", {0: 3, 2: 1}), failed("b.jpg")])
    (table,) = read_results(store, "r")
    assert table.equals(committed)
    assert table.schema.equals(RESULTS_SCHEMA)
    first, second = table.to_pylist()
    assert first["areas"] == [
        {"class_id": 0, "class_name": "sky", "pixels": 3, "fraction": 0.75},
        {"class_id": 2, "class_name": "car", "pixels": 1, "fraction": 0.25},
    ]
    assert first["last_modified"] == WHEN
    assert (second["areas"], second["mask_key"], second["error"]) == (None, None, "truncated")


def test_the_first_commit_of_a_shard_wins(store: Store) -> None:
    commit_shard(store, "r", 3, [ok("a.jpg", {0: 1})])
    table = commit_shard(store, "r", 3, [ok("a.jpg", {1: 9})])
    assert table.to_pylist()[0]["areas"][0]["class_name"] == "sky"
    areas = pq.read_table(io.BytesIO(store.get(shard_key("class_areas", "r", 3))))
    assert areas.column("class_name").to_pylist() == ["sky"]
    assert committed_shards(store, "r") == {3}


def test_finishing_fills_a_gap_in_class_areas(store: Store) -> None:
    commit_shard(store, "r", 0, [ok("a.jpg", {0: 1, 1: 2})])
    commit_shard(store, "r", 1, [failed("b.jpg")])
    lost = shard_key("class_areas", "r", 0)
    before = store.get(lost)
    store.delete(lost)
    finish_tables(store, "r", CLASSES, "m", "p")
    assert store.get(lost) == before
    empty = pq.read_table(io.BytesIO(store.get(shard_key("class_areas", "r", 1))))
    assert len(empty) == 0
    assert empty.schema.equals(CLASS_AREAS_SCHEMA)


def test_totals_add_up_over_shards_and_name_absent_classes(store: Store) -> None:
    commit_shard(store, "r", 0, [ok("a.jpg", {0: 6, 1: 2}), failed("x.jpg"), failed("y.jpg", "missing")])
    commit_shard(store, "r", 1, [ok("b.jpg", {0: 2})])
    totals = finish_tables(store, "r", CLASSES, "m", "p")
    assert (totals.ok, totals.errors) == (2, {"missing": 1, "truncated": 1})
    assert [(total.class_name, total.pixels, total.images) for total in totals.classes] == [
        ("sky", 8, 2),
        ("road", 2, 1),
        ("car", 0, 0),
    ]
    assert sum(total.fraction for total in totals.classes) == pytest.approx(1.0)
    assert read_class_totals(store, "r") == totals.classes


def test_current_is_the_newest_row_of_each_key(store: Store) -> None:
    commit_shard(store, "20260101", 0, [ok("a.jpg", {0: 1}), ok("b.jpg", {0: 1}), ok("a.jpg", {2: 1}, model="m2")])
    commit_shard(store, "20260102", 0, [ok("a.jpg", {1: 5}, etag="e2")])
    rows = {(row["key"], row["model_id"]): row for row in read_current(store, variant="all").to_pylist()}
    assert len(rows) == 3
    assert rows["a.jpg", "m"]["etag"] == "e2"
    assert rows["a.jpg", "m"]["run_id"] == "20260102"
    assert rows["a.jpg", "m2"]["areas"][0]["class_name"] == "car"
    narrow = read_current(store, ["status"])
    assert narrow.column_names == ["key", "model_id", "params_id", "status", "run_id"]
    assert narrow["key"].to_pylist() == ["a.jpg", "b.jpg"], "the newest variant alone, each image once"


def test_current_of_an_empty_output_is_an_empty_table(store: Store) -> None:
    assert len(read_current(store)) == 0
    assert len(read_current(store, ["status"])) == 0


def test_a_damaged_results_file_is_named(store: Store) -> None:
    store.put(shard_key("results", "r", 0), b"PAR1 not really")
    with pytest.raises(StorageError, match=r"results/run_id=r/shard-00000000\.parquet is not a readable"):
        list(read_results(store, "r"))


def test_a_file_that_is_no_shards_is_not_taken_for_results(store: Store) -> None:
    commit_shard(store, "r", 3, [ok("a.jpg", {0: 1})])
    store.put("results/run_id=r/mine.parquet", b"notes of somebody")
    store.put("class_areas/run_id=r/shard-3.parquet", b"notes of somebody")
    assert committed_shards(store, "r") == {3}
    assert [len(table) for table in read_results(store, "r")] == [1]
    assert finish_tables(store, "r", ["sky"], "m", "p").ok == 1
