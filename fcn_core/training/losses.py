"""Pixelwise cross-entropy, as a sum rather than a mean, and the class weights that balance it.

The caller divides. That keeps a batch without one labelled pixel at zero instead of 0/0, and lets several
devices or several small batches be joined into exactly the loss of one large batch.
"""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

ClassBalance = Literal["none", "median", "log", "median_share"]

LARGEST_WEIGHT = 50.0
"""Of a class in balanced weights: one pixel of a class that hardly occurs must not be a whole step. ENet's formula ends
at about the same."""


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


def balanced_weights(
    pixels: npt.NDArray[Any], balance: ClassBalance, pixels_of_images: npt.NDArray[Any] | None = None
) -> tuple[float, ...] | None:
    """Weights that help rare classes, from the labelled pixels of each class, integers [C]; None for "none".

    median: the median frequency over a class's frequency, which is its share of the pixels of those images that hold
    it (`pixels_of_images`, integers [C]; default: every image holds every class); Eigen and Fergus 2015. log: 1 /
    ln(1.02 + share of all labelled pixels), milder (ENet, Paszke et al. 2016), scaled so that the mean labelled pixel
    weighs 1. median_share: as version 0.1 understood median, with shares of all labelled pixels and no bound. A class
    that never occurs weighs 1: there is nothing to balance. No weight but the last kind's is above LARGEST_WEIGHT.
    """
    if balance == "none":
        return None
    shares = pixels / max(1, pixels.sum())
    present = shares > 0
    weights = np.ones(len(shares))
    if balance == "median_share":
        weights[present] = np.median(shares[present]) / shares[present]
        return tuple(weights.tolist())
    if balance == "median":
        frequencies = shares if pixels_of_images is None else pixels / np.maximum(1, pixels_of_images)
        weights[present] = np.median(frequencies[present]) / frequencies[present]
    else:
        weights[present] = 1 / np.log(1.02 + shares[present])
        weights[present] /= (weights * shares).sum()
    return tuple(np.minimum(weights, LARGEST_WEIGHT).tolist())
