"""A listing by many requests is the listing by one: same objects, same order, bounded memory, few requests wasted."""

import threading
from bisect import bisect_right
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import StorageError, StorageUnavailable
from pipeline.storage import parallel_listing
from pipeline.storage.parallel_listing import Page, list_in_parallel
from pipeline.storage.store import ObjectInfo

WHEN = datetime(2026, 1, 1, tzinfo=UTC)
NAMES = st.one_of(
    st.from_regex(r"(cam[0-3]/)?(0[1-3]/)?[0-9a-f]{1,4}(\.jpg)?", fullmatch=True),
    st.text(st.one_of(st.sampled_from("/.#\n 019az"), st.characters(codec="utf-8")), min_size=1, max_size=6),
)


class Bucket:
    """Sorted keys, handed out in pages as S3 does."""

    def __init__(self, keys: list[str], page: int, prefix: str = "") -> None:
        self.keys = sorted(key for key in keys if key.startswith(prefix))
        self.page = page
        self.asked: list[str | None] = []
        self._lock = threading.Lock()

    def fetch(self, after: str | None) -> Page:
        with self._lock:
            self.asked.append(after)
        start = 0 if after is None else bisect_right(self.keys, after)
        found = self.keys[start : start + self.page]
        objects = [ObjectInfo(key, "e", 1, WHEN) for key in found]
        return Page(objects, found[-1] if start + self.page < len(self.keys) else None)

    @property
    def pages(self) -> int:
        return max(1, -(-len(self.keys) // self.page))


@settings(max_examples=150, deadline=None)
@given(st.lists(NAMES, max_size=120, unique=True), st.integers(1, 7), st.sampled_from(["", "cam", "cam1/0"]))
def test_any_keys_come_once_and_in_order(keys: list[str], page: int, prefix: str) -> None:
    bucket = Bucket(keys, page, prefix)
    assert [info.key for info in list_in_parallel(bucket.fetch, prefix)] == bucket.keys


LAYOUTS: dict[str, Callable[[int], str]] = {
    "numbers": lambda n: f"img_{n:07d}.jpg",
    "numbers_without_zeros": lambda n: f"img_{n}.jpg",
    "hexadecimal": lambda n: f"{n * 2654435761 % 2**32:08x}.jpg",
    "days": lambda n: f"cam{n % 7}/2026/{n // 7 % 12 + 1:02d}/{n // 84 % 28 + 1:02d}/{n:07d}.jpg",
    "small_folders": lambda n: f"{n // 10:06d}/{n % 10}.jpg",
    "cities": lambda n: f"{('berlin', 'hamburg', 'jena', 'ulm')[n % 4]}/{n:06d}_leftImg8bit.png",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_usual_names_are_cut_well(layout: str) -> None:
    """Few requests are wasted, and many begin where no listing has been yet."""
    bucket = Bucket([LAYOUTS[layout](n) for n in range(40_000)], 100)
    listed = [info.key for info in list_in_parallel(bucket.fetch)]
    assert listed == bucket.keys
    assert len(bucket.asked) < 2 * bucket.pages
    guessed = [after for after in bucket.asked if after is not None and after not in set(bucket.keys)]
    assert len(guessed) > bucket.pages / 20


def test_a_short_listing_costs_one_request() -> None:
    bucket = Bucket(["a", "b"], 2)
    assert len(list(list_in_parallel(bucket.fetch))) == 2
    assert bucket.asked == [None]


def test_who_reads_slowly_is_not_flooded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel_listing, "PAGES_AHEAD", 20)
    bucket = Bucket([f"{n:05d}" for n in range(10_000)], 10)
    for taken, _ in enumerate(list_in_parallel(bucket.fetch), 1):
        ahead = len(bucket.asked) - taken // 10
        # The foremost range may always fetch one more, and guesses that met nothing hold nothing.
        assert ahead < 20 + 16 + len(bucket.asked) // 2
        if taken == 3000:
            break


def test_what_a_request_raises_ends_the_listing() -> None:
    bucket = Bucket([f"{n:05d}" for n in range(1000)], 10)

    def fetch(after: str | None) -> Page:
        if len(bucket.asked) == 30:
            raise StorageUnavailable("gone")
        return bucket.fetch(after)

    with pytest.raises(StorageUnavailable, match="gone"):
        list(list_in_parallel(fetch))


def test_a_service_without_order_is_refused() -> None:
    objects = [ObjectInfo(key, "e", 1, WHEN) for key in ("b", "a")]
    with pytest.raises(StorageError, match="in order"):
        list(list_in_parallel(lambda after: Page(objects, None)))
    with pytest.raises(StorageError, match="in order"):  # one that knows no place to start after
        list(list_in_parallel(lambda after: Page(objects[1:], "a")))
