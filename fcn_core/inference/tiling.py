"""Scores of images too large for one pass: a network's shallow half runs on tiles, its deep half on the whole.

The one thing to know: this is exact, not a blend of overlapping guesses. A tile is read with a margin as wide as the
shallow half looks (`Network.reach`), so the cells kept of it equal those of a whole pass; they are put together, and
what looks further than a tile sees the assembled maps.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from fcn_core.errors import DataError
from fcn_core.models.network import GRID, Network


@dataclass(frozen=True)
class Span:
    """Of one axis, the pixels [start, stop) a tile is kept for and [outer_start, outer_stop) it reads."""

    start: int
    stop: int
    outer_start: int
    outer_stop: int

    @property
    def outer_size(self) -> int:
        return self.outer_stop - self.outer_start


@dataclass(frozen=True)
class Tile:
    """A rectangle of the image, as a span of rows and one of columns."""

    rows: Span
    columns: Span


def plan_tiles(height: int, width: int, reach: int, max_pixels: int) -> list[Tile]:
    """Tiles that cover an image of height x width once, each read with a margin of at least `reach` pixels.

    Of all grids whose largest tile has at most `max_pixels`, margin included, the one that reads fewest
    pixels in all. Raises DataError if not even the smallest tile fits.
    """
    best: tuple[int, list[Span], list[Span]] | None = None
    for row_count in range(1, _steps(height) + 1):
        rows = _split(height, row_count, reach)
        rows_read = sum(span.outer_size for span in rows)
        if best is not None and rows_read * width >= best[0]:
            break  # more rows read only more
        columns = _fewest(width, max_pixels // _largest(rows), reach)
        if columns is None:
            continue
        cost = rows_read * sum(span.outer_size for span in columns)
        if best is None or cost < best[0]:
            best = (cost, rows, columns)
    if best is None:
        raise DataError(
            f"no tile of {max_pixels} pixels is large enough for this network;"
            f" tile_pixels must be at least {(GRID + 2 * _margin(reach)) ** 2}"
        )
    return [Tile(row, column) for row in best[1] for column in best[2]]


def tiled_scores(
    network: Network,
    image: npt.NDArray[np.uint8],
    prepare: Callable[[npt.NDArray[np.uint8]], Tensor],
    max_pixels: int,
) -> Tensor:
    """The scores [1, C, h, w] of one image, uint8 [H, W, 3], equal to `network.scores` of it up to rounding.

    prepare makes network input [1, 3, h, w] of a part of the image; no part has more than max_pixels, and together
    they are all that is ever converted. Call it in inference mode. Raises DataError if no tile can be that small.
    """
    height, width = (size + 2 * network.border for size in image.shape[:2])
    assembled: list[Tensor] = []
    for tile in plan_tiles(height, width, network.reach(), max_pixels):
        maps = network.shallow(_read(image, tile, network.border, prepare))
        if not assembled:
            assembled = [
                torch.empty(
                    (1, source.shape[1], network.cells(height, stride), network.cells(width, stride)),
                    dtype=source.dtype,
                    device=source.device,
                    memory_format=torch.channels_last,
                )
                for source, stride in zip(maps, network.shallow_strides, strict=True)
            ]
        for target, source, stride in zip(assembled, maps, network.shallow_strides, strict=True):
            target_rows, source_rows = _cells(tile.rows, stride, target.shape[2])
            target_columns, source_columns = _cells(tile.columns, stride, target.shape[3])
            target[:, :, target_rows, target_columns] = source[:, :, source_rows, source_columns]
    return network.deep(assembled)


def _read(
    image: npt.NDArray[np.uint8], tile: Tile, border: int, prepare: Callable[[npt.NDArray[np.uint8]], Tensor]
) -> Tensor:
    """Network input [1, 3, h, w] of a tile, margins included, of an image that has a border of zeros."""
    rows, top, bottom = _inside(tile.rows, border, image.shape[0])
    columns, left, right = _inside(tile.columns, border, image.shape[1])
    x = prepare(image[rows, columns])
    return F.pad(x, (left, right, top, bottom)) if border else x


def _inside(span: Span, border: int, size: int) -> tuple[slice, int, int]:
    """Of what a span reads: where it is in the image, and how much border is before and after."""
    first, last = span.outer_start - border, span.outer_stop - border
    return slice(max(first, 0), min(last, size)), max(-first, 0), max(last - size, 0)


def _margin(reach: int) -> int:
    """The reach, rounded up to the grid."""
    return -(-reach // GRID) * GRID


def _steps(size: int) -> int:
    """The axis in grid steps, the last perhaps not full."""
    return -(-size // GRID)


def _split(size: int, parts: int, reach: int) -> list[Span]:
    """An axis cut into spans as even as the grid allows."""
    steps, margin = _steps(size), _margin(reach)
    cuts = [min(GRID * (steps * part // parts), size) for part in range(parts + 1)]
    return [Span(start, stop, max(start - margin, 0), min(stop + margin, size)) for start, stop in pairwise(cuts)]


def _fewest(size: int, limit: int, reach: int) -> list[Span] | None:
    """An axis cut into the fewest spans of at most `limit` pixels, margins included; None if none fit."""
    if limit < min(size, GRID + _margin(reach)):
        return None  # no span of an axis that is cut is smaller
    for parts in range(-(-size // limit), _steps(size) + 1):
        spans = _split(size, parts, reach)
        if _largest(spans) <= limit:
            return spans
    return None


def _largest(spans: list[Span]) -> int:
    return max(span.outer_size for span in spans)


def _cells(span: Span, stride: int, count: int) -> tuple[slice, slice]:
    """Where the cells to keep go in the whole map of `count` cells, and where they are in the tile's."""
    start, stop = min(span.start // stride, count), min(-(-span.stop // stride), count)
    offset = span.outer_start // stride
    return slice(start, stop), slice(start - offset, stop - offset)
