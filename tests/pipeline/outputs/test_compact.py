"""A compacted index says what the results say, whatever it covers, whoever else writes, and wherever it stops."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import StorageError, StorageUnavailable
from pipeline.outputs import compact as compaction
from pipeline.outputs.compact import MANY_FILES, compact, is_due
from pipeline.outputs.identity import Recipe
from pipeline.outputs.index import INDEX_SCHEMA, index_folders, newest_index, read_history, read_part
from pipeline.outputs.results import (
    TRANSIENT_ERRORS,
    ResultRow,
    encode_results,
    read_result_files,
    read_results,
    result_runs,
    shard_key,
    shard_number,
)
from pipeline.segmentation.selection import DoneIndex
from pipeline.storage.local import LocalStore
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store

WHEN = datetime(2026, 1, 1, tzinfo=UTC)
RECIPE = Recipe("model", "params")
OTHER = Recipe("model", "other")
KEYS = ("a.jpg", "a.jpg0", "b/\U0001f600.jpg", "b/\uffff.jpg", "b/é\n.jpg", "c.jpg")
ETAGS = ("1", "2")


@pytest.fixture(autouse=True)
def tiny_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few rows make several parts, and several files to merge."""
    monkeypatch.setattr(compaction, "PART_ROWS", 5)
    monkeypatch.setattr(compaction, "SORTED_AT_ONCE", 7)
    monkeypatch.setattr(compaction, "SPILL_BATCH_ROWS", 2)


def row(key: str, etag: str = "1", error: str | None = None, recipe: Recipe = RECIPE) -> ResultRow:
    status = "error" if error is not None else "ok"
    return ResultRow(key, etag, 10, WHEN, status, recipe.model_id, recipe.params_id, error=error or None)


def commit(store: Store, run_id: str, shard: int, *rows: ResultRow) -> None:
    store.create(shard_key("results", run_id, shard), encode_results(rows))


def plainly_done(
    store: Store, recipe: Recipe, *, retry_errors: bool = False, settled: frozenset[str] = frozenset()
) -> dict[tuple[str, str], str]:
    """The rule, as plain as it can be said, over all rows of all runs: an ok one decides, else one that counts."""
    found: dict[tuple[str, str], str] = {}
    for run_id in result_runs(store):
        for table in read_results(store, run_id):
            for each in table.to_pylist():
                if (each["model_id"], each["params_id"]) != (recipe.model_id, recipe.params_id):
                    continue
                retried = retry_errors and run_id not in settled
                if each["status"] == "ok":
                    found[each["key"], each["etag"]] = "done"
                elif not retried and each["error"] not in TRANSIENT_ERRORS:
                    found.setdefault((each["key"], each["etag"]), "failed")
    return found


def looked_up(done: DoneIndex, identities: list[tuple[str, str]]) -> dict[tuple[str, str], str]:
    keys, etags = (pa.array(values, pa.string()) for values in zip(*identities, strict=True))
    found = done.look_up(keys, etags)
    return {
        identity: "failed" if failed else "done"
        for identity, finished, failed in zip(identities, found.done, found.failed, strict=True)
        if finished
    }


def plainly_overruled(
    store: Store, recipe: Recipe, *, retry_errors: bool, settled: frozenset[str]
) -> dict[tuple[str, str], tuple[str, int]]:
    """Identities that are done by a row that is not the newest of their key: that row's run and shard."""
    newest: dict[str, tuple[str, int, int]] = {}
    right: dict[tuple[str, str], tuple[bool, tuple[str, int, int]]] = {}
    for run_id in result_runs(store):
        for info, table in read_result_files(store, run_id):
            number = shard_number(info.key)
            assert number is not None
            for index, each in enumerate(table.to_pylist()):
                if (each["model_id"], each["params_id"]) != (recipe.model_id, recipe.params_id):
                    continue
                ok, place, identity = each["status"] == "ok", (run_id, number, index), (each["key"], each["etag"])
                newest[each["key"]] = place
                retried = retry_errors and run_id not in settled
                if ok or (not retried and each["error"] not in TRANSIENT_ERRORS):
                    right[identity] = max(right.get(identity, (ok, place)), (ok, place))
    return {identity: place[:2] for identity, (_, place) in right.items() if place != newest[identity[0]]}


