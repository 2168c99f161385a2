"""A plan reads back as it was written, in shards of the size asked for, and counts only when it is complete."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import PipelineError, StorageError
from pipeline.outputs import plan
from pipeline.outputs.plan import choose_shard_size, read_manifest, read_shards, require_plan, write_plan
from pipeline.outputs.results import read_table
from pipeline.outputs.runs import create_record, read_record
from pipeline.storage import batches
from pipeline.storage.batches import to_batches
from pipeline.storage.opening import open_store
from pipeline.storage.store import ObjectInfo
from tests.labellings import striped, write_run

FIRST = "20260101T000000Z-aaaa"


def entries(count: int) -> list[ObjectInfo]:
    when = datetime(2026, 3, 1, 12, 0, 0, 123456, UTC)
    return [ObjectInfo(f"photos/{index}\n'\".jpg", f"etag{index}", index, when) for index in range(count)]


@pytest.mark.parametrize(("count", "size"), [(1, 5), (5, 5), (6, 5), (23, 4), (40, 1)])
def test_every_entry_is_in_one_shard_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, size: int
) -> None:
    monkeypatch.setattr(plan, "IMAGES_PER_PART", 10)  # several parts from few entries
    monkeypatch.setattr(batches, "BATCH_ROWS", 7)
    store = open_store(str(tmp_path))
    manifest = write_plan(store, "run", to_batches(entries(count)), size)
    shards = list(read_shards(store, "run", manifest))
    assert [entry for shard in shards for entry in shard.entries] == entries(count)
    assert [shard.number for shard in shards] == list(range(manifest.shards))
    assert all(len(shard.entries) == size for shard in shards[:-1])
    assert manifest.images == count
    assert manifest.bytes == sum(range(count))
    assert read_manifest(store, "run") == manifest
    but = {0, manifest.shards - 1}
    assert list(read_shards(store, "run", manifest, but)) == [shard for shard in shards if shard.number not in but]


def test_a_plan_keeps_where_the_rows_of_reconfirmed_images_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where only some batches, and some parts, have any."""
    monkeypatch.setattr(plan, "IMAGES_PER_PART", 6)
    monkeypatch.setattr(batches, "BATCH_ROWS", 4)
    plain = list(to_batches(entries(20)))
    plain[1] = (
        plain[1]
        .append_column("earlier_run", pa.array([None, "run1", None, "run2"], pa.string()))
        .append_column("earlier_shard", pa.array([None, 8, None, 9], pa.int32()))
    )
    store = open_store(str(tmp_path))
    manifest = write_plan(store, "run", plain, 3)
    assert manifest.reconfirmed == 2
    shards = list(read_shards(store, "run", manifest))
    assert [entry for shard in shards for entry in shard.entries] == entries(20)
    found = {shard.entries[each.index].etag: (each.run_id, each.shard) for shard in shards for each in shard.earlier}
    assert found == {"etag5": ("run1", 8), "etag7": ("run2", 9)}
    parts = [read_table(store.get(f"runs/run/plan/part-{number:05d}.parquet"), "part") for number in range(4)]
    assert ["earlier_run" in part.column_names for part in parts] == [True, True, False, False], "as those of 0.1"


@pytest.mark.parametrize(("size", "parts"), [(1, 3), (3, 3), (10, 3), (11, 3), (25, 1)])
def test_parts_are_bounded_by_images_and_hold_whole_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, parts: int
) -> None:
    monkeypatch.setattr(plan, "IMAGES_PER_PART", 10)
    store = open_store(str(tmp_path))
    assert write_plan(store, "run", to_batches(entries(25)), size).parts == parts
    first = read_table(store.get("runs/run/plan/part-00000.parquet"), "part")
    assert len(first) % size == 0


def test_a_plan_without_its_manifest_is_no_plan(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    write_plan(store, "run", to_batches(entries(3)), 2)
    store.delete("runs/run/plan/plan.json")
    assert read_manifest(store, "run") is None


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.put("runs/run/plan/plan.json", b'{"images": "many"}')
    with pytest.raises(StorageError, match=r"runs/run/plan/plan\.json is damaged"):
        read_manifest(store, "run")


@given(st.integers(1, 10**8), st.integers(1, 100), st.integers(16, 4096))
def test_shards_are_neither_tiny_nor_larger_than_allowed(images: int, actors: int, largest: int) -> None:
    assert 16 <= choose_shard_size(images, actors, largest) <= largest


@given(st.integers(1, 10**8), st.integers(1, 100))
def test_batches_of_one_shape_come_out_even(images: int, actors: int) -> None:
    assert choose_shard_size(images, actors, 512) % 8 == 0


def test_small_jobs_still_give_every_actor_work() -> None:
    assert choose_shard_size(468, 4, 256) == 16
    assert choose_shard_size(4000, 4, 256) == 128
    assert choose_shard_size(10**7, 4, 256) == 256


def test_two_runs_of_one_id_do_not_write_over_each_others_plan_or_record(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    manifest = write_plan(store, "run", to_batches(entries(3)), 2)
    assert write_plan(store, "run", to_batches(entries(3)), 2) == manifest, "a write that storage had tried before"
    with pytest.raises(PipelineError, match="another run that has taken this id"):
        write_plan(store, "run", to_batches(entries(4)), 2)
    assert [len(shard.entries) for shard in read_shards(store, "run", manifest)] == [2, 1]
    recipe = write_run(open_store(str(tmp_path / "other")), FIRST, {"a.jpg": striped(1)})
    record = read_record(open_store(str(tmp_path / "other")), FIRST)
    assert record.recipe == recipe
    create_record(store, record)
    create_record(store, record)
    with pytest.raises(PipelineError, match="another run took the id"):
        create_record(store, record.model_copy(update={"images": 2}))
    assert read_record(store, FIRST) == record


def test_a_plan_that_lost_a_file_is_told_before_any_work(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    manifest = write_plan(store, "run", to_batches(entries(3)), 2)
    require_plan(store, "run", manifest)
    store.delete("runs/run/plan/part-00000.parquet")
    with pytest.raises(PipelineError, match=r"part-00000\.parquet is gone; delete runs/run and run again"):
        require_plan(store, "run", manifest)
