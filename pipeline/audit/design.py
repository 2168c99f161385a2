"""A stratified random sample as its variances need it: who is in which stratum, out of how many.

The units are images, or whole clusters of images (`pipeline.audit.clusters`). Non-response is taken to be random within
a stratum, so the weight of a unit is its stratum's size over those of it that were annotated.

Two rules keep intervals honest where a sample says too little, and docs/audit.md says them in words:

- the unseen unit: an error that is rare may be in no unit of a stratum that was drawn. So to the variance within each
  stratum is added that of one more unit with an error of the usual size, as often as units of the stratum show nothing
  of the class (`spread`).
- no error at all: an interval of width zero is replaced by what as many units cannot have missed (`unseen_share`).
"""

import math
from dataclasses import dataclass

import numpy as np

from pipeline.audit.arrays import Array, Bools, Ints

LEAST_FREEDOM = 1.0
"""Two units alike; fewer degrees of freedom mean nothing."""


@dataclass(frozen=True)
class Design:
    """Units of a sample: `stratum` int [units], its index into `sizes` float64 [strata], the units there are of each.

    Every stratum has two units or all of its units: see `merged`. `replacement` leaves out the correction for what was
    taken of a finite population; so a folder of which some images were drawn has the variance of both steps. `clusters`
    int [units] are groups of units that go wrong together, of which those in the sample stand for others like them.
    """

    stratum: Ints
    sizes: Array
    replacement: bool = False
    clusters: Ints | None = None

    @property
    def taken(self) -> Array:
        """Units of the sample by stratum, float64 [strata]."""
        return np.bincount(self.stratum, minlength=len(self.sizes)).astype(np.float64)

    @property
    def weights(self) -> Array:
        """How many units each unit stands for, float64 [units]."""
        return (self.sizes / self.taken)[self.stratum]

    @property
    def fractions(self) -> Array:
        """The share of each stratum that was taken, float64 [strata]; 0 with `replacement`."""
        return np.zeros(len(self.sizes)) if self.replacement else self.taken / self.sizes

    @property
    def is_census(self) -> bool:
        """Whether all there is was taken."""
        return self.clusters is None and bool((self.fractions >= 1).all())

    def sums(self, values: Array) -> Array:
        """Sums of `values` [units, columns] over each stratum, float64 [strata, columns]."""
        inside = self.stratum == np.arange(len(self.sizes))[:, None]
        return np.asarray(inside.astype(np.float64) @ values)

    def centred(self, values: Array) -> Array:
        """`values` [units, columns] less the mean of their stratum."""
        return np.asarray(values - (self.sums(values) / self.taken[:, None])[self.stratum])

    def among(self, units: Bools) -> "Design":
        """The units [units] alone, as a sample of the part of the population that they stand for."""
        there = np.bincount(self.stratum[units], minlength=len(self.sizes))
        strata = np.flatnonzero(there)
        sizes = (self.sizes * there / self.taken)[strata]
        clusters = None if self.clusters is None else self.clusters[units]
        return Design(np.searchsorted(strata, self.stratum[units]), sizes, self.replacement, clusters)

    @property
    def pair_weights(self) -> Array:
        """By unit, what a squared deviation from its stratum's mean adds to the variance of a total."""
        each = self.sizes**2 * (1 - self.fractions) / self.taken / np.maximum(self.taken - 1, 1)
        return np.asarray(each[self.stratum])


def merged(stratum: Ints, sizes: Array) -> tuple[Ints, Array]:
    """Strata that a variance can be had of: one with a single unit of several, or with none, joins the one before it.

    Returns the new strata and their sizes. `sizes` [strata] counts units of the population; strata in which there are
    none vanish.
    """
    taken = np.bincount(stratum, minlength=len(sizes))
    places, new_sizes, new_taken = np.zeros(len(sizes), np.int64), [0.0], [0]
    for index, (size, units) in enumerate(zip(sizes.tolist(), taken.tolist(), strict=True)):
        if new_sizes[-1] and _is_whole(new_sizes[-1], new_taken[-1]):
            new_sizes.append(0.0)
            new_taken.append(0)
        places[index] = len(new_sizes) - 1
        new_sizes[-1] += size
        new_taken[-1] += units
    if len(new_sizes) > 1 and not _is_whole(new_sizes[-1], new_taken[-1]):
        last = new_sizes.pop()
        new_sizes[-1] += last
        places = np.minimum(places, len(new_sizes) - 1)
    return places[stratum], np.array(new_sizes)


def _is_whole(size: float, units: int) -> bool:
    return units >= 2 or units >= size


