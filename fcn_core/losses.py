"""Pixelwise cross-entropy, as a sum and a count rather than a mean.

The caller divides. That keeps a batch without one labelled pixel at zero instead of 0/0, and lets several
devices or several small batches be joined into exactly the loss of one large batch.
"""

import torch.nn.functional as F
from torch import Tensor


def pixel_cross_entropy(logits: Tensor, target: Tensor, ignore_index: int = 255) -> tuple[Tensor, Tensor]:
    """Cross-entropy summed over the labelled pixels, and how many there are.

    logits: Tensor [N, C, H, W], any floating dtype; target: Tensor [N, H, W], uint8 or int64, values 0..C-1
    or `ignore_index`. Returns (float32 scalar with gradient, int64 scalar). Without a labelled pixel the sum
    is 0 and so is its gradient. This is the multinomial logistic loss of the FCN paper (section 4.3), which
    sums too. Raises ValueError if the shapes do not belong together.
    """
    if logits.shape[:1] + logits.shape[2:] != target.shape:
        raise ValueError(
            f"logits {tuple(logits.shape)} and target {tuple(target.shape)} are not of one batch: "
            "expected [N, C, H, W] and [N, H, W]"
        )
    # In float32 whatever autocast made of the logits: a sum over 10^5 pixels has no digits to spare.
    total = F.cross_entropy(logits.float(), target.long(), ignore_index=ignore_index, reduction="sum")
    return total, (target != ignore_index).sum()
