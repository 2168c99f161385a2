"""The examples that a model does worst on, kept small on their way and drawn on one sheet at the end."""

import heapq
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from fcn_core.labels import LabelSet, decode_mask, encode_mask
from fcn_core.render import SheetTile, contact_sheet, shrink

TILE_WIDTH = 320
"""Pixels that a picture is wide on the sheet; twice that is kept of it."""


@dataclass(frozen=True)
class ScoredExample:
    """One example as small files, fit to be sent: `image` is a JPEG, `truth` and `mask` are palette PNGs.

    `rank` orders examples, the worst first: mean IoU and then the example's index.
    """

    rank: tuple[float, int]
    caption: str
    note: str
    image: bytes
    truth: bytes
    mask: bytes


class Gallery:
    """The `size` worst of what is offered. No more than that is kept of any image than the sheet can show."""

    def __init__(self, size: int, labels: LabelSet) -> None:
        self._size = size
        self._labels = labels
        self._kept: list[tuple[float, int, SheetTile]] = []  # a heap, the best of the worst at its top

    def offer(self, mean_iou: float, index: int, tile: SheetTile) -> None:
        """Keep the example if it is among the worst so far. `tile` has a truth."""
        place = (-mean_iou, -index)
        if len(self._kept) < self._size:
            heapq.heappush(self._kept, (*place, shrink(tile, 2 * TILE_WIDTH)))
        elif self._kept and place > self._kept[0][:2]:
            heapq.heapreplace(self._kept, (*place, shrink(tile, 2 * TILE_WIDTH)))

    def examples(self) -> tuple[ScoredExample, ...]:
        """What was kept, the worst first."""
        ordered = sorted(self._kept, key=lambda kept: kept[:2], reverse=True)
        return tuple(self._pack((-iou, -index), tile) for iou, index, tile in ordered)

    def _pack(self, rank: tuple[float, int], tile: SheetTile) -> ScoredExample:
        assert tile.truth is not None, "offered with a truth"
        sink = io.BytesIO()
        Image.fromarray(tile.image).save(sink, "JPEG", quality=90)
        truth, mask = (encode_mask(values, self._labels) for values in (tile.truth, tile.mask))
        return ScoredExample(rank, tile.caption, tile.note, sink.getvalue(), truth, mask)


def worst(examples: Iterable[ScoredExample], size: int) -> list[ScoredExample]:
    """The `size` worst of several galleries, the worst first."""
    return heapq.nsmallest(size, examples, key=lambda example: example.rank)


def draw(examples: Sequence[ScoredExample], labels: LabelSet, title: str) -> bytes:
    """A PNG: image, truth and prediction of each example, two per row, and the legend of the classes."""
    tiles = [
        SheetTile(
            example.caption,
            np.asarray(Image.open(io.BytesIO(example.image), formats=["JPEG"])),
            decode_mask(example.mask),
            example.note,
            decode_mask(example.truth),
        )
        for example in examples
    ]
    sink = io.BytesIO()
    contact_sheet(tiles, labels, columns=2, tile_width=TILE_WIDTH, title=title).save(sink, "PNG")
    return sink.getvalue()
