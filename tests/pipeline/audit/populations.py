"""Populations of images with known truth, labelled by a model with faults: in shares of each image's pixels."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.audit.allocation import allocate, expected_half_widths, expected_square_errors
from pipeline.audit.design import Design, merged
from pipeline.audit.shares import Estimator, Interval, Known, Measured, coefficients, estimate_shares
from pipeline.audit.strata import make_rule

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Images:
    """True and predicted shares [images, classes], the model's confidence and the folder [images]."""

    truth: Array
    model: Array
    confidence: Array
    folder: npt.NDArray[np.int64]


def street(images: int, seed: int) -> Images:
    """Eight classes from 46 % to 0.15 % of the pixels. The rare ones are in few images and of very unlike sizes
    (log-normal, sigma up to 1.4); the model misses up to 40 % of them, sees too little of others, and invents some."""
    random = np.random.default_rng(seed)
    mean = np.array([0.45, 0.3, 0.15, 0.07, 0.02, 0.006, 0.0025, 0.0015])
    presence = np.array([1, 1, 0.95, 0.7, 0.4, 0.15, 0.06, 0.04])
    sigma = np.array([0.3, 0.4, 0.6, 0.8, 1.0, 1.2, 1.2, 1.4])
    return _labelled(
        random, _sizes(random, images, mean, presence, sigma), mean / presence,
        recall=np.array([1.02, 1.0, 0.97, 0.9, 0.75, 0.6, 0.6, 0.5]),
        missed=np.array([0, 0, 0.02, 0.08, 0.2, 0.3, 0.35, 0.4]),
        invented=np.array([0, 0, 0.01, 0.03, 0.05, 0.02, 0.01, 0.005]),
    )  # fmt: skip


def tails(images: int, seed: int) -> Images:
    """Six classes, of which four have heavy tails (sigma 1.5 to 1.8): a class of 0.35 % is half in one image of 500."""
    random = np.random.default_rng(seed)
    mean = np.array([0.7, 0.25, 0.04, 0.006, 0.003, 0.001])
    presence = np.array([1, 0.9, 0.3, 0.05, 0.03, 0.01])
    sigma = np.array([0.2, 0.5, 1.5, 1.8, 1.8, 1.5])
    return _labelled(
        random, _sizes(random, images, mean, presence, sigma), mean / presence,
        recall=np.array([1.05, 0.9, 0.8, 0.7, 0.7, 0.6]),
        missed=np.array([0, 0.05, 0.1, 0.3, 0.3, 0.4]),
        invented=np.array([0, 0.01, 0.02, 0.01, 0.01, 0.003]),
    )  # fmt: skip


def videos(folders: int, frames: int, seed: int) -> Images:
    """Frames of one video resemble each other: in what is seen, and in what the model gets wrong."""
    random = np.random.default_rng(seed)
    mean = np.array([0.5, 0.3, 0.15, 0.05])
    scene = np.exp(random.normal(0, 0.4, (folders, 4)))
    error = np.exp(random.normal(0, 0.3, (folders, 4)))
    folder = np.repeat(np.arange(folders), frames)
    truth = mean * scene[folder] * np.exp(random.normal(0, 0.15, (folders * frames, 4)))
    truth /= truth.sum(axis=1, keepdims=True)
    model = truth * error[folder] * np.exp(random.normal(0, 0.1, truth.shape))
    model /= model.sum(axis=1, keepdims=True)
    wrong = 0.5 * np.abs(model - truth).sum(axis=1)
    return Images(truth, model, np.clip(1 - wrong - random.random(len(truth)) * 0.1, 0.2, 1), folder)


def _sizes(random: Any, images: int, mean: Array, presence: Array, sigma: Array) -> Array:
    there = random.random((images, len(mean))) < presence
    sizes = np.exp(random.normal(0, sigma, there.shape) - sigma**2 / 2) * mean / presence
    return np.asarray(sizes * there)


