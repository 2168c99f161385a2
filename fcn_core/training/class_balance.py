"""Class weights that balance a loss, from how often the classes occur."""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

ClassBalance = Literal["none", "median", "log", "median_share"]

LARGEST_WEIGHT = 50.0
"""Of a class in balanced weights: one pixel of a class that hardly occurs must not be a whole step. ENet's formula ends
at about the same."""


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
