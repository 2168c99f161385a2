"""Scores of images too large for one pass: the backbone runs on tiles, the head on the whole.

The one thing to know: this is exact, not a blend of overlapping guesses. A tile is read with a margin as wide
as the backbone's receptive field, so the cells kept of it equal those of a whole pass; they are put together
at strides 8, 16 and 32, and what looks further than a tile (fc6 and up) sees the assembled maps.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fcn_core.errors import DataError
from fcn_core.fcn import FCN, FusionInputs

# Tiles start at multiples of the coarsest stride, so that cells of all strides fall as in a whole pass.
_GRID = 32
_FUSION_STRIDES = (32, 16, 8)  # of the fields of FusionInputs


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
            f" tile_pixels must be at least {(_GRID + 2 * _margin(reach)) ** 2}"
        )
    return [Tile(row, column) for row in best[1] for column in best[2]]


def tiled_scores(
    model: FCN,
    image: npt.NDArray[np.uint8],
    prepare: Callable[[npt.NDArray[np.uint8]], Tensor],
    max_pixels: int,
) -> Tensor:
    """The scores [1, C, h, w] of one image, uint8 [H, W, 3], equal to `model.scores` of it up to rounding.

    prepare makes network input [1, 3, h, w] of a part of the image. Call it in inference mode.
    """
    height, width = image.shape[:2]
    assembled: list[Tensor | None] = [None, None, None]
    for tile in plan_tiles(height, width, model.backbone.reach(), max_pixels):
        rows, columns = tile.rows, tile.columns
        part = image[rows.outer_start : rows.outer_stop, columns.outer_start : columns.outer_stop]
        inputs = model.fusion_inputs(model.features(prepare(part)))
        for field, (stride, source) in enumerate(zip(_FUSION_STRIDES, inputs, strict=True)):
            if source is None:
                continue
            target = assembled[field]
            if target is None:
                shape = (1, source.shape[1], -(-height // stride), -(-width // stride))
                target = torch.empty(shape, dtype=source.dtype, device=source.device, memory_format=torch.channels_last)
                assembled[field] = target
            target_rows, source_rows = _cells(rows, stride)
            target_columns, source_columns = _cells(columns, stride)
            target[:, :, target_rows, target_columns] = source[:, :, source_rows, source_columns]
    pool5, score_pool4, score_pool3 = assembled
    assert pool5 is not None  # there is at least one tile
    return model.fuse(FusionInputs(pool5, score_pool4, score_pool3))


def _margin(reach: int) -> int:
    """The reach, rounded up to the grid."""
    return -(-reach // _GRID) * _GRID


def _steps(size: int) -> int:
    """The axis in grid steps, the last perhaps not full."""
    return -(-size // _GRID)


def _split(size: int, parts: int, reach: int) -> list[Span]:
    """An axis cut into spans as even as the grid allows."""
    steps, margin = _steps(size), _margin(reach)
    cuts = [min(_GRID * (steps * part // parts), size) for part in range(parts + 1)]
    return [Span(start, stop, max(start - margin, 0), min(stop + margin, size)) for start, stop in pairwise(cuts)]


def _fewest(size: int, limit: int, reach: int) -> list[Span] | None:
    """An axis cut into the fewest spans of at most `limit` pixels, margins included; None if none fit."""
    if limit < min(size, _GRID + _margin(reach)):
        return None  # no span of an axis that is cut is smaller
    for parts in range(-(-size // limit), _steps(size) + 1):
        spans = _split(size, parts, reach)
        if _largest(spans) <= limit:
            return spans
    return None


def _largest(spans: list[Span]) -> int:
    return max(span.outer_size for span in spans)


def _cells(span: Span, stride: int) -> tuple[slice, slice]:
    """Where the cells to keep go in the whole map, and where they are in the tile's."""
    start, stop = span.start // stride, -(-span.stop // stride)
    offset = span.outer_start // stride
    return slice(start, stop), slice(start - offset, stop - offset)
