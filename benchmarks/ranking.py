"""Is it worth labelling the least certain images first? Their true scores against those of the rest.

Predicts a split of a labelled data set, ranks its images by several measures of certainty, and prints for each the mean
IoU and pixel accuracy of the least certain fifth and of the rest (pooled over the images of a group, as the paper
counts), and the rank correlation with each image's own scores. `confidence` is the column that results hold; the others
would have to be stored.

    python benchmarks/ranking.py MODEL DATASET --preset camvid --split val
"""

import argparse
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from fcn_core import Predictor, resolve_settings
from fcn_core.inference.predictor import Outputs
from fcn_core.metrics import ConfusionMatrix
from pipeline.data.datasets import open_dataset
from pipeline.jobs.dataset import DatasetOptions
from pipeline.models.load import load_bundle

Array = npt.NDArray[np.float64]
Probabilities = npt.NDArray[np.float32]

DRAWS = 1000
"""Random choices of as many images: what ranking by nothing would give."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder or URI of a bundle, or registry:NAME")
    parser.add_argument("dataset")
    parser.add_argument("--preset")
    parser.add_argument("--split", default="val")
    parser.add_argument("--share", type=float, default=0.2, help="of the images that count as least certain")
    parser.add_argument("--limit", type=int, help="only so many images")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    options = parser.parse_args()

    bundle = load_bundle(options.model)
    dataset = open_dataset(DatasetOptions(dataset=options.dataset, preset=options.preset), options.split)
    predictor = Predictor(bundle, resolve_settings(device=options.device))
    count = min(len(dataset), options.limit or len(dataset))
    counts = np.zeros((count, bundle.labels.num_classes, bundle.labels.num_classes), np.int64)
    certainty: dict[str, Array] = {name: np.zeros(count) for name in ("confidence", *MEASURES)}
    for index in range(count):
        example = dataset[index]
        result = predictor.predict([example.image], Outputs(probabilities=True))[0]
        matrix = ConfusionMatrix(bundle.labels.num_classes, bundle.labels.ignore_index)
        matrix.update(example.mask, result.mask)
        counts[index] = matrix.counts
        certainty["confidence"][index] = result.confidence
        assert result.probabilities is not None
        for name, measure in MEASURES.items():
            certainty[name][index] = measure(result.probabilities)

    print(f"{options.model} on {options.split} of {options.dataset}: {count} images, mean IoU {pooled(counts)[0]:.3f}")
    table(counts, certainty, options.share)


def table(counts: npt.NDArray[np.int64], certainty: Mapping[str, Array], share: float) -> None:
    """One line a measure."""
    each = np.array([pooled(counts[index : index + 1]) for index in range(len(counts))])
    worst = max(1, round(share * len(counts)))
    head = f"least certain {worst}"
    print(f"{'':24}{head:>20}{'the rest':>20}{'rank correlation':>22}")
    print(
        f"{'ranked by':24}{'mean IoU':>10}{'accuracy':>10}{'mean IoU':>10}{'accuracy':>10}"
        f"{'mean IoU':>11}{'accuracy':>11}"
    )
    draws = np.random.default_rng(0).permuted(np.tile(np.arange(len(counts)), (DRAWS, 1)), axis=1)
    chance = np.array([[*pooled(counts[draw[:worst]]), *pooled(counts[draw[worst:]])] for draw in draws])
    print(f"{'(by chance, mean)':24}" + "".join(f"{value:10.3f}" for value in chance.mean(axis=0)))
    print(
        f"{'(by chance, lowest 1 %)':24}"
        + "".join(f"{value:10.3f}" for value in np.quantile(chance[:, :2], 0.01, axis=0))
    )
    truth = {"(true accuracy)": each[:, 1], "(true mean IoU)": each[:, 0]}
    for name, values in {**certainty, **truth}.items():
        order = np.argsort(values, kind="stable")
        low, rest = pooled(counts[order[:worst]]), pooled(counts[order[worst:]])
        related = [correlation(values, each[:, column]) for column in (0, 1)]
        print(
            f"{name:24}{low[0]:10.3f}{low[1]:10.3f}{rest[0]:10.3f}{rest[1]:10.3f}{related[0]:11.2f}{related[1]:11.2f}"
        )


def pooled(counts: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Mean IoU and pixel accuracy of several images together, from their confusion matrices [N, C, C]."""
    matrix = ConfusionMatrix(counts.shape[1])
    matrix.counts = counts.sum(axis=0)
    scores = matrix.scores()
    return scores.mean_iou or 0.0, scores.pixel_accuracy or 0.0


def correlation(first: Array, second: Array) -> float:
    """Spearman's."""
    ranks = [np.argsort(np.argsort(values)).astype(float) for values in (first, second)]
    return float(np.corrcoef(*ranks)[0, 1])


def _entropy(probabilities: Probabilities) -> float:
    return float((probabilities * np.log(np.maximum(probabilities, 1e-12))).sum(axis=0).mean())


def _margin(probabilities: Probabilities) -> float:
    second, first = np.sort(probabilities, axis=0)[-2:]
    return float((first - second).mean())


def _sure_cells(probabilities: Probabilities) -> float:
    return float((probabilities.max(axis=0) >= 0.7).mean())


def _lowest_tenth(probabilities: Probabilities) -> float:
    return float(np.quantile(probabilities.max(axis=0), 0.1))


def _by_class(probabilities: Probabilities) -> Array:
    """The mean confidence of the cells of each predicted class."""
    classes, sure = probabilities.argmax(axis=0).ravel(), probabilities.max(axis=0).ravel()
    cells = np.bincount(classes)
    return np.bincount(classes, weights=sure)[cells > 0] / cells[cells > 0]


def _class_mean(probabilities: Probabilities) -> float:
    return float(_by_class(probabilities).mean())


def _soft_iou(probabilities: Probabilities) -> float:
    """The mean IoU that the probabilities themselves expect of the mask."""
    hard = np.eye(len(probabilities), dtype=bool)[probabilities.argmax(axis=0)].transpose(2, 0, 1)
    right = (probabilities * hard).sum(axis=(1, 2))
    either = hard.sum(axis=(1, 2)) + (probabilities * ~hard).sum(axis=(1, 2))
    there = hard.any(axis=(1, 2))
    return float((right[there] / either[there]).mean())


MEASURES: Mapping[str, Callable[[Probabilities], float]] = {
    "mean negative entropy": _entropy,
    "mean margin": _margin,
    "cells of 0.7 and more": _sure_cells,
    "lowest tenth of cells": _lowest_tenth,
    "mean over classes": _class_mean,
    "expected mean IoU": _soft_iou,
}


if __name__ == "__main__":
    main()
