"""From class scores on a coarse grid to a mask: the last bilinear upsampling and its argmax, a few rows at a
time.

The one thing to know: the result is that of `fcn.final_upsample(...).argmax(1)`, but [C, H, W] never exists
as a whole. A row of pixels depends on two rows of cells only, so a strip of cells with a neighbour on each
side is enough.
"""

import torch
from torch import Tensor

from fcn_core.fcn import final_upsample

# Upsampled values held at once, 4 MiB of float32: larger strips gain nothing, much smaller ones are all call
# overhead.
_STRIP_VALUES = 1 << 20


def label_pixels(scores: Tensor, stride: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Masks, uint8 [N, H, W], and pixels per class, int64 [N, C], from scores, float32 [N, C, h, w].

    size is (H, W), with h = ceil(H / stride) and w = ceil(W / stride). Of classes that tie the lowest index
    wins.
    """
    # With a pixel's classes side by side, argmax runs along memory: on a CPU a third of the time.
    scores = scores.contiguous(memory_format=torch.channels_last)
    count, classes, cell_rows, cell_columns = scores.shape
    height, width = size
    masks = torch.empty((count, height, width), dtype=torch.uint8, device=scores.device)
    step = max(1, _STRIP_VALUES // (count * classes * cell_columns * stride**2))
    for start in range(0, cell_rows, step):
        stop = min(start + step, cell_rows)
        above, below = max(start - 1, 0), min(stop + 1, cell_rows)
        top, bottom = start * stride, min(stop * stride, height)
        first = above * stride
        logits = final_upsample(scores[:, :, above:below], stride, (bottom - first, width))
        masks[:, top:bottom] = logits[:, :, top - first :].permute(0, 2, 3, 1).argmax(-1)
    areas = torch.stack([torch.bincount(mask.flatten(), minlength=classes) for mask in masks])
    return masks, areas
