"""From class scores on a coarse grid to a mask: the last upsampling and its argmax, a few rows of pixels at a time.

The one thing to know: the result is the argmax of the network's logits, but [C, H, W] never exists as a whole. A row
of pixels depends on two rows of cells only (see `fcn_core.models.upsampling`), so strips are computed one by one and
dropped. On a CPU most logits are not even computed (`argmax_cpu`), on a CUDA device none is written (`argmax_triton`).
"""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from fcn_core.inference.argmax_cpu import label_patches
from fcn_core.inference.void import void_where_unsure
from fcn_core.models.upsampling import Axis, Upsampling

# Upsampled values held at once, 4 MiB of float32: larger strips gain nothing, much smaller ones are all call
# overhead.
_STRIP_VALUES = 1 << 20
_BYTES = 256  # values that a mask can hold
_CELL_ROWS = 16  # and of wide images so many rows, which share their rows of cells


def label_pixels(scores: Tensor, upsampling: Upsampling, void_below: float = 0.0) -> tuple[Tensor, Tensor]:
    """Masks, uint8 [N, H, W], and pixels per class, int64 [N, C], from scores [N, C, h, w] of any float type.

    Of classes that tie the lowest index wins. Pixels whose largest softmax probability is below `void_below` are void
    (255) and count for no class. An image's mask does not depend on which others are in the batch.
    """
    count, classes = scores.shape[:2]
    height, width = upsampling.rows.pixels, upsampling.columns.pixels
    if scores.device.type == "cuda" and _has_triton():
        from fcn_core.inference.argmax_triton import label_scores

        masks = label_scores(scores, upsampling, void_below)
        return masks, torch.stack([_counts(mask, classes) for mask in masks])
    masks = torch.empty((count, height, width), dtype=torch.uint8, device=scores.device)
    areas = torch.zeros((count, classes), dtype=torch.int64, device=scores.device)
    for index in range(count):
        if scores.device.type == "cpu":
            masks[index] = torch.from_numpy(label_patches(scores[index], upsampling, void_below))
            areas[index] = _counts(masks[index], classes)
            continue
        for start, stop, logits in logit_strips(scores[index], upsampling):
            labels = void_where_unsure(logits.argmax(-1), logits, void_below).to(torch.uint8)
            masks[index, start:stop] = labels
            areas[index] += _counts(labels, classes)
    return masks, areas


def _counts(labels: Tensor, classes: int) -> Tensor:
    """Pixels per class, int64 [classes], of labels uint8; others are void and do not count."""
    flat = labels.flatten()
    if flat.device.type == "cpu":
        return torch.bincount(flat, minlength=classes)[:classes]
    # bincount asks a device for the largest value, and so waits for all that it has to do.
    counts = torch.zeros(_BYTES, dtype=torch.int64, device=flat.device)
    return counts.scatter_add_(0, flat.long(), torch.ones_like(flat, dtype=torch.int64))[:classes]


@cache
def _has_triton() -> bool:
    """Whether kernels can be built here: Triton calls a C compiler, which slim container images lack."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    return compiler is not None and importlib.util.find_spec("triton") is not None


def logit_strips(scores: Tensor, upsampling: Upsampling) -> Iterator[tuple[int, int, Tensor]]:
    """(start, stop, logits) from top to bottom: the logits, float32 [stop - start, W, C], of these rows of pixels.

    scores: [C, h, w] of one image, any float type.
    """
    # With a pixel's classes side by side, argmax runs along memory: on a CPU a third of the time.
    cells = scores.permute(1, 2, 0).contiguous()
    classes, width, device = cells.shape[2], upsampling.columns.pixels, cells.device
    taps = upsampling.columns.taps()
    first, second = (torch.from_numpy(index).to(device) for index in (taps.first, taps.second))
    first_weight, second_weight = (
        torch.from_numpy(weight).to(device)[:, None] for weight in (taps.first_weight, taps.second_weight)
    )
    height = upsampling.rows.pixels
    step = max(_CELL_ROWS, _STRIP_VALUES // (classes * width))
    for start in range(0, height, step):
        stop = min(start + step, height)
        top, weights = _row_weights(upsampling.rows, start, stop)
        near = cells[top : top + weights.shape[1]].float()
        wide = near[:, first].mul_(first_weight).addcmul_(near[:, second], second_weight)
        # As a product of matrices, each strip of logits is written once and nothing else of its size exists.
        logits = weights.to(device) @ wide.flatten(1)
        yield start, stop, logits.view(stop - start, width, classes)


def mean_confidence(scores: Tensor) -> Tensor:
    """float64 [N]: the mean over cells of the largest softmax probability, from scores [N, C, h, w]."""
    total = torch.zeros(scores.shape[0], dtype=torch.float64, device=scores.device)
    step = max(1, _STRIP_VALUES // (scores.shape[1] * scores.shape[3]))
    for rows in torch.split(scores, step, dim=2):
        total += rows.float().softmax(1).amax(1).double().sum((1, 2))
    return total / (scores.shape[2] * scores.shape[3])


def _row_weights(axis: Axis, start: int, stop: int) -> tuple[int, Tensor]:
    """Pixels [start, stop) as weighted sums of cells: the first cell needed, and weights float32 [pixels, cells]."""
    taps = axis.taps(start, stop)
    top = int(taps.first[0])
    weights = torch.zeros(stop - start, int(taps.second[-1]) - top + 1)
    pixel = torch.arange(stop - start)
    for index, weight in ((taps.first, taps.first_weight), (taps.second, taps.second_weight)):
        weights.index_put_((pixel, torch.from_numpy(index - top)), torch.from_numpy(weight), accumulate=True)
    return top, weights
