"""How many images each stratum gives, and how wide intervals will be: both from the model's scores alone.

What is not known before anybody has annotated is how wrong the model is. The guess: pixels are wrong as often as the
confidence says, those of an image all in one direction; and things of a class that few images have are missed or
invented three times as often. It decides only how good the sample is, never whether its intervals are right.
"""

import numpy as np

from pipeline.audit.arrays import Array, Ints
from pipeline.audit.quantiles import normal_quantile
from pipeline.audit.strata import RARE

LEAST_PER_STRATUM = 5
MISSED = 3.0
EVENLY = 0.5
"""The part of the sample that is drawn in proportion to the strata's sizes, whatever the guess says: no image stands
for more than twice as many as it would then."""


def expected_square_errors(shares: Array, confidence: Array, mean_square: Array, presence: Array) -> Array:
    """The guess of (true share - model's share) ** 2 for each image and class, float64 [images, classes].

    `mean_square` [classes] is the population's mean of a class's squared share, `presence` [classes] in what part of
    the images it is.
    """
    wrong = np.clip(1 - confidence, 0.005, 1)[:, None]
    return np.asarray((wrong * shares) ** 2 + np.minimum(MISSED * wrong, 1) * (mean_square * (1 - presence))[None, :])


def allocate(sizes: Array, square_errors: Array, shares: Array, n: int) -> Ints:
    """Units to draw from each stratum, int [strata], `n` in all or as many as there are.

    `sizes` [strata] units there are; `square_errors` [strata, classes] the mean guess in each; `shares` [classes] of
    the population. Half in proportion to the sizes, half to sizes times expected errors (Neyman), where an error counts
    in units of the standard deviation that a class of its share has at most; at least LEAST_PER_STRATUM, as far as
    there are so many.
    """
    n = int(min(n, sizes.sum()))
    scale = np.maximum(shares, RARE) * (1 - np.minimum(shares, 0.99))
    expected = np.sqrt((square_errors / scale).sum(axis=1)) * (sizes > 0)
    even = sizes / sizes.sum()
    neyman = sizes * expected
    share = EVENLY * even + (1 - EVENLY) * (neyman / neyman.sum() if neyman.sum() > 0 else even)
    least = np.minimum(sizes, min(LEAST_PER_STRATUM, max(1, n // max(1, int((sizes > 0).sum())))))
    chosen = least.astype(np.int64)
    while chosen.sum() < n:
        chosen[np.argmax(np.where(chosen < sizes, share / (chosen + 0.5), -1))] += 1
    return chosen


def expected_half_widths(sizes: Array, square_errors: Array, chosen: Ints) -> Array:
    """Half the width of the intervals to expect, float64 [classes], as shares of the pixels."""
    here = chosen > 0
    each = (sizes**2 * (1 - chosen / np.maximum(sizes, 1)))[here] / chosen[here]
    variance = (each[:, None] * square_errors[here]).sum(axis=0) / sizes.sum() ** 2
    return np.asarray(normal_quantile() * np.sqrt(variance))
