"""Pixels that a model is not sure of get no class: they are void in the mask.

The one thing to know: a pixel's probability is the softmax of its own logits, that is of the upsampled scores, as its
class is their argmax.
"""

import torch
from torch import Tensor

from fcn_core.labels import VOID


def largest_probability(logits: Tensor) -> Tensor:
    """float32 [...]: the largest softmax probability, from logits float32 [..., C]."""
    # The largest term of the softmax is 1 before the sum divides it.
    return 1 / (logits - logits.amax(-1, keepdim=True)).exp_().sum(-1)


def void_where_unsure(labels: Tensor, logits: Tensor, void_below: float) -> Tensor:
    """Labels [...] of any integer type, VOID where the largest probability of logits float32 [..., C] is lower."""
    return torch.where(largest_probability(logits) < void_below, VOID, labels) if void_below else labels
