"""Masks of images too large for a network that looks everywhere: overlapping windows, their scores blended.

The one thing to know: a window is seen as an image of its own, so its mask is not that of the whole image; where
networks of ours are tiled exactly (`tiling`), this is an approximation. Scores become pixels as soon as no other window
can change them. What is held of them is one window, and a strip along the image's shorter side, as high as the windows
overlap.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

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

    scores_of: scores [1, C, h, w], on the CPU and free to be changed, of an image as large as a window. Raises
    PredictionError where their cells do not fall on one grid.
    """
    height, width = image.shape[:2]
    if width > height:  # from left to right, so that the strip is as long as the shorter side
        found = label_windows(
            image.swapaxes(0, 1),
            window[::-1],
            size[::-1],
            lambda part: scores_of(np.ascontiguousarray(part.swapaxes(0, 1))).transpose(2, 3),
            aligned=aligned,
            with_probabilities=with_probabilities,
            void_below=void_below,
        )
        turned = None if found.probabilities is None else found.probabilities.transpose(1, 2).contiguous()
        return replace(found, mask=found.mask.T.contiguous(), probabilities=turned)
    blended = _Blended(image, window, scores_of, aligned)
    mask = torch.empty(size, dtype=torch.uint8)
    areas, confidence, finite = torch.zeros((), dtype=torch.int64), torch.zeros((), dtype=torch.float64), True
    probabilities: Tensor | None = None
    for block in blended:
        stride, cells = blended.stride, blended.cells
        whole = Upsampling.resized(cells, (cells[0] * stride, cells[1] * stride))
        upsampling = whole.cropped(height, width).stretched(*size)
        finite = finite and bool(torch.isfinite(block.scores).all())
        rows, tops = _part(upsampling.rows, block.top, block.scores.shape[1], block.has_above)
        columns, lefts = _part(upsampling.columns, block.left, block.scores.shape[2], block.has_left)
        if rows.pixels > 0 and columns.pixels > 0:
            masks, counts = label_pixels(block.scores[None], Upsampling(rows, columns), void_below)
            mask[tops, lefts] = masks[0]
            areas = areas + counts[0]
        # Each cell once, and none that lies beyond the image.
        own = -(-height // stride), -(-width // stride)
        top, left = block.top + block.has_above, block.left + block.has_left
        fresh = block.scores[:, block.has_above :, block.has_left :][:, : max(0, own[0] - top), : max(0, own[1] - left)]
        if fresh[0].numel():
            confidence += mean_confidence(fresh[None])[0] * fresh[0].numel() / math.prod(own)
            if with_probabilities:
                if probabilities is None:
                    probabilities = torch.empty(fresh.shape[0], *own)
                probabilities[:, top : top + fresh.shape[1], left : left + fresh.shape[2]] = fresh.softmax(0)
    return Windowed(mask, areas, confidence, torch.tensor(finite), probabilities)


def _part(axis: Axis, first: int, cells: int, has_before: bool) -> tuple[Axis, slice]:
    """Of an axis, the pixels that lie between cells [first, first + cells) and not before the second of them, if
    has_before: as an axis over these cells, and which pixels these are."""
    begin, stop = _reached(axis, first + has_before), _reached(axis, first + cells)
    part = Axis(cells, max(0, stop - begin), axis.step, axis.origin + axis.step * begin - first, axis.clamp)
    return part, slice(begin, stop)


def _reached(axis: Axis, cells: int) -> int:
    """How many pixels follow from the first so many cells alone."""
    if cells in (0, axis.cells):
        return axis.pixels if cells else 0
    # Pixel i lies at cell origin + step * i; it needs the cell after that, too.
    return min(axis.pixels, max(0, math.floor((cells - 1 - axis.origin) / axis.step + 1e-9) + 1))


@dataclass(frozen=True)
class _Block:
    """Blended scores [C, rows, columns], of which the first is cell (top, left). has_above, has_left: whether the first
    row and column are of blocks before, for pixels between them and this one."""

    scores: Tensor
    top: int
    left: int
    has_above: bool
    has_left: bool


class _Blended:
    """Blended scores of the whole image in blocks, each as soon as it is complete: rows of windows from top to bottom,
    and each from left to right."""

    def __init__(self, image: Image, window: Size, scores_of: Callable[[Image], Tensor], aligned: int) -> None:
        height, width = image.shape[:2]
        self._image, self._window = image, window
        self._tops, self._lefts = starts(height, window[0], aligned), starts(width, window[1], aligned)
        self._scores_of, self._aligned = scores_of, aligned
        self.stride = 0
        self.cells: Size = (0, 0)

    def __iter__(self) -> Iterator[_Block]:
        strip = above = torch.zeros(0)
        row_weights: list[Tensor] = []
        column_weights: list[Tensor] = []
        for index, top in enumerate(self._tops):
            carried, before = torch.zeros(0), torch.zeros(0)
            for number, left in enumerate(self._lefts):
                scores = self._scores_of(self._seen(top, left))[0].float()
                if not self.stride:
                    self._measure(scores)
                    row_weights = _weights(self._tops, self._window[0], self.stride)
                    column_weights = _weights(self._lefts, self._window[1], self.stride)
                    shared = scores.shape[1] - min(self._own(self._tops, at) for at in range(len(self._tops)))
                    strip = torch.zeros(scores.shape[0], shared, self.cells[1])
                    above = torch.zeros(scores.shape[0], self.cells[1])
                rows, columns = self._own(self._tops, index), self._own(self._lefts, number)
                begin = left // self.stride
                scores *= column_weights[number]
                if number > 0:
                    scores[:, :, : carried.shape[2]] += carried
                carried = torch.zeros(0)  # large, as all that follows: never two of a kind at once
                carried = scores[:, :, columns:].clone()
                # From here on only columns that no later window of this row reaches.
                scores = scores[:, :, :columns]
                scores *= row_weights[index][:, None]
                overlap = strip[:, :, begin : begin + columns]
                if index > 0:
                    known = scores.shape[1] - self._own(self._tops, index - 1)
                    scores[:, :known] += overlap[:, :known]
                overlap[:, : scores.shape[1] - rows] = scores[:, rows:]
                line = above[:, begin : begin + columns]
                edge = torch.cat([line[:, -1:], scores[:, :rows, -1]], 1)
                yield from self._blocks(scores[:, :rows], line, before, top // self.stride, begin)
                above[:, begin : begin + columns] = scores[:, rows - 1]
                before = edge
                del scores

    def _blocks(self, scores: Tensor, above: Tensor, before: Tensor, top: int, left: int) -> Iterator[_Block]:
        """Some rows at a time, with those above [C, columns] and the column before [C, 1 + rows]."""
        has_left = left > 0
        for low in range(0, scores.shape[1], _ROWS):
            part = scores[:, low : low + _ROWS]
            has_above = top + low > 0
            block = torch.empty(part.shape[0], has_above + part.shape[1], has_left + part.shape[2])
            block[:, has_above:, has_left:] = part
            if has_above:
                block[:, 0, has_left:] = scores[:, low - 1] if low else above
            if has_left:
                block[:, :, 0] = before[:, 1 + low - has_above : 1 + low + part.shape[1]]
            yield _Block(block, top + low - has_above, left - has_left, has_above, has_left)

    def _own(self, begins: list[int], index: int) -> int:
        """How many cells of a window, along an axis, no later window sees."""
        stop = begins[index + 1] if index < len(begins) - 1 else begins[index] + self._side(begins)
        return (stop - begins[index]) // self.stride

    def _side(self, begins: list[int]) -> int:
        return self._window[0 if begins is self._tops else 1]

    def _seen(self, top: int, left: int) -> Image:
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
