"""Pixelwise cross-entropy, as a sum rather than a mean.

The caller divides. That keeps a batch without one labelled pixel at zero instead of 0/0, and lets several
devices or several small batches be joined into exactly the loss of one large batch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def pixel_cross_entropy(
    logits: Tensor, target: Tensor, ignore_index: int = 255, weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Cross-entropy summed over the annotated pixels, and how many there are.

    logits: Tensor [N, C, H, W], any floating dtype; target: Tensor [N, H, W], uint8 or int64, values 0..C-1
    or `ignore_index`; weights: float32 [C], what a pixel of each class counts in the sum. Returns (scalar with
    gradient, float64 for float64 logits and float32 for all others; int64 scalar). Without a labelled pixel the sum
    is 0 and so is its gradient. This is the multinomial logistic loss of the FCN paper (section 4.3), which sums
    too. Raises ValueError if the shapes do not belong together.
    """
    if logits.shape[:1] + logits.shape[2:] != target.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} and target {tuple(target.shape)} are not of one batch: "
            "expected [N, C, H, W] and [N, H, W]"
        )
    # In float32 at least, whatever autocast made of the logits: a sum over 10^5 pixels has no digits to spare.
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    weights = None if weights is None else weights.to(logits.dtype)
    total = F.cross_entropy(logits, target.long(), weights, ignore_index=ignore_index, reduction="sum")
    return total, (target != ignore_index).sum()
