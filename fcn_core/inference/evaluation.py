"""Scores of a model on annotated images, predicted whole and unvaried, as a labelling run predicts them."""

from collections.abc import Sequence

from fcn_core.bundle import ModelBundle
from fcn_core.data.datasets import Dataset
from fcn_core.errors import DataError
from fcn_core.inference.predictor import Predictor
from fcn_core.inference.settings import PredictorSettings
from fcn_core.metrics import ConfusionMatrix, Scores


def confusion(predictor: Predictor, dataset: Dataset, indices: Sequence[int]) -> ConfusionMatrix:
    """Counts over the examples of these indices. Raises DataError for an example that cannot be used."""
    matrix = ConfusionMatrix(dataset.labels.num_classes, dataset.labels.ignore_index)
    size = predictor.settings.batch_size
    for first in range(0, len(indices), size):
        examples = [dataset[index] for index in indices[first : first + size]]
        for example, found in zip(examples, predictor.predict([e.image for e in examples]), strict=True):
            matrix.update(example.mask, found.mask)
    return matrix


def evaluate(bundle: ModelBundle, dataset: Dataset, settings: PredictorSettings | None = None) -> Scores:
    """Scores of a model on a whole data set, in this process."""
    check_classes(bundle, dataset)
    predictor = Predictor(bundle, settings)
    return confusion(predictor, dataset, range(len(dataset))).scores()


def check_classes(bundle: ModelBundle, dataset: Dataset) -> None:
    """DataError unless model and data set have equally many classes."""
    if bundle.labels.num_classes != dataset.labels.num_classes:
        raise DataError(
            f"the model knows {bundle.labels.num_classes} classes, label set {dataset.labels.name!r} has "
            f"{dataset.labels.num_classes}: evaluate it on data with its own label set"
        )