def all_rows(store: Store) -> list[tuple[object, ...]]:
    """The index, read whole."""
    index = newest_index(store)
    assert index is not None
    found = []
    for recipe in index.manifest.recipes:
        ids = (recipe.model_id, recipe.params_id)
        tables = [read_part(store, index.id, *ids, part) for part in range(len(recipe.parts))]
        assert [len(table) for table in tables] == [part.rows for part in recipe.parts]
        rows = [tuple(each.values()) for table in tables for each in table.to_pylist()]
        assert rows == sorted(rows, key=lambda each: (each[0].encode(), each[3], each[4]))
        found += [(*each, *ids) for each in rows]
    assert len(found) == index.manifest.rows
    return found


def index_files(store: Store) -> dict[str, bytes]:
    return {info.key: store.get(info.key) for info in store.list("index/")}


def some_history(store: Store, run_id: str = "run1") -> None:
    for shard in range(4):
        commit(store, run_id, shard, *(row(f"{run_id}/{shard}/{index}.jpg") for index in range(4)))


rows = st.builds(
    row,
    st.sampled_from(KEYS),
    st.sampled_from(ETAGS),
    st.sampled_from([None, None, None, "truncated", "storage", ""]),
    st.sampled_from([RECIPE, RECIPE, OTHER]),
)
steps = st.lists(
    st.tuples(st.just("commit"), st.integers(0, 2), st.integers(0, 4), st.lists(rows, max_size=6))
    | st.tuples(st.just("delete"), st.integers(0, 2), st.integers(0, 4), st.just([]))
    | st.tuples(st.just("compact"), st.just(0), st.just(0), st.just([])),
    max_size=14,
)


