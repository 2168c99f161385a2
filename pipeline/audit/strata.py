"""Which stratum an image belongs to, from what the model says of it: how much of rare classes, and how confidently.

A rule is a few numbers, fixed when the first sample is planned and recorded: so an image's stratum can be found again
without a list of all images. Any rule gives unbiased estimates; a good one gives narrow intervals.
"""

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from pipeline.audit.arrays import Array, Ints

MOST_STRATA = 12
IMAGES_PER_STRATUM = 8
"""A stratum needs some images for its variance to mean anything."""

RARE = 1e-3
"""Classes below this share of the pixels draw no more images to them than one of this share would."""


class StrataRule(BaseModel):
    """Groups by `rarity`, the sum over classes of an image's share times the class's `class_weights`, cut at
    `rarity_cuts`; in each group strata by confidence, cut at its `confidence_cuts`. All cuts rise."""

    model_config = ConfigDict(frozen=True)

    class_weights: tuple[float, ...]
    rarity_cuts: tuple[float, ...]
    confidence_cuts: tuple[tuple[float, ...], ...]

    @property
    def strata(self) -> int:
        """How many strata there are; some may be empty."""
        return len(self.confidence_cuts) * self._levels

    @property
    def _levels(self) -> int:
        return max(len(cuts) for cuts in self.confidence_cuts) + 1

    def assign(self, shares: Array, confidence: Array) -> Ints:
        """The stratum of each image: `shares` float64 [images, classes], `confidence` [images] in 0..1."""
        group = np.searchsorted(np.array(self.rarity_cuts), self.rarity(shares), side="right")
        stratum = np.empty(len(shares), np.int64)
        for index, cuts in enumerate(self.confidence_cuts):
            here = group == index
            level = np.searchsorted(np.array(cuts), confidence[here], side="right")
            stratum[here] = index * self._levels + level
        return stratum

    def rarity(self, shares: Array) -> Array:
        """Float64 [images]; its mean over the images that the rule was made of is the number of classes."""
        weights = np.zeros(shares.shape[1])
        known = np.array(self.class_weights)[: shares.shape[1]]
        weights[: len(known)] = known
        return np.asarray(shares @ weights)

    def describe(self, stratum: int) -> str:
        """A stratum in words."""
        group, level = divmod(stratum, self._levels)
        words = []
        if self.rarity_cuts:
            words.append(_level(group, len(self.rarity_cuts) + 1, ("little", "some", "much"), "of rare classes"))
        if self._levels > 1:
            words.append(_level(level, self._levels, ("low", "middling", "high"), "confidence"))
        return ", ".join(words) or "all images"


def make_rule(shares: Array, confidence: Array, n: int) -> StrataRule:
    """A rule for a sample of `n` images, from some of the images: `shares` float64 [images, classes], `confidence`
    [images]."""
    count = max(1, min(MOST_STRATA, n // IMAGES_PER_STRATUM))
    levels = 3 if count >= 9 else 2 if count >= 4 else 1
    groups = count // levels
    rule = StrataRule(
        class_weights=tuple((1 / np.maximum(shares.mean(axis=0), RARE)).tolist()),
        rarity_cuts=(),
        confidence_cuts=((),),
    )
    rarity = rule.rarity(shares)
    # Each group has half of what is left: the last ones are few images, with most of the rare classes.
    cuts = _distinct(np.quantile(rarity, [1 - 0.5**group for group in range(1, groups)])) if groups > 1 else []
    group = np.searchsorted(np.array(cuts), rarity, side="right")
    confidence_cuts = []
    for index in range(len(cuts) + 1):
        here = confidence[group == index]
        parts = [part / levels for part in range(1, levels)]
        confidence_cuts.append(tuple(_distinct(np.quantile(here, parts)) if len(here) and parts else []))
    return StrataRule(class_weights=rule.class_weights, rarity_cuts=tuple(cuts), confidence_cuts=tuple(confidence_cuts))


def _distinct(values: Array) -> list[float]:
    return [float(value) for value in np.unique(values)]


def _level(index: int, count: int, words: Sequence[str], of: str) -> str:
    if count <= len(words):
        chosen = words[-1] if index == count - 1 else words[index]
        return f"{chosen} {of}"
    return f"{of} {index + 1} of {count}"
