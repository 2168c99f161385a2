"""From class scores on a coarse grid to a mask: the last bilinear upsampling and its argmax, a few rows at a
time.

The one thing to know: the result is that of `fcn.final_upsample(...).argmax(1)`, but [C, H, W] never exists
as a whole. A row of pixels depends on two rows of cells only, so a strip of cells with one neighbour on each
side is enough.
"""

import torch
from torch import Tensor

from fcn_core.fcn import final_upsample

# Upsampled values held at once: 16 MiB of float32. Larger strips gain nothing; much smaller ones are all call
# overhead.
_STRIP_VALUES = 1 << 22


def label_pixels(scores: Tensor, stride: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Masks, uint8 [N, H, W], and pixels per class, int64 [N, C], from scores, float32 [N, C, h, w].

    size is (H, W), with h = ceil(H / stride) and w = ceil(W / stride). Of classes that tie the lowest index
    wins.
    """
    scores = scores.contiguous()
    count, classes, cell_rows, cell_columns = scores.shape
    height, width = size
    masks = torch.empty((count, height, width), dtype=torch.uint8, device=scores.device)
    values_per_row = count * classes * cell_columns * stride**2
    step = max(1, _STRIP_VALUES // values_per_row)
    for start in range(0, cell_rows, step):
        stop = min(start + step, cell_rows)
        above = max(start - 1, 0)
        below = min(stop + 1, cell_rows)
        rows = min(stop * stride, height) - start * stride
        skipped = (start - above) * stride
        logits = final_upsample(scores[:, :, above:below], stride, (skipped + rows, width))
        _argmax(logits[:, :, skipped:], out=masks[:, start * stride : start * stride + rows])
    areas = torch.stack([torch.bincount(mask.flatten(), minlength=classes) for mask in masks])
    return masks, areas


def _argmax(logits: Tensor, out: Tensor) -> None:
    """Index of the largest of logits [N, C, H, W] over C, into out, uint8 [N, H, W].

    A running maximum, class by class: on a CPU a third of the time of argmax(1), which strides through
    memory.
    """
    best = logits[:, 0].clone()
    out.zero_()
    for index in range(1, logits.shape[1]):
        out.masked_fill_(logits[:, index] > best, index)
        torch.maximum(best, logits[:, index], out=best)
