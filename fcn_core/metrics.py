"""Segmentation scores from a confusion matrix: the four of the FCN paper (section 5), and IoU per class.

Counts are int64 and exact, so matrices of parts of a data set add up to the matrix of the whole, in any
order. A class that occurs neither in the truth nor in the prediction has no score (None) and is left out of
the means; one that is only ever predicted has IoU 0, which counts, and no accuracy. That is how the authors' score.py
counts, where NumPy's nanmean leaves out what is 0/0. A pixel whose prediction is void (255) is a miss of its class, as
in the Cityscapes benchmark: a model gains nothing by leaving out what it is unsure of.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from fcn_core.errors import LabelError
from fcn_core.labels import VOID

_PIXELS_AT_ONCE = 1 << 22  # counting takes ten times the memory of what it counts


# Version 0.1 wrote these names into bundles, registries, checkpoints and scores.json.
_NAMES_OF_0_1 = {
    "mean_iu": "mean_iou",
    "frequency_weighted_iu": "frequency_weighted_iou",
    "per_class_iu": "per_class_iou",
}


def with_current_names(scores: Any) -> Any:
    """`scores` with names of version 0.1 replaced by today's; anything but a dict is returned as it is."""
    if not isinstance(scores, dict):
        return scores
    return {_NAMES_OF_0_1.get(name, name): value for name, value in scores.items()}


class Scores(BaseModel):
    """Scores as fractions 0..1; None where nothing was there to be scored."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    _renamed = model_validator(mode="before")(with_current_names)

    pixel_accuracy: float | None = Field(description="share of the annotated pixels that are right")
    mean_accuracy: float | None = Field(description="share of a class's pixels that are right, mean over classes")
    mean_iou: float | None = Field(description="intersection over union, mean over classes")
    frequency_weighted_iou: float | None = Field(description="IoU weighted by how many pixels a class has")
    per_class_iou: tuple[float | None, ...] = Field(description="IoU of each class, in the label set's order")
    per_class_accuracy: tuple[float | None, ...] = Field(
        default=(), description="share of each class's pixels that are right, in the same order"
    )
    pixels: int = Field(ge=0, description="annotated pixels that were compared")


class ConfusionMatrix:
    """Counts how often a pixel of true class t was given class p: `counts[t, p]`, int64 [C, C]; C is at most 255.

    `void`, int64 [C]: pixels of true class t that were given none (VOID). ignore_index: of the truth;
    None where every pixel counts, and then C may be 256, the number VOID a class like others.
    """

    def __init__(self, num_classes: int, ignore_index: int | None = 255) -> None:
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.counts: npt.NDArray[np.int64] = np.zeros((num_classes, num_classes), dtype=np.int64)
        self.void: npt.NDArray[np.int64] = np.zeros(num_classes, dtype=np.int64)

    def update(self, target: npt.NDArray[Any], mask: npt.NDArray[Any]) -> None:
        """Count one image or batch: true classes and predicted classes, integer arrays of one shape, quickest as uint8.

        Pixels whose target is `ignore_index` do not count; a prediction may be VOID. Raises LabelError for other values
        outside 0..C-1 and for unequal shapes; nothing is counted then.
        """
        if target.shape != mask.shape:
            raise LabelError(
                f"the truth is {target.shape} and the prediction {mask.shape}: predict at the size of the ground truth"
            )
        joint = _joint_histogram(_as_bytes(target, "truth"), _as_bytes(mask, "prediction"))
        if self.ignore_index is not None:
            joint[self.ignore_index] = 0
        if joint[self.num_classes :].any():
            raise self._unknown("truth", np.flatnonzero(joint.sum(axis=1)))
        if joint[:, self.num_classes : VOID].any():
            raise self._unknown("prediction", np.flatnonzero(joint[:, :VOID].sum(axis=0)))
        self.counts += joint[: self.num_classes, : self.num_classes]
        if self.num_classes <= VOID:
            self.void += joint[: self.num_classes, VOID]

    def add(self, other: "ConfusionMatrix") -> None:
        """Add what another matrix of the same classes has counted."""
        if other.num_classes != self.num_classes:
            raise LabelError(f"cannot add a matrix of {other.num_classes} classes to one of {self.num_classes}")
        self.counts += other.counts
        self.void += other.void

    def _unknown(self, what: str, present: npt.NDArray[np.int64]) -> LabelError:
        return LabelError(
            f"the {what} holds class {int(present[-1])}, but there are only classes 0..{self.num_classes - 1}: "
            "check that both use the same label set and ignore index"
        )

    @property
    def truths(self) -> npt.NDArray[np.int64]:
        """Labelled pixels of each class, int64 [C]."""
        return np.asarray(self.counts.sum(axis=1) + self.void)

    @property
    def intersections(self) -> npt.NDArray[np.int64]:
        """Pixels of each class that are right, int64 [C]."""
        return np.diag(self.counts).copy()

    @property
    def unions(self) -> npt.NDArray[np.int64]:
        """Labelled pixels that are of a class or were given it, int64 [C]."""
        return np.asarray(self.truths + self.counts.sum(axis=0) - self.intersections)

    def scores(self) -> Scores:
        """The scores of all that was counted so far."""
        right, truths, unions = self.intersections, self.truths, self.unions
        total = int(truths.sum())
        found, labelled = unions > 0, truths > 0
        iou = np.divide(right, unions, out=np.zeros(self.num_classes), where=found)
        accuracy = np.divide(right, truths, out=np.zeros(self.num_classes), where=labelled)
        return Scores(
            pixel_accuracy=float(right.sum() / total) if total else None,
            mean_accuracy=float(accuracy[labelled].mean()) if total else None,
            mean_iou=float(iou[found].mean()) if total else None,
            frequency_weighted_iou=float((truths * iou).sum() / total) if total else None,
            per_class_iou=_where(found, iou),
            per_class_accuracy=_where(labelled, accuracy),
            pixels=total,
        )


def _joint_histogram(target: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """How often each pair of bytes occurs, int64 [256, 256]: several times faster than counting classes alone."""
    joint = np.zeros(1 << 16, dtype=np.int64)
    truth, predicted = target.ravel(), mask.ravel()
    for start in range(0, truth.size, _PIXELS_AT_ONCE):
        codes = truth[start : start + _PIXELS_AT_ONCE].astype(np.uint16)
        codes <<= 8
        codes |= predicted[start : start + _PIXELS_AT_ONCE]
        joint += np.bincount(codes, minlength=1 << 16)
    return joint.reshape(256, 256)


def _as_bytes(values: npt.NDArray[Any], what: str) -> npt.NDArray[np.uint8]:
    if values.dtype == np.uint8:
        return values
    if values.size and not (values.min() >= 0 and values.max() <= 255):
        strange = values.min() if values.min() < 0 else values.max()
        raise LabelError(f"the {what} holds class {int(strange)}: classes and ignore index are 0..255")
    return values.astype(np.uint8)


def _where(there: npt.NDArray[np.bool_], values: npt.NDArray[np.float64]) -> tuple[float | None, ...]:
    return tuple(float(value) if present else None for value, present in zip(values, there, strict=True))
