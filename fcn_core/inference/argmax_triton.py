"""Masks from scores on a CUDA device, by one Triton kernel: interpolation and argmax without logits in memory.

The one thing to know: a program of the kernel does a stretch of one row of pixels, class by class, and keeps only the
best value and its class, and the sum of all exponentials, which says how sure it is. Import it only where Triton is
installed.
"""

from functools import lru_cache

import torch
import triton
import triton.language as tl
from torch import Tensor

from fcn_core.labels import VOID
from fcn_core.models.upsampling import Upsampling

_BLOCK = 128  # pixels of a row that one program does


@triton.jit  # type: ignore[untyped-decorator]
def _label_row(  # type: ignore[no-untyped-def]
    scores, mask, rows, row_weights, columns, column_weights, classes, cells_high, cells_wide, height, width,
    void_below, void,
    BLOCK: tl.constexpr, MAY_BE_VOID: tl.constexpr,  # noqa: N803
):  # fmt: skip
    """scores [N, C, cells_high, cells_wide] to mask [N, height, width]; rows, columns and their weights [2, pixels].

    With MAY_BE_VOID, pixels whose largest probability is below `void_below` are `void`."""
    image = tl.program_id(2).to(tl.int64)
    y = tl.program_id(0)
    x = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = x < width
    top, bottom = tl.load(rows + y), tl.load(rows + height + y)
    top_weight, bottom_weight = tl.load(row_weights + y), tl.load(row_weights + height + y)
    left, right = tl.load(columns + x, inside, 0), tl.load(columns + width + x, inside, 0)
    left_weight = tl.load(column_weights + x, inside, 0.0)
    right_weight = tl.load(column_weights + width + x, inside, 0.0)
    best = tl.full((BLOCK,), float("-inf"), tl.float32)
    label = tl.zeros((BLOCK,), tl.int32)
    total = tl.zeros((BLOCK,), tl.float32)
    plane = scores + image * classes * cells_high * cells_wide
    for index in range(classes):
        above, below = plane + top * cells_wide, plane + bottom * cells_wide
        upper = tl.load(above + left, inside, 0.0).to(tl.float32) * left_weight
        upper += tl.load(above + right, inside, 0.0).to(tl.float32) * right_weight
        lower = tl.load(below + left, inside, 0.0).to(tl.float32) * left_weight
        lower += tl.load(below + right, inside, 0.0).to(tl.float32) * right_weight
        logit = upper * top_weight + lower * bottom_weight
        # Of classes that tie the lowest stays; NaN beats everything, as in torch.argmax, and its first stays too.
        better = (logit > best) | ((logit != logit) & (best == best))
        if MAY_BE_VOID:  # of exp(logit - best) so far
            larger = tl.maximum(best, logit)
            total = total * tl.exp(best - larger) + tl.exp(logit - larger)
        best = tl.where(better, logit, best)
        label = tl.where(better, index, label)
        plane += cells_high * cells_wide
    if MAY_BE_VOID:
        label = tl.where(1.0 / total < void_below, void, label)
    tl.store(mask + (image * height + y) * width + x, label.to(tl.uint8), inside)


@lru_cache(maxsize=256)  # sending them waits for the device
def _tables(upsampling: Upsampling, device: torch.device) -> list[Tensor]:
    """Cells and weights of each row and column of pixels, [2, pixels] each, on the device."""
    return [
        torch.stack([torch.from_numpy(part) for part in pair]).to(device)
        for taps in (upsampling.rows.taps(), upsampling.columns.taps())
        for pair in ((taps.first, taps.second), (taps.first_weight, taps.second_weight))
    ]


def label_scores(scores: Tensor, upsampling: Upsampling, void_below: float = 0.0) -> Tensor:
    """Masks, uint8 [N, H, W], from scores [N, C, h, w] of any float type, on the scores' device."""
    count, classes, cells_high, cells_wide = scores.shape
    height, width = upsampling.rows.pixels, upsampling.columns.pixels
    mask = torch.empty((count, height, width), dtype=torch.uint8, device=scores.device)
    tables = _tables(upsampling, scores.device)
    grid = (height, triton.cdiv(width, _BLOCK), count)
    _label_row[grid](
        scores.contiguous(), mask, *tables, classes, cells_high, cells_wide, height, width, void_below, VOID,
        BLOCK=_BLOCK, MAY_BE_VOID=void_below > 0,
    )  # fmt: skip
    return mask
