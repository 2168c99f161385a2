"""What share of an output's pixels each class really has: the model's areas, put right by a sample.

The model's areas x are known of every image, the true ones y of the sample. A regression estimator adds to what the
model says of all, times a coefficient, what the sample says of the rest: sum of b x over all images, plus the weighted
sum of y - b x over the sample (Särndal, Swensson and Wretman 1992, chapter 6; prediction-powered inference is the same,
arXiv 2301.09633). With b = 1 it is the difference estimator, with b = 0 the sample alone. Where strata are the model's
classes it is the estimator of Olofsson et al. 2014 (doi 10.1016/j.rse.2014.02.015, equations 9 to 11).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.audit.arrays import Array, Bools
from pipeline.audit.design import Design, Spread, spread, unseen_share
from pipeline.audit.quantiles import LEVEL, t_quantiles

Estimator = Literal["regression", "difference", "sample"]

SHRINKAGE = 3.0
"""In effective images: a coefficient that so few speak for lies half way between theirs and the difference's 1."""

_MOST_LEVERAGE = 0.75


@dataclass(frozen=True)
class Measured:
    """Units of a sample, in pixels, float64: `truth` and `model` [units, classes], `pixels` and `void` [units].

    `truth` counts pixels with a class, so it sums to `pixels` less `void` over the classes; `model` sums to `pixels`.
    """

    truth: Array
    model: Array
    pixels: Array
    void: Array


@dataclass(frozen=True)
class Known:
    """What the tables say of the whole population: the model's pixels of each class, float64 [classes], and all."""

    model: Array
    pixels: float


@dataclass(frozen=True)
class Interval:
    """Estimates with their 95 % intervals, float64 [columns] each.

    `factor` is how many times as many units halve an interval, `effect` the design effect of clusters; `widened` says
    where the sample shows no error, so that the interval is what so many units cannot have missed.
    """

    value: Array
    low: Array
    high: Array
    error: Array
    factor: Array
    effect: Array
    widened: Bools


def coefficients(design: Design, sample: Measured, how: Estimator) -> Array:
    """The factor of the model's areas for each class, float64 [classes].

    For a regression the one of least variance, drawn towards 1 where few images speak for it.
    """
    classes = sample.model.shape[1]
    if how != "regression":
        return np.full(classes, 1.0 if how == "difference" else 0.0)
    model, truth = design.centred(sample.model), design.centred(sample.truth)
    weights = design.pair_weights[:, None]
    own = (weights * model**2).sum(axis=0)
    both = (weights * model * truth).sum(axis=0)
    raw = np.divide(both, own, out=np.ones(classes), where=own > 0)
    shares = np.divide(weights * model**2, own, out=np.zeros_like(model), where=own > 0)
    concentration = (shares**2).sum(axis=0)
    effective = np.divide(1, concentration, out=np.zeros(classes), where=concentration > 0)
    return np.asarray((effective * raw + SHRINKAGE) / (effective + SHRINKAGE))


def estimate_shares(
    design: Design,
    sample: Measured,
    known: Known,
    factor: Array,
    *,
    target: Array | None = None,
    inside: Bools | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Interval:
    """Shares of the labelled pixels of a population, or of a domain of it, with intervals.

    `factor` [classes] are the coefficients of the model's areas. `target` [units, classes] is what is to be estimated,
    default: the truth. `inside` [units] are the units of the domain that `known` speaks of, default: all.
    """
    target = sample.truth if target is None else target
    within = np.ones(len(sample.pixels), bool) if inside is None else inside
    mask = within[:, None].astype(np.float64)
    weights = design.weights
    residual = (target - factor * sample.model) * mask
    size, void = sample.pixels * within, sample.void * within
    total = float(weights @ size)
    correction, empty = weights @ residual / total, float(weights @ void) / total
    labelled = 1 - empty
    value = (factor * known.model / known.pixels + correction) / labelled

    # Residuals from a fit are smaller than errors: each is enlarged by its own pull on the fit.
    model = design.centred(sample.model * mask)
    own = (design.pair_weights[:, None] * model**2).sum(axis=0)
    pull = np.divide(design.pair_weights[:, None] * model**2, own, out=np.zeros_like(model), where=own > 0)
    fitted = np.abs(factor - 1) > 1e-12
    deviation = design.centred(residual)
    enlarged = residual - deviation + deviation / (1 - np.minimum(pull, _MOST_LEVERAGE) * (fitted & (factor != 0)))
    about_size = correction * size[:, None]
    about_void = value * (void - empty * size)[:, None]
    linear = (enlarged - about_size + about_void) / (total * labelled)
    absent = within[:, None] & (sample.model == 0) & (sample.truth == 0) & (target == 0)
    return _intervals(design.among(within), value, spread(design, linear, absent), bounds)


def _intervals(design: Design, value: Array, found: Spread, bounds: tuple[float, float]) -> Interval:
    """Student's intervals about estimates of shares, cut to `bounds`; where no unit of the sample shows an error, what
    so many units cannot have missed is the width."""
    half = t_quantiles(found.freedom) * found.error
    # What is left of equal residuals after rounding is no error that was seen.
    nothing = (found.error <= 1e-12) & (not design.is_census)
    if nothing.any():
        half = np.where(nothing, unseen_share(design, (1 - LEVEL) / 2), half)
    low, high = np.clip(value - half, *bounds), np.clip(value + half, *bounds)
    return Interval(np.clip(value, *bounds), low, high, found.error, found.factor_to_halve(), found.effect, nothing)
