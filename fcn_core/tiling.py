"""Scores of images too large for one pass: the backbone runs on tiles, the head on the whole.

The one thing to know: this is exact, not a blend of overlapping guesses. A tile is read with a margin as wide
as the backbone's receptive field, so the cells kept of it equal those of a whole pass; they are put together
at strides 8, 16 and 32, and what looks further than a tile (fc6 and up) sees the assembled maps.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fcn_core.errors import DataError
from fcn_core.fcn import FCN, FusionInputs

_GRID = 32  # tiles start at multiples of the coarsest stride, so that cells of all strides fall as in a whole pass
_FUSION_STRIDES = (32, 16, 8)  # of the fields of FusionInputs


@dataclass(frozen=True)
class Span:
    """Pixels [start, stop) of one axis that a tile is kept for, and [outer_start, outer_stop) that it is read with."""

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
    for rows in _splits(height, reach):
        fitting = max_pixels // _largest(rows)
        columns = next((spans for spans in _splits(width, reach) if _largest(spans) <= fitting), None)
        if columns is None:
            continue
        cost = sum(span.outer_size for span in rows) * sum(span.outer_size for span in columns)
        if best is not None and cost >= best[0]:
            # More rows only read more, once a single column suffices.
            if len(columns) == 1:
                break
            continue
        best = (cost, rows, columns)
    if best is None:
        smallest = _GRID + 2 * _margin(reach)
        raise DataError(
            f"no tile of {max_pixels} pixels is large enough for this network; tile_pixels must be at least {smallest**2}"
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
                target = torch.empty(
                    shape, dtype=source.dtype, device=source.device, memory_format=torch.channels_last
                )
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


def _splits(size: int, reach: int) -> list[list[Span]]:
    """An axis cut into 1, 2, 3, ... even spans, until they are one grid step each."""
    cells = -(-size // _GRID)
    margin = _margin(reach)
    splits = []
    for parts in range(1, cells + 1):
        cuts = [min(_GRID * (cells * part // parts), size) for part in range(parts + 1)]
        splits.append(
            [
                Span(start, stop, max(start - margin, 0), min(stop + margin, size))
                for start, stop in zip(cuts, cuts[1:], strict=False)
            ]
        )
    return splits


def _largest(spans: list[Span]) -> int:
    return max(span.outer_size for span in spans)


def _cells(span: Span, stride: int) -> tuple[slice, slice]:
    """Where the cells to keep go in the whole map, and where they are in the tile's."""
    start, stop = span.start // stride, -(-span.stop // stride)
    offset = span.outer_start // stride
    return slice(start, stop), slice(start - offset, stop - offset)