def _labelled(random: Any, sizes: Array, usual: Array, recall: Array, missed: Array, invented: Array) -> Images:
    truth = sizes / sizes.sum(axis=1, keepdims=True)
    hard = random.beta(2, 5, len(truth))[:, None]
    seen = random.random(truth.shape) > missed * (0.5 + 1.75 * hard)
    part = recall * np.exp(random.normal(0, 0.15 + 0.5 * hard, truth.shape))
    ghosts = (random.random(truth.shape) < invented) * np.exp(random.normal(0, 1, truth.shape)) * usual * 0.5
    model = truth * part * seen + ghosts
    model /= model.sum(axis=1, keepdims=True)
    wrong = 0.5 * np.abs(model - truth).sum(axis=1)
    doubt = (0.5 * wrong + 0.3 * hard[:, 0] + 0.02) * np.exp(random.normal(0, 0.3, len(truth)))
    return Images(truth, model, np.clip(1 - doubt, 0.2, 1), np.zeros(len(truth), np.int64))


@dataclass(frozen=True)
class Planned:
    """A plan for an audit of `images`, as `fcn audit plan` makes it."""

    images: Images
    stratum: npt.NDArray[np.int64]
    sizes: Array
    chosen: npt.NDArray[np.int64]
    expected: Array

    def samples(self, audits: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
        """Places of the images of so many independent draws."""
        random = np.random.default_rng(seed)
        members = [np.flatnonzero(self.stratum == index) for index in range(len(self.sizes))]
        for _ in range(audits):
            yield np.concatenate(
                [random.choice(here, count, replace=False) for here, count in zip(members, self.chosen, strict=True)]
            )

    def estimate(
        self,
        places: npt.NDArray[np.int64],
        how: Estimator = "regression",
        clusters: npt.NDArray[np.int64] | None = None,
    ) -> Interval:
        """Shares with their intervals from a sample; every image has one pixel, so that shares are pixels."""
        stratum, sizes = merged(self.stratum[places], self.sizes)
        design = Design(stratum, sizes, clusters=clusters)
        ones = np.ones(len(places))
        sample = Measured(self.images.truth[places], self.images.model[places], ones, 0 * ones)
        known = Known(self.images.model.sum(axis=0), float(len(self.images.model)))
        return estimate_shares(design, sample, known, coefficients(design, sample, how))


def plan(images: Images, n: int) -> Planned:
    """As `fcn audit plan` does it."""
    rule = make_rule(images.model, images.confidence, n)
    stratum = rule.assign(images.model, images.confidence)
    sizes = np.bincount(stratum, minlength=rule.strata).astype(np.float64)
    mean_square, presence = (images.model**2).mean(axis=0), (images.model > 0).mean(axis=0)
    guess = expected_square_errors(images.model, images.confidence, mean_square, presence)
    by_stratum = np.zeros((rule.strata, guess.shape[1]))
    np.add.at(by_stratum, stratum, guess)
    by_stratum /= np.maximum(sizes, 1)[:, None]
    chosen = allocate(sizes, by_stratum, images.model.mean(axis=0), n)
    return Planned(images, stratum, sizes, chosen, expected_half_widths(sizes, by_stratum, chosen))


@dataclass(frozen=True)
class Coverage:
    """Of many audits: how many of the intervals hold the truth [classes], and their mean half width."""

    covered: Array
    half_width: Array


def cover(planned: Planned, audits: int, how: Estimator = "regression", seed: int = 1) -> Coverage:
    """Draw and estimate so many times."""
    truth = planned.images.truth.mean(axis=0)
    hits, widths = np.zeros(len(truth)), np.zeros(len(truth))
    for places in planned.samples(audits, seed):
        found = planned.estimate(places, how)
        hits += (found.low <= truth) & (truth <= found.high)
        widths += (found.high - found.low) / 2
    return Coverage(hits / audits, widths / audits)
