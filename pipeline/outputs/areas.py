"""How much of an image each class covers, from its mask."""

import numpy as np
import numpy.typing as npt

from fcn_core import LabelSet
from fcn_core.labels import VOID
from pipeline.outputs.results import ClassArea


def class_areas(areas: npt.NDArray[np.int64], labels: LabelSet, void: int = 0) -> tuple[ClassArea, ...]:
    """The classes present in an image, from its pixel counts [n_classes]; last, its `void` pixels under the id VOID."""
    total = int(areas.sum()) + void
    found = [
        ClassArea(int(class_id), labels.names[class_id], int(areas[class_id]), int(areas[class_id]) / total)
        for class_id in np.flatnonzero(areas)
    ]
    return (*found, *([ClassArea(VOID, labels.void_name, void, void / total)] if void else []))


def count_areas(mask: npt.NDArray[np.uint8], labels: LabelSet) -> npt.NDArray[np.int64]:
    """Pixels of each class in a mask [H, W], as int64 [n_classes]."""
    return np.bincount(mask.ravel(), minlength=labels.num_classes)[: labels.num_classes].astype(np.int64)
