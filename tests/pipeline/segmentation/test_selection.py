"""What is taken, what is left out, what is done: every listed object is counted as exactly one of them."""

import fnmatch
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fcn_core.decoding import heif
from pipeline.actors.outcome import error_reason
from pipeline.errors import AccessDenied, ObjectChanged, ObjectMissing, StorageError
from pipeline.outputs.identity import Recipe
from pipeline.outputs.results import TRANSIENT_ERRORS, ResultRow, commit_shard
from pipeline.segmentation import selection
from pipeline.segmentation.choice import IMAGE_SUFFIXES, image_suffixes, key_filter
from pipeline.segmentation.selection import (
    DoneIndex,
    SelectionCounts,
    nothing_chosen,
    select,
    suffixes_text,
)
from pipeline.storage import batches
from pipeline.storage.batches import to_batches, to_infos
from pipeline.storage.opening import open_store
from pipeline.storage.store import ObjectInfo, Store

WHEN = datetime(2026, 1, 1, tzinfo=UTC)
RECIPE = Recipe("model", "params")


def info(key: str, etag: str = "e") -> ObjectInfo:
    return ObjectInfo(key, etag, 10, WHEN)


def row(key: str, etag: str = "e", *, error: str | None = None, recipe: Recipe = RECIPE) -> ResultRow:
    status = "error" if error else "ok"
    return ResultRow(key, etag, 10, WHEN, status, recipe.model_id, recipe.params_id, error=error)


def taken(keys: Sequence[str], include: Sequence[str] = (), exclude: Sequence[str] = ()) -> set[str]:
    mask = key_filter(include, exclude)(pa.array(keys, pa.string()))
    return {key for key, chosen in zip(keys, mask, strict=True) if chosen}


def done_of(done: DoneIndex, *identities: tuple[str, str]) -> list[str]:
    """ "done", "failed" or "new", one by one."""
    keys, etags = (pa.array(values, pa.string()) for values in zip(*identities, strict=True))
    found = done.look_up(keys, etags)
    is_done, has_failed = found.done, found.failed
    assert not (has_failed & ~is_done).any()
    return [
        "failed" if failed else "done" if finished else "new"
        for finished, failed in zip(is_done, has_failed, strict=True)
    ]


def selected(
    store: Store, infos: Sequence[ObjectInfo], limit: int | None = None, include: Sequence[str] = ()
) -> tuple[list[ObjectInfo], SelectionCounts]:
    counts = SelectionCounts()
    done = DoneIndex.of(store, RECIPE)
    chosen = select(to_batches(infos), include=include, exclude=(), done=done, counts=counts, limit=limit)
    return [entry for batch in chosen for entry in to_infos(batch)], counts


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        ((), (), {"a.jpg", "b/c.PNG", "b/d.tiff"}),
        ((), ("b/*",), {"a.jpg"}),
        (("*.json",), (), {"b/x.json"}),
        (("**/*.jpg",), (), {"a.jpg"}),
        (("*",), ("*.txt", "*.json"), {"a.jpg", "b/c.PNG", "b/d.tiff"}),
        (("b/?.*",), ("*.PNG",), {"b/d.tiff", "b/x.json"}),
        (("b/[!x].*",), (), {"b/c.PNG", "b/d.tiff"}),
    ],
)
def test_globs_choose_keys(include: tuple[str, ...], exclude: tuple[str, ...], expected: set[str]) -> None:
    assert taken(["a.jpg", "b/c.PNG", "b/d.tiff", "b/x.json", "notes.txt"], include, exclude) == expected


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.text(st.sampled_from("ab./*?\\^$+(){}|-# \n\t\0\u212a\U0001f600é"), max_size=6), min_size=1, max_size=5
    ),
    st.lists(
        st.text(st.sampled_from("ab./\\^$+(){}|-# \n\t\0\u212a\U0001f600é[*?!]"), min_size=1, max_size=6), min_size=1
    ),
)
@example(["a\nb.jpg", "a.jpg\n"], ["a*.jpg"])
def test_globs_read_as_pythons_do(keys: list[str], globs: list[str]) -> None:
    variants = [variant for glob in globs for variant in (glob, glob.replace("**/", ""))]
    assert taken(keys, globs) == {key for key in keys if any(fnmatch.fnmatchcase(key, variant) for variant in variants)}


@given(st.lists(st.text(max_size=3).flatmap(lambda stem: st.sampled_from(IMAGE_SUFFIXES).map(lambda s: stem + s))))
@example(["a.jpg\n", "a\n.jpg", ".png", "jpg", "a.J2\u212a", "a.G\u0130F", "a.jpg/", "a.jpg.txt", "\u00e9.JPEG"])
def test_images_are_told_by_their_suffix_in_any_case(keys: list[str]) -> None:
    keys = [*keys, *(key.upper() for key in keys)]
    assert taken(keys) == {key for key in keys if key.lower().endswith(image_suffixes())}


