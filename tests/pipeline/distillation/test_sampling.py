"""A stratified sample: of every folder in proportion, the same for the same listing, whatever its order."""

import posixpath
from collections import Counter
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.distillation.sampling import stratified_sample
from pipeline.storage.store import ObjectInfo

WHEN = datetime(2026, 11, 1, tzinfo=UTC)

_folders = st.dictionaries(st.text("abc/", max_size=4), st.integers(1, 60), max_size=12)


def _images(folders: dict[str, int]) -> list[ObjectInfo]:
    keys = {f"{folder}/{index}.jpg" for folder, count in folders.items() for index in range(count)}
    return [ObjectInfo(key, "e", 1, WHEN) for key in sorted(keys)]


@settings(max_examples=80, deadline=None)
@given(_folders, st.integers(1, 50), st.randoms())
def test_folders_give_what_is_their_part(folders: dict[str, int], size: int, random: Any) -> None:
    images = _images(folders)
    sample = stratified_sample(images, size)
    shuffled = random.sample(images, len(images))
    assert stratified_sample(shuffled, size) == sample
    keys = [info.key for info in sample.images]
    assert keys == sorted(set(keys))
    assert {*sample.images} <= {*images}
    there = Counter(posixpath.dirname(info.key) for info in images)
    assert (sample.listed, sample.folders) == (len(images), len(there))
    assert len(keys) == min(size, len(images))
    given_ = Counter(posixpath.dirname(key) for key in keys)
    if len(there) <= size:
        assert given_.keys() == there.keys(), "each folder gives one at least"


def test_large_folders_give_more_in_proportion() -> None:
    sample = stratified_sample(_images({"a": 400, "b": 200, "c": 200, "d": 1}), 81)
    given_ = Counter(posixpath.dirname(info.key) for info in sample.images)
    assert given_ == {"a": 40, "b": 20, "c": 20, "d": 1}


def test_a_listing_that_has_grown_keeps_most_of_the_sample() -> None:
    before = {info.key for info in stratified_sample(_images({"a": 300, "b": 300}), 60).images}
    after = {info.key for info in stratified_sample(_images({"a": 330, "b": 330}), 60).images}
    assert len(before & after) >= 45
