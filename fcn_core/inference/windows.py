"""Masks of images too large for a network that looks everywhere: overlapping windows, their scores blended.

The one thing to know: a window is seen as an image of its own, so its mask is not that of the whole image; where
networks of ours are tiled exactly (`tiling`), this is an approximation. Only one row of windows is held at a time, so
memory depends on the image's width and the window, and not on its height.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fcn_core.errors import PredictionError
from fcn_core.inference.argmax import label_pixels, mean_confidence
from fcn_core.inference.engines.engine import Image
from fcn_core.inference.fit import ALIGNED, Size, pad, snapped
from fcn_core.models.upsampling import Axis, Upsampling

OVERLAP = 4
"""Neighbouring windows share at least a window's side divided by this."""

_ROWS = 64
"""Rows of cells that become pixels together."""


@dataclass(frozen=True)
class Windowed:
    """mask: uint8 [H, W]; areas: int64 [C]; confidence: float64; finite: bool; probabilities: float32 [C, h, w]."""

    mask: Tensor
    areas: Tensor
    confidence: Tensor
    finite: Tensor
    probabilities: Tensor | None


def starts(length: int, window: int, aligned: int = ALIGNED) -> list[int]:
    """Where windows begin along an axis of so many pixels. The last may reach beyond the end."""
    if length <= window:
        return [0]
    last = snapped(length - window, aligned)
    step = max(aligned, (window - window // OVERLAP) // aligned * aligned)
    count = -(-last // step) + 1
    return [last * index // (count - 1) // aligned * aligned for index in range(count)]


def label_windows(
    image: Image,
    window: Size,
    size: Size,
    scores_of: Callable[[Image], Tensor],
    *,
    aligned: int = ALIGNED,
    with_probabilities: bool = False,
    void_below: float = 0.0,
) -> Windowed:
    """The mask, of `size`, of an image uint8 [H, W, 3], seen through windows of (height, width) pixels.

    scores_of: scores [1, C, h, w], on the CPU, of an image as large as a window. Raises PredictionError where their
    cells do not fall on one grid.
    """
    height, width = image.shape[:2]
    tops, lefts = starts(height, window[0], aligned), starts(width, window[1], aligned)
    bands = _Bands(image, window, tops, lefts, scores_of, aligned)
    mask = torch.empty(size, dtype=torch.uint8)
    areas, confidence, finite, probabilities = torch.zeros(0), torch.zeros((), dtype=torch.float64), True, []
    done, own_rows, upsampling = 0, 0, None
    for first, scores in bands:
        if upsampling is None:
            stride = bands.stride
            whole = Upsampling.resized(bands.cells, (bands.cells[0] * stride, bands.cells[1] * stride))
            upsampling = whole.cropped(height, width).stretched(*size)
            areas = torch.zeros(scores.shape[0], dtype=torch.int64)
        finite = finite and bool(torch.isfinite(scores).all())
        rows, stop = _within(upsampling.rows, first, scores.shape[1], done)
        if stop > done:
            masks, counts = label_pixels(scores[None], Upsampling(rows, upsampling.columns), void_below)
            mask[done:stop] = masks[0]
            areas += counts[0]
            done = stop
        fresh = scores[:, own_rows - first :, : -(-width // bands.stride)]
        fresh = fresh[:, : max(0, -(-height // bands.stride) - own_rows)]
        if fresh.shape[1]:
            confidence += mean_confidence(fresh[None])[0] * fresh.shape[1]
            if with_probabilities:
                probabilities.append(fresh.softmax(0))
            own_rows += fresh.shape[1]
    return Windowed(
        mask,
        areas,
        confidence / own_rows,
        torch.tensor(finite),
        torch.cat(probabilities, 1) if with_probabilities else None,
    )


def _within(axis: Axis, first: int, cells: int, done: int) -> tuple[Axis, int]:
    """Of rows of pixels from `done`, those that lie between cells [first, first + cells): as an axis over these cells,
    and where they stop."""
    is_last = first + cells == axis.cells
    stop = axis.pixels
    if not is_last:
        # Pixel i lies at cell origin + step * i; it needs the cell after that, too.
        stop = min(axis.pixels, math.floor((first + cells - 1 - axis.origin) / axis.step + 1e-9) + 1)
    return Axis(cells, max(0, stop - done), axis.step, axis.origin + axis.step * done - first, axis.clamp), stop


class _Bands:
    """Blended scores [C, rows, columns] from top to bottom, with the number of their first row; each but the first
    begins with the last row of the one before."""

    def __init__(
        self,
        image: Image,
        window: Size,
        tops: list[int],
        lefts: list[int],
        scores_of: Callable[[Image], Tensor],
        aligned: int,
    ) -> None:
        self._image, self._window, self._tops, self._lefts = image, window, tops, lefts
        self._scores_of, self._aligned = scores_of, aligned
        self.stride = 0
        self.cells: Size = (0, 0)

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        band = torch.zeros(0)
        row_weights: list[Tensor] = []
        column_weights: list[Tensor] = []
        for index, top in enumerate(self._tops):
            for number, left in enumerate(self._lefts):
                scores = self._scores_of(self._part(top, left))[0].float()
                if not self.stride:
                    self._measure(scores)
                    row_weights = _weights(self._tops, self._window[0], self.stride)
                    column_weights = _weights(self._lefts, self._window[1], self.stride)
                    # One row more, for the last of the band before.
                    band = torch.zeros(scores.shape[0], 1 + scores.shape[1], self.cells[1])
                start = left // self.stride
                scores *= row_weights[index][:, None]
                scores *= column_weights[number]
                band[:, 1:, start : start + scores.shape[2]] += scores
            begin = top // self.stride
            is_last = index == len(self._tops) - 1
            rows = (self._window[0] if is_last else self._tops[index + 1] - top) // self.stride
            for low in range(0, rows, _ROWS):
                high = min(low + _ROWS, rows)
                has_before = begin + low > 0
                yield begin + low - has_before, band[:, 1 + low - has_before : 1 + high]
            if not is_last:
                kept = band.shape[1] - rows
                band[:, :kept] = band[:, rows:].clone()
                band[:, kept:] = 0

    def _part(self, top: int, left: int) -> Image:
        part = self._image[top : top + self._window[0], left : left + self._window[1]]
        return pad(np.ascontiguousarray(part), self._window)

    def _measure(self, scores: Tensor) -> None:
        rows, columns = scores.shape[1:]
        stride = self._window[0] // rows
        if (rows * stride, columns * stride) != self._window or self._aligned % stride:
            raise PredictionError(
                f"scores of {columns}x{rows} cells for a window of {self._window[1]}x{self._window[0]} pixels do not"
                " fall on one grid with those of other windows; use another window, or max_side"
            )
        self.stride = stride
        self.cells = (self._tops[-1] + self._window[0]) // stride, (self._lefts[-1] + self._window[1]) // stride


def _weights(begins: list[int], window: int, stride: int) -> list[Tensor]:
    """Of each window along an axis, how much its cells count: rising and falling where it meets others, 1 in sum."""
    cells = window // stride
    ramps = []
    for index, begin in enumerate(begins):
        weights = torch.ones(cells)
        position = torch.arange(cells) + 0.5
        if index > 0:
            shared = (begins[index - 1] + window - begin) // stride
            weights = torch.minimum(weights, position / shared)
        if index < len(begins) - 1:
            shared = (begin + window - begins[index + 1]) // stride
            weights = torch.minimum(weights, (cells - position) / shared)
        ramps.append(weights)
    total = torch.zeros((begins[-1] + window) // stride)
    for begin, weights in zip(begins, ramps, strict=True):
        total[begin // stride :][:cells] += weights
    return [weights / total[begin // stride :][:cells] for begin, weights in zip(begins, ramps, strict=True)]