def test_every_listed_object_is_counted_once(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    commit_shard(store, "run1", 0, [row("a.jpg"), row("d.jpg", error="truncated")])
    chosen, counts = selected(store, [info("a.jpg"), info("b.jpg"), info("c.txt"), info("d.jpg")])
    assert [entry.key for entry in chosen] == ["b.jpg"]
    assert counts == SelectionCounts(listed=4, left_out=1, done=2, failed_before=1, selected=1, selected_bytes=10)


def test_a_limit_counts_no_further_than_it_takes(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    commit_shard(store, "run1", 0, [row("a.jpg")])
    listing = [info(name) for name in ("a.jpg", "b.jpg", "c.txt", "d.jpg", "e.txt", "f.jpg")]
    chosen, counts = selected(store, listing, limit=2)
    assert [entry.key for entry in chosen] == ["b.jpg", "d.jpg"]
    assert counts == SelectionCounts(listed=4, left_out=1, done=1, selected=2, selected_bytes=20)


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(0, 60), page=st.integers(1, 9), at_once=st.integers(1, 20), limit=st.none() | st.integers(1, 60)
)
def test_selection_does_not_depend_on_how_the_listing_comes_in_batches(
    count: int, page: int, at_once: int, limit: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    store = open_store(str(tmp_path_factory.mktemp("output")))
    listing = [info(f"{index:03d}.{'txt' if index % 5 == 0 else 'jpg'}") for index in range(count)]
    commit_shard(store, "run1", 0, [row(entry.key) for entry in listing[::3]])
    expected, expected_counts = selected(store, listing, limit)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "BATCH_ROWS", page)
        patch.setattr(selection, "LOOKED_UP_AT_ONCE", at_once)
        assert selected(store, listing, limit) == (expected, expected_counts)


def test_done_is_what_was_committed_ok_or_is_wrong_with_the_image_itself(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    rows = [row("good.jpg"), row("bad.jpg", error="truncated")]
    rows += [row(f"{reason}.jpg", error=reason) for reason in sorted(TRANSIENT_ERRORS)]
    commit_shard(store, "run1", 0, rows)
    done = DoneIndex.of(store, RECIPE)
    assert done_of(done, ("good.jpg", "e"), ("bad.jpg", "e")) == ["done", "failed"]
    assert set(done_of(done, *((f"{reason}.jpg", "e") for reason in TRANSIENT_ERRORS))) == {"new"}
    again = DoneIndex.of(store, RECIPE, retry_errors=True)
    assert done_of(again, ("good.jpg", "e"), ("bad.jpg", "e")) == ["done", "new"]


@pytest.mark.parametrize("kind", [StorageError, ObjectChanged, ObjectMissing, AccessDenied])
def test_an_image_that_the_storage_did_not_give_is_not_done(kind: type[StorageError], tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    reason, _ = error_reason(kind("no answer"))
    commit_shard(store, "run1", 0, [row("a.jpg", error=reason)])
    assert done_of(DoneIndex.of(store, RECIPE), ("a.jpg", "e")) == ["new"]


def test_a_good_row_is_not_lost_to_an_error_of_another_run(tmp_path: Path) -> None:
    """A run that was resumed late committed under its old id; by the newer run's row the image had no mask for ever."""
    store = open_store(str(tmp_path))
    commit_shard(store, "run1", 7, [row("a.jpg")])
    commit_shard(store, "run2", 0, [row("a.jpg", error="timed_out"), row("b.jpg", error="timed_out")])
    counts = SelectionCounts()
    listing = to_batches([info("a.jpg"), info("b.jpg"), info("c.txt")])
    (batch,) = select(listing, include=(), exclude=(), done=DoneIndex.of(store, RECIPE), counts=counts)
    assert batch.select(["key", "earlier_run", "earlier_shard"]).to_pylist() == [
        {"key": "a.jpg", "earlier_run": "run1", "earlier_shard": 7}
    ]
    assert counts == SelectionCounts(listed=3, left_out=1, done=1, failed_before=1, reconfirmed=1)


def test_another_version_or_another_recipe_is_not_done(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    commit_shard(store, "run1", 0, [row("a.jpg", "old"), row("b.jpg", recipe=Recipe("model", "other"))])
    done = DoneIndex.of(store, RECIPE)
    assert done_of(done, ("a.jpg", "new"), ("b.jpg", "e"), ("a.jpg", "old")) == ["new", "new", "done"]


@pytest.fixture(params=[True, False], ids=["with the extra", "without the extra"])
def reads_heic(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(heif, "is_installed", lambda: request.param)
    return bool(request.param)


def test_heic_is_taken_by_name_where_it_can_be_read_and_otherwise_the_extra_is_named(
    tmp_path: Path, reads_heic: bool
) -> None:
    chosen, counts = selected(open_store(str(tmp_path)), [info("a.HEIC"), info("b.heif")])
    assert len(chosen) == (2 if reads_heic else 0)
    nothing = nothing_chosen(counts, "photos", [], [])
    assert (nothing is None) == reads_heic
    if nothing is not None:
        assert "none of the 2 objects" in nothing
        assert "1 .heic, 1 .heif" in nothing
        assert "pip install 'fcn-pipeline[heif]'" in nothing


def test_a_job_of_nothing_but_heic_says_at_once_what_it_needs(tmp_path: Path, reads_heic: bool) -> None:
    store = open_store(str(tmp_path))
    _, counts = selected(store, [info("a.heic"), info("b.heic")], include=["*"])
    nothing = nothing_chosen(counts, "photos", ["*"], [])
    assert (nothing is None) == reads_heic
    assert reads_heic or "all 2 images chosen under photos are HEIC" in str(nothing)
    _, counts = selected(store, [info("a.heic"), info("b.jpg")], include=["*"])
    assert nothing_chosen(counts, "photos", ["*"], []) is None


def test_what_is_left_out_is_counted_by_its_ending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heif, "is_installed", lambda: False)
    names = ("a.jpg", "b.HEIC", "c.heic", "d.mov", "README", "e.tar.gz", "f.jxl")
    chosen, counts = selected(open_store(str(tmp_path)), [info(name) for name in names])
    assert [entry.key for entry in chosen] == ["a.jpg", "f.jxl"]
    assert suffixes_text(counts) == "2 .heic, 1 without an ending, 1 .gz, 1 .mov"
    assert sum(counts.suffixes.values()) == counts.left_out == 5
