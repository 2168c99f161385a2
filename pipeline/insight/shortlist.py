"""The best few of a stream of any length, with no more than so many of one folder."""

import heapq
from collections import defaultdict
from typing import Generic, TypeVar

T = TypeVar("T")


class Shortlist(Generic[T]):
    """Keeps the `size` highest scores of what is offered, at most `per_folder` of each folder. Memory: `size` items.

    The outcome is the best possible under both limits and does not depend on the order of what is offered, but for
    equal scores: of these the smaller `key` wins.
    """

    def __init__(self, size: int, per_folder: int | None = None) -> None:
        if size < 1 or (per_folder is not None and per_folder < 1):
            raise ValueError(f"a shortlist of {size} with {per_folder} a folder holds nothing")
        self._size = size
        self._per_folder = per_folder
        self._items: dict[str, tuple[_Place, str, T]] = {}
        # Heaps, the worst on top. What was dropped from one may still lie in the other; it is skipped there.
        self._all: list[_Place] = []
        self._folders: defaultdict[str, list[_Place]] = defaultdict(list)
        self._counts: defaultdict[str, int] = defaultdict(int)
        self._pushed = 0

    @property
    def bar(self) -> float:
        """A score below this cannot enter any more."""
        return self._worst(self._all).score if len(self._items) == self._size else float("-inf")

    def offer(self, score: float, key: str, folder: str, item: T) -> None:
        """Keep `item` if it is among the best so far. `key` names it; a key must not be offered twice."""
        place = _Place(score, key)
        full = self._per_folder is not None and self._counts[folder] == self._per_folder
        if full or len(self._items) == self._size:
            # The worst that stands in the way: of the folder if that is full, else of all.
            rival = self._worst(self._folders[folder] if full else self._all)
            if not rival < place:
                return
            _, its_folder, _ = self._items.pop(rival.key)
            self._counts[its_folder] -= 1
        self._items[key] = (place, folder, item)
        self._counts[folder] += 1
        heapq.heappush(self._all, place)
        if self._per_folder is not None:
            heapq.heappush(self._folders[folder], place)
        self._pushed += 1
        if self._pushed > 4 * self._size + 64:
            self._tidy()

    def best(self) -> list[tuple[float, str, T]]:
        """(score, key, item) of what was kept, the best first."""
        ordered = sorted(self._items.values(), key=lambda kept: kept[0], reverse=True)
        return [(place.score, place.key, item) for place, _, item in ordered]

    def _worst(self, heap: "list[_Place]") -> "_Place":
        while heap[0].key not in self._items:
            heapq.heappop(heap)
        return heap[0]

    def _tidy(self) -> None:
        """Forget what was dropped."""
        self._pushed = len(self._items)
        self._all = [place for place, _, _ in self._items.values()]
        heapq.heapify(self._all)
        self._folders.clear()
        for place, folder, _ in self._items.values():
            if self._per_folder is not None:
                self._folders[folder].append(place)
        for heap in self._folders.values():
            heapq.heapify(heap)
        self._counts = defaultdict(int, {folder: count for folder, count in self._counts.items() if count})


class _Place:
    """Where an item stands: by score, and of equal scores the smaller key higher."""

    __slots__ = ("key", "score")

    def __init__(self, score: float, key: str) -> None:
        self.score = score
        self.key = key

    def __lt__(self, other: "_Place") -> bool:
        return self.score < other.score or (self.score == other.score and self.key > other.key)
