"""Choosing images worth a look out of a stream of results, in memory that does not grow with it.

Choices depend on the rows and the run's id alone, so that a report made again shows the same images.
"""

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

COLUMNS = ("key", "etag", "size", "width", "height", "mask_key", "confidence", "areas")


@dataclass(frozen=True)
class Candidate:
    """One segmented image that might be shown. `shares` is what its largest classes cover, by name, largest first."""

    key: str
    etag: str
    size: int
    pixels: int
    mask_key: str
    confidence: float
    shares: tuple[tuple[str, float], ...]


def candidates(table: pa.Table) -> list[Candidate]:
    """The rows of a table with COLUMNS, all of status ok."""
    return [_candidate(row) for row in table.select(COLUMNS).to_pylist()]


def _candidate(row: dict[str, Any]) -> Candidate:
    areas = sorted(row["areas"] or (), key=lambda area: (-area["pixels"], area["class_id"]))
    return Candidate(
        key=row["key"],
        etag=row["etag"],
        size=row["size"],
        pixels=row["width"] * row["height"],
        mask_key=row["mask_key"],
        confidence=row["confidence"],
        shares=tuple((area["class_name"], area["fraction"]) for area in areas),
    )


class RandomRows:
    """A uniform sample of `size` rows of all that is offered: those with the smallest of seeded random numbers."""

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._random = np.random.default_rng(seed)
        self._cutoff = 1.0
        self._kept: list[tuple[npt.NDArray[np.float64], pa.Table]] = []
        self._count = 0

    def offer(self, table: pa.Table) -> None:
        drawn = self._random.random(len(table))
        (chosen,) = np.nonzero(drawn < self._cutoff)
        if len(chosen):
            # A copy: a slice would keep the whole table in memory.
            self._kept.append((drawn[chosen], table.take(chosen)))
            self._count += len(chosen)
        if self._count > 2 * self._size:
            self._trim()

    def rows(self) -> pa.Table | None:
        """The sample in random order, or None when nothing was offered."""
        self._trim()
        return self._kept[0][1] if self._kept else None

    def _trim(self) -> None:
        if not self._kept:
            return
        drawn = np.concatenate([numbers for numbers, _ in self._kept])
        order = np.argsort(drawn, kind="stable")[: self._size]
        table = pa.concat_tables([part for _, part in self._kept]).take(order).combine_chunks()
        self._kept = [(drawn[order], table)]
        self._count = len(order)
        if self._count == self._size:
            self._cutoff = float(drawn[order[-1]])


class Extremes:
    """The `size` candidates of the highest score; of equal scores the one offered first."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._kept: list[tuple[float, int, Candidate]] = []
        self._offered = 0

    @property
    def bar(self) -> float:
        """What a score must exceed to be kept."""
        return self._kept[0][0] if len(self._kept) == self._size else float("-inf")

    def offer(self, scores: npt.NDArray[np.floating[Any]], table: pa.Table) -> None:
        """`scores`: float [rows of table], in step with it; NaN never counts."""
        (chosen,) = np.nonzero(scores > self.bar)
        if len(chosen) > self._size:
            chosen = chosen[np.argsort(-scores[chosen], kind="stable")[: self._size]]
        chosen = np.sort(chosen)
        for score, candidate in zip(scores[chosen].tolist(), candidates(table.take(chosen)), strict=True):
            self.keep(score, candidate)

    def keep(self, score: float, candidate: Candidate) -> None:
        self._offered += 1
        place = (score, -self._offered, candidate)
        if len(self._kept) < self._size:
            heapq.heappush(self._kept, place)
        elif place[:2] > self._kept[0][:2]:
            heapq.heapreplace(self._kept, place)

    def best(self) -> list[tuple[float, Candidate]]:
        """What was kept, the highest score first."""
        ordered = sorted(self._kept, key=lambda kept: kept[:2], reverse=True)
        return [(score, candidate) for score, _, candidate in ordered]
