"""How far the class areas of two labellings lie apart (Jensen-Shannon), and how much chance would do (bootstrap).

Each image counts once, whatever its size: the distribution of a labelling is the mean of its images' class shares. The
bootstrap draws images with replacement, as Poisson weights that follow from the image's key and the seed. So it
streams, and an image that is in both labellings weighs the same in both.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

LEVEL = 0.95
_AT_ONCE = 4096  # images that weights are drawn for together

# P(weight <= k) of a Poisson variable of mean 1, as thresholds for 64 random bits.
_POISSON = np.array([sum(math.exp(-1) / math.factorial(j) for j in range(k + 1)) for k in range(12)])

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Shift:
    """How far two distributions lie apart, in bits: 0 for equal ones, 1 for ones with no class in common.

    `low` and `high` bound it with 95 % confidence (over images like these). `chance` is what two samples of images of
    these sizes would show on average if nothing but chance told them apart; 0 where both saw the same images and say
    the same.
    """

    value: float
    low: float
    high: float
    chance: float


class Distribution:
    """The mean class shares of a labelling and of its bootstrap replicates; add batches of images, in any order."""

    def __init__(self, replicates: int, seed: int) -> None:
        self._replicates = replicates
        self._seed = seed
        self.images = 0
        self._sum: Array = np.zeros(0)
        self._sums: Array = np.zeros((replicates, 0))

    def add(self, keys: Sequence[str], shares: Array) -> None:
        """`shares`, float64 [len(keys), classes], of which later batches may have more; rows sum to 1."""
        self._grow(shares.shape[1])
        self.images += len(keys)
        self._sum += shares.sum(axis=0)
        marks = key_marks(keys)
        for start in range(0, len(keys), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            self._sums += weights(marks[part], self._replicates, self._seed).T @ shares[part]

    def mean(self, classes: int) -> Array:
        """Shares float64 [classes]; they sum to 1 unless there is no image."""
        self._grow(classes)
        return _normal(self._sum)

    def replicates(self, classes: int) -> Array:
        """Shares of each replicate, float64 [replicates, classes]."""
        self._grow(classes)
        return _normal(self._sums)

    def _grow(self, classes: int) -> None:
        more = classes - len(self._sum)
        if more > 0:
            self._sum = np.pad(self._sum, (0, more))
            self._sums = np.pad(self._sums, ((0, 0), (0, more)))


def shift(first: Distribution, second: Distribution, classes: int) -> Shift:
    """How far two labellings of at least one image each lie apart."""
    a, b = first.mean(classes), second.mean(classes)
    value = float(divergence(a, b))
    resampled_a, resampled_b = first.replicates(classes), second.replicates(classes)
    # With a handful of images a replicate may have drawn none.
    there = (resampled_a.sum(axis=1) > 0) & (resampled_b.sum(axis=1) > 0)
    if not there.any():
        return Shift(value, 0.0, 1.0, 0.0)
    resampled_a, resampled_b = resampled_a[there], resampled_b[there]
    values = divergence(resampled_a, resampled_b)
    # Near equality the divergence is a sum of squares, so chance adds to it: once in the data, once more in each
    # replicate. What it adds follows from how far the replicates' differences scatter about the one that was seen.
    scatter = (resampled_a - resampled_b) - (a - b)
    middle = (a + b) / 2
    parts = np.divide(scatter**2, middle, out=np.zeros_like(scatter), where=middle > 0)
    chance = float(parts.sum(axis=1).mean()) / (8 * math.log(2))
    low, high = np.quantile(np.maximum(values - chance, 0), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Shift(value, float(low), float(min(1, high)), chance)


def divergence(first: Array, second: Array) -> Any:
    """Jensen-Shannon divergence in bits of distributions along the last axis."""
    middle = (first + second) / 2
    return (_relative_entropy(first, middle) + _relative_entropy(second, middle)) / 2


def _relative_entropy(p: Array, q: Array) -> Any:
    ratio = np.divide(p, q, out=np.ones_like(p), where=(p > 0) & (q > 0))
    return np.maximum(0, (p * np.log2(ratio)).sum(axis=-1))


def _normal(sums: Array) -> Array:
    total = sums.sum(axis=-1, keepdims=True)
    return np.asarray(np.divide(sums, total, out=np.zeros_like(sums), where=total > 0))


def key_marks(keys: Sequence[str]) -> npt.NDArray[np.uint64]:
    """64 bits that stand for each key."""
    raw = b"".join(hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=8).digest() for key in keys)
    return np.frombuffer(raw, np.uint64)


def weights(marks: npt.NDArray[np.uint64], replicates: int, seed: int) -> Array:
    """How often each replicate draws each image: Poisson of mean 1, float64 [len(marks), replicates].

    The numbers are splitmix64 of mark, replicate and seed.
    """
    steps = (np.arange(replicates, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    with np.errstate(over="ignore"):
        bits = marks[:, None] + np.uint64(seed % (1 << 64)) * np.uint64(0xD1342543DE82EF95) + steps[None, :]
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        bits ^= bits >> np.uint64(31)
    uniform = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
    drawn = np.searchsorted(_POISSON, uniform.ravel(), side="right")
    return np.asarray(drawn.reshape(uniform.shape), np.float64)
