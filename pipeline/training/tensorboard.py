"""A run's curves as a TensorBoard event file.

The one thing to know: the file is made anew from the history at every checkpoint. So it has no gap and no overlap where
a run was interrupted, and as its beginning stays what it was, a TensorBoard that is watching reads on.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from fcn_core.training.loop import History
from pipeline.training.records import Measured


def event_file(
    history: History,
    times: Mapping[str, float],
    classes: Sequence[str] = (),
    measured: Mapping[str, Measured] = MappingProxyType({}),
) -> bytes:
    """All points of the curves so far. `times`: when the point of a step came, seconds since the epoch, by step;
    `classes`: names of the classes, whose IoU is a curve each; `measured`: speed and memory, by step.
    """
    from tensorboardX import SummaryWriter

    with tempfile.TemporaryDirectory(prefix="fcn-events-") as folder:
        with SummaryWriter(folder) as writer:
            for step, tag, value in sorted(scalars(history, classes, measured)):
                writer.add_scalar(tag, value, step, times.get(str(step)))
        (file,) = Path(folder).iterdir()
        return file.read_bytes()


def scalars(
    history: History, classes: Sequence[str], measured: Mapping[str, Measured]
) -> Iterator[tuple[int, str, float]]:
    """All points of the curves: step, name of the curve, value."""
    for point in history.losses:
        yield point.step, "train/loss", point.loss
        yield point.step, "train/learning_rate", point.learning_rate
        if point.grad_norm is not None:
            yield point.step, "train/grad_norm", point.grad_norm
        if (found := measured.get(str(point.step))) is not None:
            yield point.step, "train/images_per_second", found.images_per_second
            yield point.step, "train/memory_gib", found.memory_bytes / 2**30
    for validation in history.validations:
        for name in ("mean_iou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou"):
            value = getattr(validation.scores, name)
            if value is not None:
                yield validation.step, f"val/{name}", value
        for name, iou in zip(classes, validation.scores.per_class_iou, strict=False):
            if iou is not None:
                yield validation.step, f"val_iou/{name}", iou
