"""How accurate the masks of an output are, with intervals: pixel accuracy, IoU, precision and recall.

Each is a ratio of two sums over the output, and is estimated by the ratio of their estimates; its variance is that of
the linearized ratio (Olofsson et al. 2014, equations 5 to 7; Cochran 1977, section 6.11). Near 0 and 1 a plain interval
would leave 0..1, so it is made on the logit scale. Beside it stands the percentile interval of a stratified bootstrap
with rescaled weights (Rao and Wu 1988).
"""

from dataclasses import dataclass

import numpy as np

from pipeline.audit.arrays import Array, Bools
from pipeline.audit.design import Design, spread, unseen_share
from pipeline.audit.quantiles import LEVEL, t_quantiles

REPLICATES = 1000
_TAIL = (1 - LEVEL) / 2


@dataclass(frozen=True)
class Agreed:
    """Pixels of the sample that are labelled, float64: of each unit how many there are and how many are right [units],
    and of each class those that are right, predicted and true [units, classes]."""

    labelled: Array
    right: Array
    hits: Array
    predicted: Array
    truth: Array


@dataclass(frozen=True)
class Ratios:
    """Ratios with their intervals, float64 [columns]; NaN where the sample has nothing to divide by."""

    value: Array
    low: Array
    high: Array
    boot_low: Array
    boot_high: Array


def pixel_accuracy(design: Design, sample: Agreed, seed: int) -> Ratios:
    """Share of the labelled pixels whose class is right: one column."""
    return ratios(design, sample.right[:, None], sample.labelled[:, None], seed)


def class_accuracy(design: Design, sample: Agreed, seed: int) -> dict[str, Ratios]:
    """`iou`, `precision` and `recall` of each class."""
    union = sample.predicted + sample.truth - sample.hits
    return {
        "iou": ratios(design, sample.hits, union, seed),
        "precision": ratios(design, sample.hits, sample.predicted, seed),
        "recall": ratios(design, sample.hits, sample.truth, seed),
    }


def mean_iou(design: Design, sample: Agreed, seed: int) -> Ratios:
    """The mean of the classes' IoU, of those that are predicted or true anywhere: one column."""
    union = sample.predicted + sample.truth - sample.hits
    there = union.sum(axis=0) > 0
    if not there.any():
        return _nothing(1)
    hits, union = sample.hits[:, there], union[:, there]
    value, linear = _linearized(design.weights, hits, union)
    replicates = _replicate_weights(design, seed)
    boot = _divide(replicates @ hits, replicates @ union).mean(axis=1, keepdims=True)
    return _with_intervals(
        design, value.mean(keepdims=True), linear.mean(axis=1, keepdims=True), np.zeros((len(hits), 1), bool), boot
    )


def ratios(design: Design, above: Array, below: Array, seed: int) -> Ratios:
    """Ratios of the population's sums of `above` and `below`, float64 [units, columns], with 0 <= above <= below."""
    value, linear = _linearized(design.weights, above, below)
    replicates = _replicate_weights(design, seed)
    boot = _divide(replicates @ above, replicates @ below)
    return _with_intervals(design, value, linear, below == 0, boot)


def _linearized(weights: Array, above: Array, below: Array) -> tuple[Array, Array]:
    total = weights @ below
    value = _divide(weights @ above, total)
    return value, _divide(above - np.nan_to_num(value) * below, np.broadcast_to(total, above.shape))


def _with_intervals(design: Design, value: Array, linear: Array, absent: Bools, boot: Array) -> Ratios:
    found = spread(design, np.nan_to_num(linear), absent)
    inner = (value > 0) & (value < 1) & (found.error > 1e-12)
    safe = np.where(inner, value, 0.5)
    logit = np.log(safe / (1 - safe))
    half = np.minimum(t_quantiles(found.freedom) * found.error / (safe * (1 - safe)), 500)
    low, high = 1 / (1 + np.exp(half - logit)), 1 / (1 + np.exp(-half - logit))
    # None right or all right: what so many units cannot have missed.
    missed = np.zeros(len(value))
    for column in np.flatnonzero(~inner & ~np.isnan(value)).tolist():
        missed[column] = unseen_share(design.among(~absent[:, column]), _TAIL)
    low = np.where(inner, low, np.maximum(value - missed, 0))
    high = np.where(inner, high, np.minimum(value + missed, 1))
    if design.is_census:
        low = high = value
    tails = np.full((2, len(value)), np.nan)
    there = ~np.isnan(value)
    tails[:, there] = np.nanquantile(boot[:, there], [_TAIL, 1 - _TAIL], axis=0)
    return Ratios(value, low, high, tails[0], tails[1])


def _nothing(columns: int) -> Ratios:
    none = np.full(columns, np.nan)
    return Ratios(none, none, none, none, none)


def _replicate_weights(design: Design, seed: int) -> Array:
    """Weights of the bootstrap's replicates, float64 [REPLICATES, units].

    In each stratum n - 1 of n units are drawn with replacement; deviations from the weight are scaled so that the
    variance is that of a draw without replacement. Where there are clusters, they are drawn instead of units.
    """
    random = np.random.default_rng(seed)
    if design.clusters is not None:
        names, codes = np.unique(design.clusters, return_inverse=True)
        count = len(names)
        if count > 1:
            times = random.multinomial(count - 1, np.full(count, 1 / count), REPLICATES)
            return np.asarray(design.weights * (times * count / (count - 1))[:, codes])
    weights = np.empty((REPLICATES, len(design.stratum)))
    for index, size in enumerate(design.sizes.tolist()):
        (units,) = np.nonzero(design.stratum == index)
        count = len(units)
        scale = np.sqrt(1 - design.fractions[index])
        if count < 2 or not scale:
            weights[:, units] = size / max(count, 1)
            continue
        times = random.multinomial(count - 1, np.full(count, 1 / count), REPLICATES)
        weights[:, units] = size / count * (1 + scale * (times * count / (count - 1) - 1))
    return weights


def _divide(above: Array, below: Array) -> Array:
    return np.asarray(np.divide(above, below, out=np.full(np.broadcast(above, below).shape, np.nan), where=below > 0))
