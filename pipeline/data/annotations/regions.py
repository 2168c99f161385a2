"""Polygons and overlapping regions as a mask.

A pixel belongs to a polygon if its centre does (even-odd rule), so areas are neither larger nor smaller on average.
Pillow's ImageDraw also takes the pixels that the outline touches: objects of 1,400 pixels come out 60 pixels larger.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fcn_core.decoding.image import MAX_PIXELS
from fcn_core.labels import Mask
from pipeline.data.annotations.class_map import ClassMap
from pipeline.data.annotations.source_files import short

Bits = npt.NDArray[np.bool_]
Points = npt.NDArray[np.float64]

MOST_POINTS = 2_000_000
MOST_CROSSINGS = 1 << 26
"""Of an outline and rows of pixels: what filling a polygon takes time for."""
FARTHEST = 1e7
"""Coordinates beyond are a mistake."""

_CROSSINGS_AT_ONCE = 1 << 20


class RegionError(ValueError):
    """A region that cannot be drawn. The message is a clause that says why."""


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """Pixels inside a mask: `bits` bool [h, w], whose first is at (`top`, `left`)."""

    top: int
    left: int
    bits: Bits


def checked_size(height: object, width: object) -> tuple[int, int]:
    """(height, width) of an image as a source states it. Raises RegionError."""
    if (
        not isinstance(height, int | float)
        or not isinstance(width, int | float)
        or isinstance(height, bool)
        or isinstance(width, bool)
        or height != int(height)
        or width != int(width)
        or height < 1
        or width < 1
    ):
        raise RegionError(f"its size is given as {short(width)} x {short(height)}")
    if height * width > MAX_PIXELS:
        raise RegionError(f"its size is given as {width:,} x {height:,} pixels, over {MAX_PIXELS:,} in all")
    return int(height), int(width)


def points(values: object, *, flat: bool = False) -> Points:
    """float64 [N, 2] (x, y) of a JSON list of pairs, or of x and y in turn. Raises RegionError."""
    if not isinstance(values, list) or not values:
        raise RegionError("a polygon has no points")
    if len(values) > (2 * MOST_POINTS if flat else MOST_POINTS):
        raise RegionError(f"a polygon has over {MOST_POINTS:,} points")
    if flat and len(values) % 2:
        raise RegionError(f"a polygon has {len(values)} coordinates, an odd number")
    try:
        found = np.array(values, np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise RegionError("a polygon has points that are not pairs of numbers") from error
    if found.shape != ((len(values),) if flat else (len(values), 2)):
        raise RegionError("a polygon has points that are not pairs of numbers")
    found = found.reshape(-1, 2)
    _check_finite(found)
    return found


def polygon(rings: Sequence[Points], height: int, width: int) -> Region:
    """The pixels of an image whose centres lie inside an odd number of `rings`: an outline, and its holes.

    Raises RegionError for fewer than three points, coordinates that are not finite, and outlines of endless length.
    """
    for ring in rings:
        _check_finite(ring)
    starts = np.concatenate(rings)
    ends = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    if len(rings[0]) < 3:
        raise RegionError(f"a polygon has only {len(rings[0])} points")
    upward = starts[:, 1] <= ends[:, 1]
    lower, upper = np.where(upward[:, None], starts, ends), np.where(upward[:, None], ends, starts)
    first = np.clip(np.ceil(lower[:, 1] - 0.5), 0, height).astype(np.int64)
    last = np.clip(np.ceil(upper[:, 1] - 0.5), 0, height).astype(np.int64)
    counts = last - first
    crossing = counts > 0
    lower, upper, first, counts = lower[crossing], upper[crossing], first[crossing], counts[crossing]
    total = int(counts.sum())
    if not total:
        return Region(0, 0, np.zeros((0, 0), np.bool_))
    if total > MOST_CROSSINGS:
        raise RegionError(f"the outline of a polygon crosses rows of pixels {total:,} times, over {MOST_CROSSINGS:,}")
    top, bottom = int(first.min()), int((first + counts).max())
    xs = np.concatenate([lower[:, 0], upper[:, 0]])
    left, right = (int(np.clip(np.floor(x), 0, width)) for x in (xs.min(), xs.max() + 1))
    flips = np.zeros((bottom - top, right - left + 1), np.uint8)
    slopes = (upper[:, 0] - lower[:, 0]) / (upper[:, 1] - lower[:, 1])
    ends_at = np.cumsum(counts)
    begin = 0
    while begin < len(counts):  # edges by the piece, so that memory does not grow with the outline
        done = int(ends_at[begin - 1]) if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends_at, done + _CROSSINGS_AT_ONCE, side="right")))
        part = slice(begin, end)
        edge = np.repeat(np.arange(begin, end), counts[part])
        rows = np.arange(len(edge)) - np.repeat(ends_at[part] - counts[part] - done, counts[part]) + first[edge]
        x = lower[edge, 0] + (rows + 0.5 - lower[edge, 1]) * slopes[edge]
        columns = np.clip(np.ceil(x - 0.5), left, right).astype(np.int64) - left
        np.bitwise_xor.at(flips, (rows - top, columns), 1)
        begin = end
    inside = np.bitwise_xor.accumulate(flips, axis=1)[:, :-1]
    return Region(top, left, inside.astype(np.bool_))


def ellipse(center: tuple[float, float], radii: tuple[float, float], degrees: float = 0.0) -> Points:
    """An ellipse as a polygon, float64 [N, 2]; `degrees` turn it clockwise."""
    angles = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    around = np.stack([radii[0] * np.cos(angles), radii[1] * np.sin(angles)], axis=1)
    outline: Points = _turned(around, degrees) + np.array(center)
    return outline


def rectangle(x: float, y: float, width: float, height: float, degrees: float = 0.0) -> Points:
    """A rectangle as a polygon, float64 [4, 2]; `degrees` turn it clockwise about (x, y)."""
    corners = np.array([[0.0, 0.0], [width, 0.0], [width, height], [0.0, height]])
    outline: Points = _turned(corners, degrees) + np.array([x, y])
    return outline


class Canvas:
    """A mask on which regions are drawn in their order: the last one is on top.

    `mask`: uint8 [H, W]. It begins as the class map's `unlabelled`.
    """

    def __init__(self, height: int, width: int, classes: ClassMap) -> None:
        self.mask: Mask = np.full((height, width), classes.unlabelled, np.uint8)
        self.overlapping = 0
        self._drawn = np.zeros((height, width), np.bool_)

    def draw(self, region: Region | Bits, value: int) -> None:
        """Give the pixels of a region a value; counts those that another value had been drawn on."""
        if not isinstance(region, Region):
            region = Region(0, 0, region)
        height, width = region.bits.shape
        window = np.s_[region.top : region.top + height, region.left : region.left + width]
        mask, drawn = self.mask[window], self._drawn[window]
        bits = region.bits[: mask.shape[0], : mask.shape[1]]
        self.overlapping += int(np.count_nonzero(bits & drawn & (mask != value)))
        mask[bits] = value
        drawn |= bits


def _check_finite(found: Points) -> None:
    if not np.isfinite(found).all() or (np.abs(found) > FARTHEST).any():
        raise RegionError("a polygon has coordinates that no image has")


def _turned(offsets: Points, degrees: float) -> Points:
    angle = np.deg2rad(degrees)
    cos, sin = np.cos(angle), np.sin(angle)
    turned: Points = offsets @ np.array([[cos, sin], [-sin, cos]])
    return turned
