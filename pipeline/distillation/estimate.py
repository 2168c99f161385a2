"""What a distillation would cost, and what the teacher would on everything: `fcn distil --dry-run`.

The one thing to know: both ways are foreseen as `fcn segment --dry-run` foresees a job, with ten images of the source
sent through each network on this machine. What the training takes is not tried: it is counted in passes over images, of
which one takes as long as PASSES predictions.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from fcn_core import Architecture, ModelBundle
from fcn_core.labels import LabelSet
from fcn_core.models.networks import network_spec
from pipeline.distillation.records import PREDICTIONS
from pipeline.errors import InputError
from pipeline.jobs.distil import DistilJob
from pipeline.jobs.train import TrainJob
from pipeline.models.load import open_model
from pipeline.segmentation.estimate import Estimate, estimate
from pipeline.segmentation.prices import Prices, RunCost, cost_of, read_prices
from pipeline.storage.opening import open_store
from pipeline.training.plan import is_weight_file

PASSES = 4
"""Predictions that training on an image takes as long as: its forward pass, twice as much backward, and the loss."""

_SHAPE = ("backbone", "width", "head_width", "upsampling", "dropout")


@dataclass(frozen=True)
class Part:
    """A part of the second way: so many images, and what they would take and cost. `seconds` is None where no image
    could be sent through."""

    images: int
    seconds: float | None
    cost: RunCost


@dataclass(frozen=True)
class DistilEstimate:
    """Two ways to the masks of a source: `teacher` on all of it; or the teacher on a `sample`, `training`, and the
    `student` on all."""

    teacher: Estimate
    sample: Part
    training: Part
    student: Estimate

    @property
    def teacher_cost(self) -> float | None:
        """Of the first way, but for storage; None where its time is not known."""
        return self.teacher.cost.once

    @property
    def student_cost(self) -> float | None:
        """Of the second way."""
        return _sum(self.sample.cost.once, self.training.cost.once, self.student.cost.once)

    @property
    def teacher_seconds(self) -> float | None:
        """Of the first way, with as many actors as there are."""
        return self.teacher.seconds

    @property
    def student_seconds(self) -> float | None:
        """Of the second way."""
        return _sum(self.sample.seconds, self.training.seconds, self.student.seconds)


def estimate_distillation(
    job: DistilJob, prices: Prices | None = None, on_phase: Callable[[str], None] = lambda name: None
) -> DistilEstimate:
    """Foresee both ways. Writes nothing under the job's output.

    `prices` are by default those that come with the program. Raises what `segment` raises before any work.
    """
    prices = prices or read_prices()
    teacher = open_model(job.teacher, job.registry)
    # A place of its own, so that what was segmented before does not count as done.
    place = open_store(job.output).at(job.name).at("estimate").uri
    everything = job.teaching_on(None, place)
    on_phase("foreseeing the teacher")
    of_teacher = estimate(everything, prices, on_phase)
    if not of_teacher.images:
        raise InputError(f"source {job.source} has no image that include and exclude let through")
    with _untrained_student(job, teacher.bundle.labels) as student:
        on_phase("foreseeing the student")
        labelling = everything.model_copy(update={"model": student, "void_below": 0.0, "max_side": None})
        of_student = estimate(labelling, prices, on_phase)
    sample = _sample(min(job.sample, of_teacher.images), of_teacher, prices)
    return DistilEstimate(of_teacher, sample, _training(job, sample.images, of_student, prices), of_student)


def _sample(images: int, teacher: Estimate, prices: Prices) -> Part:
    """The teacher on so many images, by what it takes for all."""
    share = images / teacher.images
    seconds = None if teacher.seconds is None else share * teacher.seconds
    asked = {kind: round(share * getattr(teacher.requests, kind)) for kind in ("get", "put")}
    asked["list"] = teacher.requests.list  # to know what there is to sample
    written = round(share * (teacher.written_bytes or 0))
    actors, cpus, gpus = teacher.actors, teacher.cpus_per_actor, teacher.gpus_per_actor
    return Part(images, seconds, cost_of(prices, asked, written, seconds, actors, cpus, gpus))


@contextmanager
def _untrained_student(job: DistilJob, labels: LabelSet) -> Iterator[str]:
    """The folder of a bundle of the student's shape."""
    student = job.training_on(f"output:/{PREDICTIONS}", "labels.json", job.output)
    with tempfile.TemporaryDirectory(prefix="fcn-student-") as folder:
        _new_bundle(student, labels, job.registry).save(Path(folder) / "model")
        yield str(Path(folder) / "model")


def _new_bundle(student: TrainJob, labels: LabelSet, registry: str | None) -> ModelBundle:
    start = student.model
    if start is not None and not is_weight_file(start):
        own = open_model(start, registry).bundle.network_architecture.model_dump()
    else:
        own = {"arch": "fcn8s"}
    given = {name: value for name in ("arch", *_SHAPE) if (value := getattr(student, name)) is not None}
    architecture = Architecture.model_validate(own | {"num_classes": labels.num_classes} | given)
    return ModelBundle.new(architecture, labels, network_spec(architecture.arch).normalization, seed=0)


def _training(job: DistilJob, sampled: int, student: Estimate, prices: Prices) -> Part:
    described = job.training_on(f"output:/{PREDICTIONS}", "labels.json", job.output)
    trained_on = round(sampled * (1 - job.predicted.val_share))
    images = 0
    for stage in described.stages(described.arch or "fcn8s"):
        config = described.train_config(stage)
        images += config.steps * config.batch_size if config.steps else round((config.epochs or 30) * trained_on)
    rate = student.images_per_second
    seconds = PASSES * images * student.actors / rate if rate else None
    cost = cost_of(prices, {}, 0, seconds, 1, student.cpus_per_actor, student.gpus_per_actor)
    return Part(images, seconds, cost)


def _sum(*values: float | None) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None
