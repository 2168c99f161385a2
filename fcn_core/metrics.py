"""Segmentation scores from a confusion matrix: the four of the FCN paper (section 5), and IU per class.

Counts are int64 and exact, so matrices of parts of a data set add up to the matrix of the whole, in any
order. A class that occurs neither in the truth nor in the prediction has no score (None) and is left out of
the means.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from fcn_core.errors import LabelError


class Scores(BaseModel):
    """Scores as fractions 0..1; None where nothing was there to be scored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pixel_accuracy: float | None = Field(description="share of the labelled pixels that are right")
    mean_accuracy: float | None = Field(description="share of a class's pixels that are right, mean over classes")
    mean_iu: float | None = Field(description="intersection over union, mean over classes")
    frequency_weighted_iu: float | None = Field(description="IU weighted by how many pixels a class has")
    per_class_iu: tuple[float | None, ...] = Field(description="IU of each class, in the label set's order")
    pixels: int = Field(ge=0, description="labelled pixels that were compared")


class ConfusionMatrix:
    """Counts how often a pixel of true class t was given class p: `counts[t, p]`, int64 [C, C]."""

    def __init__(self, num_classes: int, ignore_index: int = 255) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.counts: npt.NDArray[np.int64] = np.zeros((num_classes, num_classes), dtype=np.int64)

    def update(self, target: npt.NDArray[Any], mask: npt.NDArray[Any]) -> None:
        """Count one image or batch: true classes and predicted classes, integer arrays of one shape.

        Pixels whose target is `ignore_index` do not count. Raises LabelError for other values outside 0..C-1
        and for unequal shapes; nothing is counted then.
        """
        if target.shape != mask.shape:
            raise LabelError(
                f"the truth is {target.shape} and the prediction {mask.shape}: predict at the size of the ground truth"
            )
        valid = target != self.ignore_index
        truth, predicted = target[valid].astype(np.int64), mask[valid].astype(np.int64)
        for what, values in (("truth", truth), ("prediction", predicted)):
            if values.size and not (values.min() >= 0 and values.max() < self.num_classes):
                raise LabelError(
                    f"the {what} holds class {int(values.max() if values.min() >= 0 else values.min())}, "
                    f"but there are only classes 0..{self.num_classes - 1}: "
                    "check that both use the same label set and ignore index"
                )
        joint = np.bincount(truth * self.num_classes + predicted, minlength=self.num_classes**2)
        self.counts += joint.reshape(self.num_classes, self.num_classes)

    def add(self, other: "ConfusionMatrix") -> None:
        """Add what another matrix of the same classes has counted."""
        if other.num_classes != self.num_classes:
            raise LabelError(f"cannot add a matrix of {other.num_classes} classes to one of {self.num_classes}")
        self.counts += other.counts

    def scores(self) -> Scores:
        """The scores of all that was counted so far."""
        right = np.diag(self.counts)
        in_truth, in_prediction = self.counts.sum(axis=1), self.counts.sum(axis=0)
        union = in_truth + in_prediction - right
        total = int(in_truth.sum())
        present = union > 0
        iu = np.divide(right, union, out=np.zeros(self.num_classes), where=present)
        accuracies = right[in_truth > 0] / in_truth[in_truth > 0]
        return Scores(
            pixel_accuracy=float(right.sum() / total) if total else None,
            mean_accuracy=float(accuracies.mean()) if total else None,
            mean_iu=float(iu[present].mean()) if total else None,
            frequency_weighted_iu=float((in_truth * iu).sum() / total) if total else None,
            per_class_iu=tuple(float(v) if there else None for v, there in zip(iu, present, strict=True)),
            pixels=total,
        )
