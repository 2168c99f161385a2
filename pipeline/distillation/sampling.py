"""A sample of a source that has every folder in it, in proportion to its images: one pass over the listing.

The one thing to know: an image's chance is a digest of its key, so the same listing gives the same sample anywhere.
"""

import hashlib
import heapq
import posixpath
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.storage.store import ObjectInfo

_SPARES = 4
"""Times more images are kept than are wanted, since a folder's part of them is left to chance."""


@dataclass(frozen=True)
class Sample:
    """`images` sorted by key, of so many that there are, in so many folders."""

    images: tuple[ObjectInfo, ...]
    listed: int
    folders: int


def stratified_sample(images: Iterable[ObjectInfo], size: int) -> Sample:
    """`size` of the images, or all where there are no more.

    Folders get parts in proportion to their images (Webster's method), and each at least one where there are no more
    folders than images wanted. Memory: four times the sample, and an image for each folder.
    """
    counts: Counter[str] = Counter()
    first: dict[str, tuple[int, ObjectInfo]] = {}
    kept: list[tuple[int, str, ObjectInfo]] = []
    for info in images:
        folder, rank = posixpath.dirname(info.key), _rank(info.key)
        counts[folder] += 1
        if folder not in first or rank < first[folder][0]:
            first[folder] = rank, info
        # The largest rank on top: it is the first to go. Keys are unique, so objects are never compared.
        item = (-rank, info.key, info)
        if len(kept) < _SPARES * size:
            heapq.heappush(kept, item)
        elif item > kept[0]:
            heapq.heapreplace(kept, item)
    there: defaultdict[str, dict[str, tuple[int, ObjectInfo]]] = defaultdict(dict)
    for folder, (rank, info) in first.items():
        there[folder][info.key] = rank, info
    for negative, key, info in kept:
        there[posixpath.dirname(key)][key] = -negative, info
    chosen: list[ObjectInfo] = []
    for folder, part in _parts(counts, {folder: len(found) for folder, found in there.items()}, first, size).items():
        ranked = heapq.nsmallest(part, there[folder].values(), key=lambda item: (item[0], item[1].key))
        chosen += [info for _, info in ranked]
    return Sample(tuple(sorted(chosen, key=lambda info: info.key)), counts.total(), len(counts))


def _parts(
    counts: Counter[str], available: dict[str, int], first: dict[str, tuple[int, ObjectInfo]], size: int
) -> dict[str, int]:
    """How many images each folder gives, `size` in all or as many as are available."""
    least = 1 if len(counts) <= size else 0
    parts = dict.fromkeys(counts, least)

    def turn(folder: str) -> tuple[float, int, str]:
        # Of folders with equal claims the one whose first image has the smallest rank.
        return -counts[folder] / (parts[folder] + 0.5), first[folder][0], folder

    queue = [turn(folder) for folder in counts if parts[folder] < available[folder]]
    heapq.heapify(queue)
    left = size - sum(parts.values())
    while left > 0 and queue:
        folder = heapq.heappop(queue)[2]
        parts[folder] += 1
        left -= 1
        if parts[folder] < available[folder]:
            heapq.heappush(queue, turn(folder))
    return {folder: part for folder, part in parts.items() if part}


def _rank(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=8).digest())
