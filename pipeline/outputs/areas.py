"""How much of an image each class covers, from its mask."""

import numpy as np
import numpy.typing as npt

from fcn_core import LabelSet
from pipeline.outputs.results import ClassArea


def class_areas(areas: npt.NDArray[np.int64], labels: LabelSet) -> tuple[ClassArea, ...]:
    """The classes present in an image, from its pixel counts [n_classes]."""
    total = int(areas.sum())
    return tuple(
        ClassArea(int(class_id), labels.names[class_id], int(areas[class_id]), int(areas[class_id]) / total)
        for class_id in np.flatnonzero(areas)
    )


def count_areas(mask: npt.NDArray[np.uint8], labels: LabelSet) -> npt.NDArray[np.int64]:
    """Pixels of each class in a mask [H, W], as int64 [n_classes]."""
    return np.bincount(mask.ravel(), minlength=labels.num_classes)[: labels.num_classes].astype(np.int64)
