"""What is taken, what is left out, what is done: every listed object is counted as exactly one of them."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.outputs.identity import Recipe
from pipeline.outputs.results import TRANSIENT_ERRORS, ResultRow, commit_shard
from pipeline.segmentation.selection import DoneIndex, SelectionCounts, key_filter, select
from pipeline.storage.store import ObjectInfo, open_store

WHEN = datetime(2026, 1, 1, tzinfo=UTC)
RECIPE = Recipe("model", "params")


def info(key: str, etag: str = "e") -> ObjectInfo:
    return ObjectInfo(key, etag, 10, WHEN)


def row(key: str, etag: str = "e", *, error: str | None = None, recipe: Recipe = RECIPE) -> ResultRow:
    status = "error" if error else "ok"
    return ResultRow(key, etag, 10, WHEN, status, recipe.model_id, recipe.params_id, error=error)


@pytest.mark.parametrize(
    ("include", "exclude", "taken"),
    [
        ((), (), {"a.jpg", "b/c.PNG", "b/d.tiff"}),
        ((), ("b/*",), {"a.jpg"}),
        (("*.json",), (), {"b/x.json"}),
        (("**/*.jpg",), (), {"a.jpg"}),
        (("*",), ("*.txt", "*.json"), {"a.jpg", "b/c.PNG", "b/d.tiff"}),
        (("b/?.*",), ("*.PNG",), {"b/d.tiff", "b/x.json"}),
    ],
)
def test_globs_choose_keys(include: tuple[str, ...], exclude: tuple[str, ...], taken: set[str]) -> None:
    keys = ["a.jpg", "b/c.PNG", "b/d.tiff", "b/x.json", "notes.txt"]
    assert set(filter(key_filter(include, exclude), keys)) == taken


def test_every_listed_object_is_counted_once() -> None:
    done = DoneIndex()
    done.add("a.jpg", "e")
    counts = SelectionCounts()
    chosen = list(
        select([info("a.jpg"), info("b.jpg"), info("c.txt")], include=(), exclude=(), done=done, counts=counts)
    )
    assert [entry.key for entry in chosen] == ["b.jpg"]
    assert counts == SelectionCounts(listed=3, left_out=1, done=1, selected=1, selected_bytes=10)


def test_done_is_what_was_committed_ok_or_is_wrong_with_the_image_itself(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    rows = [row("good.jpg"), row("bad.jpg", error="truncated")]
    rows += [row(f"{reason}.jpg", error=reason) for reason in sorted(TRANSIENT_ERRORS)]
    commit_shard(store, "run1", 0, rows)
    done = DoneIndex.of(store, RECIPE)
    assert ("good.jpg", "e") in done
    assert ("bad.jpg", "e") in done
    assert all((f"{reason}.jpg", "e") not in done for reason in TRANSIENT_ERRORS)
    again = DoneIndex.of(store, RECIPE, retry_errors=True)
    assert ("good.jpg", "e") in again
    assert ("bad.jpg", "e") not in again


def test_another_version_or_another_recipe_is_not_done(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    commit_shard(store, "run1", 0, [row("a.jpg", "old"), row("b.jpg", recipe=Recipe("model", "other"))])
    done = DoneIndex.of(store, RECIPE)
    assert ("a.jpg", "new") not in done
    assert ("b.jpg", "e") not in done
    assert ("a.jpg", "old") in done
