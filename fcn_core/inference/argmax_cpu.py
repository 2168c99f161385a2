"""A mask from scores on a coarse grid, computing logits only where it takes them: on a CPU.

The one thing to know: between four cells of which all say the same class, every pixel is of that class, since its
logits are the same weighted mean of theirs for each class. In a photo that settles most pixels. Only patches at
borders, where the four disagree or one nearly ties, are interpolated.

So it is with being sure: the logarithm of a softmax is a concave function of the logits, so between four cells that are
sure of a class every pixel is at least as sure as the least sure of them. Cells that are unsure settle nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fcn_core.inference.void import largest_probability, void_where_unsure
from fcn_core.models.upsampling import Axis, Upsampling

# A cell's best class counts as certain if it leads by more than this share of the largest score: a hundred times what
# the rounding of an interpolation could turn.
_LEAD = 1e-5

_SURER = 1e-4  # than the threshold of void, as a share: far more than the rounding of an interpolation could turn
_FAINTEST = 1e-3  # of the sum of a pixel's weights; where there is nothing beyond an edge, it fades to 0

# Logits held at once, 4 MiB of float32, and values of cells that are looked at together.
_VALUES = 1 << 20


@dataclass(frozen=True)
class _Spans:
    """Of one axis: runs of pixels between the same two cells, no longer than a cell is wide.

    starts, sizes: of each run, in pixels. first, second: its cells. weights: float32 [runs, longest, 2] of its pixels;
    those beyond a shorter run's end repeat its last. faint: whether some pixel has hardly any weight. fading: whether
    some pixel's weights do not add up to 1, so that it is less sure than its cells.
    """

    starts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    first: Tensor
    second: Tensor
    weights: Tensor
    faint: Tensor
    fading: Tensor


@lru_cache(maxsize=128)
def _spans(axis: Axis) -> _Spans:
    taps = axis.taps()
    limit = max(1, round(1 / axis.step))
    starts = [0]
    for pixel in range(1, axis.pixels):
        begun = starts[-1]
        same = taps.first[pixel] == taps.first[begun] and taps.second[pixel] == taps.second[begun]
        if not same or pixel - begun == limit:
            starts.append(pixel)
    begin = np.array(starts)
    sizes = np.diff(np.append(begin, axis.pixels))
    pixels = begin[:, None] + np.minimum(np.arange(sizes.max()), sizes[:, None] - 1)
    weights = np.stack([taps.first_weight[pixels], taps.second_weight[pixels]], axis=-1)
    sums = weights.sum(-1)
    faint, fading = (sums < _FAINTEST).any(-1), (abs(sums - 1) > _SURER / 10).any(-1)
    first, second, tensor, is_faint, is_fading = (
        torch.from_numpy(array) for array in (taps.first[begin], taps.second[begin], weights, faint, fading)
    )
    return _Spans(begin, sizes, first, second, tensor, is_faint, is_fading)


def label_patches(scores: Tensor, upsampling: Upsampling, void_below: float = 0.0) -> npt.NDArray[np.uint8]:
    """The mask, uint8 [H, W], of one image's scores [C, h, w], on the CPU and of any float type.

    It equals the argmax of the upsampled scores; of classes that tie the lowest index wins. Pixels whose largest
    softmax probability is below `void_below` are void.
    """
    rows, columns = _spans(upsampling.rows), _spans(upsampling.columns)
    cells = scores.permute(1, 2, 0).contiguous()
    mask = np.empty((upsampling.rows.pixels, upsampling.columns.pixels), np.uint8)
    step = max(1, _VALUES // cells[0].numel())
    for start in range(0, len(rows.starts), step):
        part = slice(start, min(start + step, len(rows.starts)))
        top = int(rows.first[part][0])
        near = cells[top : int(rows.second[part][-1]) + 1].float()
        agreed = _agreed(near, rows.first[part] - top, rows.second[part] - top, columns, void_below)
        agreed[rows.faint[part]] = -1
        if void_below:
            agreed[rows.fading[part]] = -1
        whole = np.repeat(agreed.clamp(min=0).to(torch.uint8).numpy(), columns.sizes, axis=1)
        first, last = rows.starts[part][0], rows.starts[part][-1] + rows.sizes[part][-1]
        mask[first:last] = np.repeat(whole, rows.sizes[part], axis=0)
        for chosen in _chunks((agreed < 0).nonzero(), rows, columns, cells.shape[2]):
            _interpolate(mask, near, top, (chosen[:, 0] + start, chosen[:, 1]), rows, columns, void_below)
    return mask


def _agreed(near: Tensor, first: Tensor, second: Tensor, columns: _Spans, void_below: float) -> Tensor:
    """int64 [runs of rows, runs of columns]: the class that a patch's four cells agree on, and are sure of, or -1."""
    classes = near.shape[2]
    if classes == 1:
        certain = torch.zeros(near.shape[:2], dtype=torch.int64)
    else:
        best = near.topk(2, dim=-1)
        # Scores that are not finite are never certain: comparisons with NaN are false.
        lead = best.values[..., 0] - best.values[..., 1] > _LEAD * near.abs().amax(-1)
        if void_below:
            lead &= largest_probability(near) > void_below * (1 + _SURER)
        certain = torch.where(lead, best.indices[..., 0], -1)
    above, below = certain[first], certain[second]
    corner = above[:, columns.first]
    same = (corner == above[:, columns.second]) & (corner == below[:, columns.first])
    same &= (corner == below[:, columns.second]) & ~columns.faint
    if void_below:
        same &= ~columns.fading
    return torch.where(same, corner, -1)


def _chunks(patches: Tensor, rows: _Spans, columns: _Spans, classes: int) -> Iterator[Tensor]:
    """Patches [P, 2], as many at once as memory for their logits is meant to hold."""
    step = max(1, _VALUES // (rows.weights.shape[1] * columns.weights.shape[1] * classes))
    return (chunk for chunk in torch.split(patches, step) if len(chunk))


def _interpolate(
    mask: npt.NDArray[np.uint8],
    near: Tensor,
    top: int,
    patch: tuple[Tensor, Tensor],
    rows: _Spans,
    columns: _Spans,
    void_below: float,
) -> None:
    """Write the argmax of the logits of these patches (runs of rows, runs of columns) into the mask, or void."""
    row, column = patch
    corners = [
        near[cell_rows[row] - top, cell_columns[column]]
        for cell_rows in (rows.first, rows.second)
        for cell_columns in (columns.first, columns.second)
    ]
    cells = torch.stack(corners, dim=1).view(len(row), 2, 2, -1)  # [P, above or below, left or right, C]
    wide = columns.weights[column][:, None] @ cells
    flat = rows.weights[row] @ wide.flatten(2)
    logits = flat.view(len(row), rows.weights.shape[1], columns.weights.shape[1], -1)
    labels = void_where_unsure(logits.argmax(-1), logits, void_below)
    mask[_pixels(rows, row)[:, :, None], _pixels(columns, column)[:, None]] = labels.to(torch.uint8).numpy()


def _pixels(spans: _Spans, runs: Tensor) -> npt.NDArray[np.int64]:
    """The pixels of runs, int64 [P, longest]; those beyond a shorter run's end repeat its last."""
    index = runs.numpy()
    longest = spans.weights.shape[1]
    pixels: npt.NDArray[np.int64] = spans.starts[index, None] + np.minimum(
        np.arange(longest), spans.sizes[index, None] - 1
    )
    return pixels