@dataclass(frozen=True)
class Spread:
    """The variance of estimates, float64 [columns] each: `variance`, its degrees of `freedom`, and what it would be of
    `k` times as many units: `infinite` / k - `finite`. `effect` is by how much clusters enlarge the variance."""

    variance: Array
    freedom: Array
    infinite: Array
    finite: Array
    effect: Array

    @property
    def error(self) -> Array:
        """Standard errors."""
        return np.sqrt(self.variance)

    def factor_to_halve(self) -> Array:
        """How many times as many units halve the standard error; 1 where it is zero already."""
        target = self.variance / 4 + self.finite
        return np.divide(self.infinite, target, out=np.ones_like(target), where=target > 0)


def spread(design: Design, values: Array, shows_nothing: Bools) -> Spread:
    """The variance of the weighted sums of `values`, float64 [units, columns]: linearized residuals, mostly.

    `shows_nothing` [units, columns] are units of which it follows from the absence of a class that their value is what
    it is: the more of them, the more an unseen unit with an error counts. With clusters it is the variance between
    them, but never less than it would be without.
    """
    plain = _spread(design, values, shows_nothing)
    if design.clusters is None:
        return plain
    names, codes = np.unique(design.clusters, return_inverse=True)
    if len(names) < 2:
        return plain
    totals, empty = np.zeros((len(names), values.shape[1])), np.ones((len(names), values.shape[1]), bool)
    np.add.at(totals, codes, design.weights[:, None] * values)
    np.logical_and.at(empty, codes, shows_nothing)
    size = float(len(names))
    between = _spread(Design(np.zeros(len(names), np.int64), np.array([size]), replacement=True), totals, empty)
    wider = between.variance > plain.variance
    effect = np.divide(between.variance, plain.variance, out=np.ones_like(size * plain.variance), where=wider)
    effect = np.where(plain.variance > 0, effect, 1.0)
    return Spread(
        np.where(wider, between.variance, plain.variance),
        np.where(wider, between.freedom, plain.freedom),
        np.where(wider, between.infinite, plain.infinite),
        np.where(wider, 0, plain.finite),
        effect,
    )


def _spread(design: Design, values: Array, shows_nothing: Bools) -> Spread:
    taken, sizes = design.taken[:, None], design.sizes[:, None]
    fractions = design.fractions[:, None]
    deviations = design.centred(values)
    within = design.sums(deviations**2) / np.maximum(taken - 1, 1)
    telling = ~shows_nothing
    usual = (deviations**2 * telling).sum(axis=0) / np.maximum(telling.sum(axis=0), 1)
    within = within + usual * design.sums(shows_nothing.astype(np.float64)) / taken / (taken + 1)
    infinite = sizes**2 * within / taken
    finite = infinite * fractions
    by_stratum = np.maximum(infinite - finite, 0)
    variance = by_stratum.sum(axis=0)
    below = (by_stratum**2 / np.maximum(taken - 1, 1)).sum(axis=0)
    freedom = np.divide(variance**2, below, out=np.full_like(variance, np.inf), where=below > 0)
    is_open = fractions < 1
    return Spread(
        variance,
        np.maximum(freedom, LEAST_FREEDOM),
        (infinite * is_open).sum(axis=0),
        (finite * is_open).sum(axis=0),
        np.ones_like(variance),
    )


def unseen_share(design: Design, tail: float) -> float:
    """The largest mean, 0..1, of a quantity within 0..1 that all units of the sample can have missed with a probability
    of `tail`: 1 - tail ** (1 / n) for a simple random sample of n.

    Of a stratified one that of the worst strata: the largest sum of W_h m_h with the product of (1 - m_h) ** n_h at
    least `tail`. Nothing can hide in strata that were taken whole. Of clusters, each counts as one.
    """
    if design.clusters is not None:
        return float(1 - tail ** (1 / len(np.unique(design.clusters))))
    hidden = design.fractions < 1
    if not hidden.any():
        return 0.0
    taken = design.taken[hidden]
    weights = (design.sizes / design.sizes.sum())[hidden]
    low, high = 0.0, float((weights / taken).max())  # of the multiplier: 1 - m_h = multiplier * n_h / W_h
    for _ in range(60):
        middle = (low + high) / 2
        kept = np.minimum(middle * taken / weights, 1)
        chance = float((taken * np.log(np.maximum(kept, 1e-300))).sum())
        low, high = (middle, high) if chance < math.log(tail) else (low, middle)
    kept = np.minimum(high * taken / weights, 1)
    return float((weights * (1 - kept)).sum())
