"""The outlines of a class's connected parts, exact, with their holes.

Outlines run along the borders of pixels: the pixel in column 3 and row 5 is the square from (3, 5) to (4, 6). Only
corners are in them. Parts are connected by sides, not by corners; so a ring meets no point twice, and rings of one part
meet in corners at most, as OGC's simple features ask.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fcn_core.labels import VOID, Mask

Bits = npt.NDArray[np.bool_]
Ring = npt.NDArray[np.int64]
"""int64 [N, 2] (x, y), not closed: the last point is not the first one again."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A connected part. `area` in pixels, without the holes. The signed area (`signed_area`) of `outer` is positive,
    that of `holes` negative."""

    outer: Ring
    holes: tuple[Ring, ...]
    area: int


def signed_area(ring: npt.NDArray[np.generic]) -> float:
    """Positive where x turns to y, as on a page whose y runs down: clockwise to the eye."""
    x, y = ring[:, 0].astype(np.float64), ring[:, 1].astype(np.float64)
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def parts_of(bits: Bits) -> list[Part]:
    """The connected parts of `bits`, bool [H, W], by the first point of their outlines, row by row.

    Time and memory grow with the number of pixels, and of corners.
    """
    rings = list(_rings(bits))
    areas = [round(signed_area(ring)) for ring in rings]
    outer_of = _outer_rings(bits, rings, areas)
    holes: dict[int, list[int]] = {number: [] for number, area in enumerate(areas) if area > 0}
    for number, area in enumerate(areas):
        if area < 0:
            holes[outer_of[number]].append(number)
    found = [
        Part(rings[outer], tuple(rings[hole] for hole in inner), areas[outer] + sum(areas[hole] for hole in inner))
        for outer, inner in holes.items()
    ]
    return sorted(found, key=lambda part: (int(part.outer[0, 1]), int(part.outer[0, 0])))


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """All pixels of one class in a mask: `bits` bool [h, w], whose first is at (`top`, `left`)."""

    class_id: int
    top: int
    left: int
    bits: Bits

    def parts(self) -> list[Part]:
        """`parts_of` the region, in the mask's coordinates."""
        origin = np.array([self.left, self.top])
        return [
            Part(part.outer + origin, tuple(hole + origin for hole in part.holes), part.area)
            for part in parts_of(self.bits)
        ]