@settings(max_examples=60, deadline=None)
@given(steps=steps, retry_errors=st.booleans(), settled=st.frozensets(st.sampled_from(["run0", "run1", "run2"])))
def test_done_is_the_same_with_an_index_of_any_age_as_by_reading_all_history(
    steps: list[tuple[str, int, int, list[ResultRow]]],
    retry_errors: bool,
    settled: frozenset[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    store = open_store(str(tmp_path_factory.mktemp("output")))
    for step, run, shard, committed in steps:
        key = shard_key("results", f"run{run}", shard)
        if step == "compact":
            compact(store)
        elif step == "delete":
            store.delete(key)
        elif not any(info.key == key for info in store.list(key)):
            commit(store, f"run{run}", shard, *committed)
    identities = [(key, etag) for key in KEYS for etag in ETAGS]
    for recipe in (RECIPE, OTHER):
        done = DoneIndex.of(store, recipe, retry_errors=retry_errors, settled=settled)
        expected = plainly_done(store, recipe, retry_errors=retry_errors, settled=settled)
        assert looked_up(done, identities) == expected
        overruled = {}
        for etag in ETAGS:  # a listing has one version of each key
            found = done.look_up(pa.array(KEYS), pa.array([etag] * len(KEYS)))
            places = zip(found.earlier_run.to_pylist(), found.earlier_shard.to_pylist(), strict=True)
            assert [run is not None for run in found.earlier_run.to_pylist()] == found.overruled.tolist()
            overruled |= {(key, etag): place for key, place in zip(KEYS, places, strict=True) if place[0] is not None}
        assert overruled == plainly_overruled(store, recipe, retry_errors=retry_errors, settled=settled)
        backwards: dict[tuple[str, str], str] = {}
        for identity in reversed(identities):
            backwards |= looked_up(done, [identity])
        assert backwards == expected, "one at a time, in falling order"


def test_a_row_of_results_is_a_row_of_the_index(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    expected = []
    for shard in range(9):
        committed = [
            row(key, str(shard), ("truncated", None)[shard % 2], (RECIPE, OTHER)[shard % 3 == 0]) for key in KEYS
        ]
        commit(store, f"run{shard % 2}", shard, *committed)
        expected += [
            (each.key, each.etag, each.error, f"run{shard % 2}", shard, each.model_id, each.params_id)
            for each in committed
        ]
        if shard in (3, 6, 8):
            done = compact(store)
            assert done is not None
            assert done.rows == len(expected)
            assert done.shards == shard + 1
            assert sorted(map(str, all_rows(store))) == sorted(map(str, expected))
    assert done.added == 2
    assert done.id.startswith("00000003-")


def test_nothing_new_makes_no_index(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    assert compact(store) is None
    some_history(store)
    first = compact(store)
    before = index_files(store)
    again = compact(store)
    assert first is not None
    assert again is not None
    assert (again.id, again.added, again.changed) == (first.id, 0, False)
    assert index_files(store) == before


def test_what_is_covered_is_not_read_again(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    some_history(store)
    compact(store)
    commit(store, "run0", 7, row("late.jpg"))
    read = []
    done = DoneIndex.of(store, RECIPE, on_file=lambda: read.append(1))
    assert len(read) == 1, "only the file that came after the index, though its run is older"
    assert looked_up(done, [("late.jpg", "1"), ("run1/0/0.jpg", "1")]) == {
        ("late.jpg", "1"): "done",
        ("run1/0/0.jpg", "1"): "done",
    }


def test_results_that_are_deleted_or_made_again_count_as_they_are(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    some_history(store)
    compact(store)
    store.delete(shard_key("results", "run1", 1))
    store.delete(shard_key("results", "run1", 2))
    commit(store, "run1", 2, row("run1/2/0.jpg", error="truncated"))
    identities = [(f"run1/{shard}/{index}.jpg", "1") for shard in range(4) for index in range(4)]
    expected = plainly_done(store, RECIPE)
    assert looked_up(DoneIndex.of(store, RECIPE), identities) == expected
    compact(store)
    assert not read_history(store).gone
    assert looked_up(DoneIndex.of(store, RECIPE), identities) == expected


@dataclass
class DyingStore(LocalStore):
    """A folder that fails after so many files were created."""

    root: str
    lives: int
    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(self.root)

    def create(self, key: str, data: bytes) -> None:
        if self.lives == 0:
            raise StorageUnavailable("the power is gone")
        self.lives -= 1
        super().create(key, data)


def test_a_compaction_that_dies_anywhere_leaves_nothing_that_counts(tmp_path: Path) -> None:
    whole = open_store(str(tmp_path / "whole"))
    some_history(whole)
    compact(whole)
    expected = index_files(whole)
    assert len(expected) > 4
    for lives in range(len(expected)):
        store = DyingStore(str(tmp_path / f"after{lives}"), lives=10**6)
        some_history(store)
        store.lives = lives
        with pytest.raises(StorageUnavailable):
            compact(store)
        assert newest_index(store) is None
        assert len(index_folders(store, complete=False)) == (1 if lives else 0)
        assert read_history(store).late_files == 4
        store.lives = 10**6
        compact(store)
        assert index_files(store) == expected, "the same files, those that were there already included"


def test_compactions_at_the_same_time_do_no_harm(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    some_history(store)
    with ThreadPoolExecutor(4) as threads:
        made = [each.id for each in threads.map(lambda _: compact(store), range(4)) if each is not None]
    assert len(made) == 4
    assert newest_index(store) is not None
    assert all_rows(store)

    def meanwhile() -> None:
        if len(made) == 4:
            made.append("")
            commit(store, "run2", 9, row("meanwhile.jpg"))
            compact(store)

    commit(store, "run2", 0, row("first.jpg"))
    compact(store, on_file=meanwhile)
    assert looked_up(DoneIndex.of(store, RECIPE), [("meanwhile.jpg", "1"), ("first.jpg", "1")]) == {
        ("meanwhile.jpg", "1"): "done",
        ("first.jpg", "1"): "done",
    }
    assert len(index_folders(store, complete=True)) == 3, "two of them cover different shards, and have one number"
    compact(store)
    assert not read_history(store).late


def test_an_index_of_another_version_is_passed_over(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    some_history(store)
    compact(store)
    store.create("index/00000009-0123456789abcdef/manifest.json", b'{"format": "index/2", "tables": []}')
    store.create(
        "index/00000008-0123456789abcdef/manifest.json", b'{"format": "index/1", "rows": 0, "shards": 0, "recipes": []}'
    )
    index = newest_index(store)
    assert index is not None
    assert index.number == 1


def test_an_index_that_lacks_a_part_is_passed_over_and_mended(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    some_history(store)
    compact(store)
    whole = index_files(store)
    store.delete(next(key for key in whole if "part-00001" in key))
    assert newest_index(store) is None
    assert looked_up(DoneIndex.of(store, RECIPE), [("run1/3/0.jpg", "1")]) == {("run1/3/0.jpg", "1"): "done"}
    compact(store)
    assert index_files(store) == whole


def test_a_part_that_goes_or_breaks_while_it_is_needed_is_named(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    some_history(store)
    compact(store)
    part = next(key for key in index_files(store) if "part-00001" in key)
    identities = [(f"run1/{shard}/0.jpg", "1") for shard in range(4)]
    done = DoneIndex.of(store, RECIPE)
    store.put(part, b"rot")
    with pytest.raises(
        StorageError, match=r"part-00001\.parquet is not a readable Parquet file .* move it away and run"
    ):
        looked_up(done, identities)
    store.delete(part)
    with pytest.raises(StorageError, match=r"part-00001\.parquet was deleted while it was needed; run again"):
        looked_up(done, identities)


def test_a_compaction_stops_when_asked_to(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    some_history(store)

    def stop() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        compact(store, on_file=stop)
    assert index_files(store) == {}


def test_a_bucket_holds_the_same_index_as_a_folder(tmp_path: Path, bucket: str) -> None:
    stores = [open_store(str(tmp_path)), open_store(f"s3://{bucket}/labels")]
    for store in stores:
        some_history(store)
        compact(store)
        commit(store, "run2", 0, *(row(key) for key in KEYS))
        compact(store)
    assert index_files(stores[0]) == index_files(stores[1])


def test_a_long_history_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(str(tmp_path))
    some_history(store)
    assert MANY_FILES > 4
    assert not is_due(read_history(store))
    monkeypatch.setattr(compaction, "MANY_FILES", 4)
    assert is_due(read_history(store))
    monkeypatch.setattr(compaction, "MANY_FILES", 5)
    monkeypatch.setattr(compaction, "MANY_BYTES", sum(info.size for info in store.list("results/")))
    assert is_due(read_history(store))
    compact(store)
    assert not is_due(read_history(store))


def sorted_streams(streams: list[list[int]]) -> Iterator[Iterator[pa.Table]]:
    for number, stream in enumerate(streams):
        keys = [f"{key:02d}" for key in sorted(stream)]
        columns = {
            "key": keys, "etag": ["e"] * len(keys), "error": pa.array([None] * len(keys), pa.string()),
            "run_id": [f"run{number}"] * len(keys), "shard": range(len(keys)),
        }  # fmt: skip
        table = pa.table(columns, schema=INDEX_SCHEMA)
        yield iter([table.slice(start, 3) for start in range(0, len(table), 3)])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), max_size=12), max_size=5))
def test_merging_keeps_every_row_in_order(streams: list[list[int]]) -> None:
    merged = [
        tuple(each.values()) for table in compaction._merge(sorted_streams(streams)) for each in table.to_pylist()
    ]
    assert merged == sorted(
        (f"{key:02d}", "e", None, f"run{number}", place)
        for number, stream in enumerate(streams)
        for place, key in enumerate(sorted(stream))
    )
