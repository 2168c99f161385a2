"""Of many runs, an output knows one row per key and recipe: the newest. However many runs, folders or buckets."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.insight.shortlist import Shortlist
from pipeline.outputs.current import choose_run, choose_variant, current_rows, newest_variant, read_current
from pipeline.outputs.labels import read_labels
from pipeline.outputs.query import open_tables, run_query
from pipeline.outputs.results import RESULTS_SCHEMA
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store
from tests.labellings import CAMVID, CAR, ROAD, SKY, striped, write_run

OTHER_MODEL = "9999999999999999"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path))


def rows(store: Store, **options: object) -> list[dict[str, object]]:
    batches = list(current_rows(store, **options))  # type: ignore[arg-type]
    assert all(len(batch) for batch in batches), "no batch is empty"
    return [row for batch in batches for row in batch.to_pylist()]


def test_the_newest_row_of_each_key_and_recipe_is_current(store: Store) -> None:
    first = write_run(store, "20260101T000000Z-0000", {f"{k}.jpg": striped(SKY) for k in range(9)})
    write_run(store, "20260102T000000Z-0000", {"3.jpg": striped(CAR), "7.jpg": "truncated", "new.jpg": striped(ROAD)})
    other = write_run(store, "20260103T000000Z-0000", {"3.jpg": striped(ROAD)}, model=OTHER_MODEL)
    found = {(row["key"], row["recipe"]): row for row in rows(store, variant="all")}
    assert len(found) == len(rows(store, variant="all")) == 11
    assert found["3.jpg", first]["areas"][0]["class_name"] == "car"  # type: ignore[index]
    assert found["7.jpg", first]["status"] == "error"
    assert found["3.jpg", other]["areas"][0]["class_name"] == "road"  # type: ignore[index]
    assert found["0.jpg", first]["run_id"] == "20260101T000000Z-0000"
    expected = read_current(store, variant="all").select(["key", "run_id", "model_id"]).to_pylist()
    assert sorted(row["key"] + row["run_id"] + row["model_id"] for row in expected) == sorted(
        f"{row['key']}{row['run_id']}{row['model_id']}" for row in found.values()
    ), "the same as the table that is read at once"


def test_an_image_counts_once_after_a_second_variant(store: Store) -> None:
    """15 images, 12 of them labelled by a second variant, too: 27 rows in all, and 12 by the newest variant."""
    keys = [f"{index:02d}.jpg" for index in range(15)]
    first = write_run(store, "20260101T000000Z-0000", dict.fromkeys(keys, striped(SKY)))
    second = write_run(store, "20260102T000000Z-0000", dict.fromkeys(keys[:12], striped(CAR)), params="3" * 16)
    assert len(read_current(store, variant="all")) == len(rows(store, variant="all")) == 27
    assert read_current(store)["key"].to_pylist() == keys[:12]
    assert {row["recipe"] for row in rows(store)} == {second}
    assert read_current(store, variant=first)["key"].to_pylist() == keys
    assert classes_in_sight(store) == ["car"]
    write_run(store, "20260103T000000Z-0000", {"00.jpg": striped(ROAD)})
    assert read_current(store)["key"].to_pylist() == keys, "the variant of the newest run, whichever came first"
    assert len(read_current(store)["key"].unique()) == 15


def classes_in_sight(store: Store) -> list[object]:
    """Those in the table class_areas of `fcn query`."""
    with open_tables(store) as connection:
        names: list[object] = (
            run_query(connection, "SELECT DISTINCT class_name FROM class_areas").read_all()[0].to_pylist()
        )
        return names


def test_a_run_that_has_committed_nothing_yet_does_not_decide(store: Store) -> None:
    first = write_run(store, "20260101T000000Z-0000", {"a.jpg": striped(SKY)})
    write_run(store, "20260102T000000Z-0000", {"a.jpg": striped(CAR)}, model=OTHER_MODEL)
    for folder in ("results", "class_areas"):
        store.delete(f"{folder}/run_id=20260102T000000Z-0000/shard-00000000.parquet")
    assert newest_variant(store) == choose_variant(store).recipe == first
    assert len(rows(store)) == len(read_current(store)) == 1


def test_a_recipe_or_a_run_can_be_asked_for_alone(store: Store) -> None:
    first = write_run(store, "20260101T000000Z-0000", {"a.jpg": striped(SKY), "b.jpg": striped(SKY)})
    write_run(store, "20260102T000000Z-0000", {"a.jpg": striped(CAR)})
    write_run(store, "20260103T000000Z-0000", {"a.jpg": striped(ROAD)}, model=OTHER_MODEL)
    assert {(row["key"], row["run_id"][:8]) for row in rows(store, variant=first)} == {  # type: ignore[index]
        ("a.jpg", "20260102"),
        ("b.jpg", "20260101"),
    }
    assert {row["key"] for row in rows(store, run_id="20260101T000000Z-0000")} == {"a.jpg", "b.jpg"}, "replaced or not"
    assert rows(store, variant="00000000") == []


def test_only_the_columns_asked_for_come_and_in_that_order(store: Store) -> None:
    write_run(store, "20260101T000000Z-0000", {"a.jpg": striped(SKY)})
    (batch,) = current_rows(store, columns=["run_id", "confidence", "recipe"])
    assert batch.schema.names == ["run_id", "confidence", "recipe"]
    (batch,) = current_rows(store)
    assert batch.schema.names == [*RESULTS_SCHEMA.names, "recipe", "run_id"]
    with pytest.raises(ValueError, match="secret"):
        next(current_rows(store, columns=["secret"]))


def test_recipes_work_without_run_records(store: Store) -> None:
    recipe = write_run(store, "20260101T000000Z-0000", {"a.jpg": striped(SKY)})
    store.delete("runs/20260101T000000Z-0000/run.json")
    assert len(rows(store, variant=recipe)) == 1
    assert rows(store, variant="00000000") == []


def test_an_output_in_a_bucket_reads_the_same(store: Store, bucket: str) -> None:
    remote = open_store(f"s3://{bucket}/labels")
    for each in (store, remote):
        write_run(each, "20260101T000000Z-0000", {"a'ä\n.jpg": striped(SKY), "b.jpg": striped(CAR)})
        write_run(each, "20260102T000000Z-0000", {"b.jpg": striped(SKY)})
    assert pa.Table.from_batches(current_rows(store)).equals(pa.Table.from_batches(current_rows(remote)))


def test_a_run_is_found_by_the_beginning_of_its_id(store: Store) -> None:
    for run_id in ("20260101T000000Z-aaaa", "20260101T000000Z-bbbb", "20260201T000000Z-cccc"):
        write_run(store, run_id, {"a.jpg": striped(SKY)})
    assert choose_run(store, "202602").run_id == "20260201T000000Z-cccc"
    assert choose_run(store, "20260101T000000Z-aaaa").run_id == "20260101T000000Z-aaaa"
    with pytest.raises(InputError, match="begins the names of 2 runs"):
        choose_run(store, "20260101")
    with pytest.raises(InputError, match=r"there is no run 2025 .* the newest are: 20260201T000000Z-cccc"):
        choose_run(store, "2025")


def test_an_output_without_runs_is_named(store: Store) -> None:
    with pytest.raises(InputError, match="there are no runs under"):
        choose_variant(store)
    assert rows(store) == []


def test_names_and_colours_of_the_classes_come_from_the_output_alone(store: Store) -> None:
    recipe = write_run(store, "20260101T000000Z-0000", {"a.jpg": "truncated", "b.jpg": striped(SKY, CAR)})
    labels = read_labels(store, choose_variant(store))
    assert (labels.name, labels.names, labels.palette) == (recipe, CAMVID.names, CAMVID.palette)
    store.delete("class_totals/run_id=20260101T000000Z-0000.parquet")
    unfinished = read_labels(store, choose_variant(store))
    assert unfinished.names[SKY] == "sky"
    assert unfinished.names[ROAD] == f"class {ROAD}", "it has not appeared yet"
    assert unfinished.palette == CAMVID.palette[: CAR + 1]


def test_labels_of_a_run_without_masks_are_refused_by_name(store: Store) -> None:
    write_run(store, "20260101T000000Z-0000", {"a.jpg": "truncated"})
    with pytest.raises(InputError, match=r"20260101T000000Z-0000 .* has no masks"):
        read_labels(store, choose_variant(store))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 8), st.sampled_from("abc")), max_size=40),
    st.integers(1, 10),
    st.none() | st.integers(1, 4),
)
def test_a_shortlist_is_the_best_under_its_limits_in_any_order(
    offered: list[tuple[int, str]], size: int, per_folder: int | None
) -> None:
    shortlist: Shortlist[int] = Shortlist(size, per_folder)
    for number, (score, folder) in enumerate(offered):
        if score >= shortlist.bar:
            shortlist.offer(score, f"{number:02d}", folder, number)
    expected, taken = [], dict.fromkeys("abc", 0)
    for number in sorted(range(len(offered)), key=lambda k: (-offered[k][0], k)):
        score, folder = offered[number]
        if len(expected) < size and taken[folder] < (per_folder or size):
            taken[folder] += 1
            expected.append((score, f"{number:02d}", number))
    assert shortlist.best() == expected


def test_a_shortlist_forgets_what_it_dropped() -> None:
    shortlist: Shortlist[None] = Shortlist(5, 2)
    for number in range(20_000):
        shortlist.offer(float(number), str(number), str(number % 1000), None)
    held = len(shortlist._all) + sum(len(heap) for heap in shortlist._folders.values())
    assert held < 300
    assert [score for score, _, _ in shortlist.best()] == [19999.0, 19998.0, 19997.0, 19996.0, 19995.0]
    assert np.isfinite(shortlist.bar)