def regions_of(mask: Mask) -> Iterator[Region]:
    """The classes of a mask, uint8 [H, W], by their numbers; pixels without a class (VOID) are no region."""
    for class_id in np.flatnonzero(np.bincount(mask.reshape(-1), minlength=256)).tolist():
        if class_id == VOID:
            continue
        bits = mask == class_id
        rows, columns = np.flatnonzero(bits.any(axis=1)), np.flatnonzero(bits.any(axis=0))
        window = bits[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        yield Region(class_id, int(rows[0]), int(columns[0]), window)


def large_parts(mask: Mask, min_area: int = 0) -> Iterator[tuple[int, Part]]:
    """The connected parts of all classes, of at least `min_area` pixels, each with its class."""
    for region in regions_of(mask):
        for part in region.parts():
            if part.area >= min_area:
                yield region.class_id, part


def _rings(bits: Bits) -> Iterator[Ring]:
    """Every ring once; walking along it, the pixels of the part are on the right as the eye sees it (y runs down)."""
    across, down, x, y, starts = _corners(bits)
    done = bytearray(len(x))
    for start in starts:
        if done[start]:
            continue
        walk: list[int] = []
        at = start
        while not done[at]:
            other = across[at]
            done[at] = done[other] = 1
            walk += (at, other)
            at = down[other]
        yield from _split(walk, x, y)


def _split(walk: list[int], x: list[int], y: list[int]) -> Iterator[Ring]:
    """A walk that comes to one point twice, where pixels touch by a corner, as rings that do not."""
    path: list[tuple[int, int]] = []
    place: dict[tuple[int, int], int] = {}
    for corner in walk:
        point = (x[corner], y[corner])
        before = place.get(point)
        if before is not None:
            yield _ring(path[before:])
            for left in path[before:]:
                del place[left]
            del path[before:]
        place[point] = len(path)
        path.append(point)
    yield _ring(path)


def _ring(points: list[tuple[int, int]]) -> Ring:
    """From its first point on, row by row."""
    ring = np.array(points, np.int64)
    first = int(np.lexsort((ring[:, 0], ring[:, 1]))[0])
    return np.roll(ring, -first, axis=0)


def _corners(bits: Bits) -> tuple[list[int], list[int], list[int], list[int], list[int]]:
    """Every corner of the outlines: its partner across (by a level edge) and down (by an upright one), its x and y; and
    the corners from which a walk along a level edge has the part on its right.

    A point where two pixels touch by a corner is two corners, each of one of the pixels.
    """
    height, width = bits.shape
    padded = np.zeros((height + 2, width + 2), np.uint8)
    padded[1:-1, 1:-1] = bits
    nw, ne, sw, se = padded[:-1, :-1], padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    kind = nw | ne << 1 | sw << 2 | se << 3
    is_corner = _IS_CORNER[kind]
    ys, xs = np.nonzero(is_corner)
    kinds = kind[ys, xs]
    twice = (kinds == _FALLING) | (kinds == _RISING)
    # The first corner of a double point ends the edge that comes from the left, the second begins the one to the right.
    counts = 1 + twice.astype(np.int64)
    y, x, kinds = np.repeat(ys, counts), np.repeat(xs, counts), np.repeat(kinds, counts)
    order = np.arange(len(x))
    second = np.zeros(len(x), np.bool_)
    second[1:] = (x[1:] == x[:-1]) & (y[1:] == y[:-1])
    # Row by row, neighbours are joined by a level edge in pairs.
    across = order ^ 1
    # So they are column by column by an upright one. Of two pixels that touch like \, the first corner belongs to the
    # upper edge; of two like /, to the lower.
    later = second ^ (kinds == _RISING)
    by_column = np.lexsort((later, y, x))
    down = np.empty(len(x), np.int64)
    down[by_column] = by_column[order ^ 1]
    left = order[order % 2 == 0]
    below = (kinds[left] & 8) > 0  # the pixel under the beginning of the edge
    starts = np.where(below, left, left + 1)
    return across.tolist(), down.tolist(), x.tolist(), y.tolist(), starts.tolist()


_FALLING, _RISING = 1 | 8, 2 | 4
"""Two pixels that touch by a corner alone: upper left and lower right, or upper right and lower left."""

_IS_CORNER = np.array([kind not in (0, 3, 5, 10, 12, 15) for kind in range(16)])
"""By the four pixels about a point (1 upper left, 2 upper right, 4 lower left, 8 lower right): not where all are the
same, or where the border goes straight on."""


def _outer_rings(bits: Bits, rings: list[Ring], areas: list[int]) -> dict[int, int]:
    """The number of the outer ring about each hole."""
    holes = [number for number, area in enumerate(areas) if area < 0]
    if not holes:
        return {}
    edges = _UprightEdges(rings, bits.shape[0])
    found: dict[int, int] = {}
    for number in holes:
        at = number
        while areas[at] < 0:  # each step leads further left
            at = found[at] if at in found else edges.before(bits, rings[at])
        found[number] = at
    return found


class _UprightEdges:
    """All upright edges of rings, to be found by a place on them."""

    def __init__(self, rings: list[Ring], height: int) -> None:
        self._stride = height + 1
        places, owners = [], []
        for number, ring in enumerate(rings):
            following = np.roll(ring, -1, axis=0)
            upright = ring[:, 0] == following[:, 0]
            places.append(ring[upright, 0] * self._stride + np.minimum(ring[upright, 1], following[upright, 1]))
            owners.append(np.full(len(places[-1]), number))
        flat = np.concatenate(places)
        order = np.argsort(flat)
        self._places, self._owners = flat[order], np.concatenate(owners)[order]

    def before(self, bits: Bits, hole: Ring) -> int:
        """The ring that the pixels left of a hole end at: another one of the same part."""
        leftmost = int(np.lexsort((hole[:, 1], hole[:, 0]))[0])
        x, y = int(hole[leftmost, 0]), int(hole[leftmost, 1])
        outside = np.flatnonzero(~bits[y, :x])
        begin = int(outside[-1]) + 1 if len(outside) else 0
        place = int(np.searchsorted(self._places, begin * self._stride + y, side="right")) - 1
        return int(self._owners[place])
