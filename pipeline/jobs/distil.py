"""The options of a distillation, defined once: a teacher, a source to sample, and the student to train.

The one thing to know: `student` has the options of a training job, less those that the distillation decides: its data
set is what the teacher predicts of the sample.
"""

from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, ValidationError, field_serializer, model_validator

from fcn_core.options import Options
from pipeline.jobs.affects import DRIVER
from pipeline.jobs.dataset import DatasetOptions, PredictedOptions
from pipeline.jobs.evaluate import EvaluateJob
from pipeline.jobs.segment import ActorOptions, Globs, SegmentJob
from pipeline.jobs.train import TrainJob, optional
from pipeline.storage.uri import Uri

DECIDED = frozenset(
    {
        "name", "output", "dataset", "train_split", "val_split", "preset", "labels", "mask_coding", "predicted",
        "follow_links", "registry", "ray_address", "takeover",
    }
)  # fmt: skip
"""Options of a training job that a distillation sets itself."""

TRAIN, VAL = "train", "val"

if TYPE_CHECKING:
    StudentOptions = Options
else:
    StudentOptions = optional(TrainJob, leave_out=DECIDED)


class TeachingOptions(ActorOptions):
    """How the teacher segments the sample: where it runs, and when it is sure enough."""

    void_below: float = Field(
        default=0.5,
        ge=0,
        lt=1,
        description="Pixels whose largest softmax probability is lower teach nothing: they are void (255).",
    )
    max_side: int | None = Field(
        default=None,
        ge=32,
        le=1_000_000,
        description="Longest side of an image as the teacher sees it, in pixels. Default: no limit.",
    )


class TruthOptions(DatasetOptions):
    """Annotated images on which student and teacher are scored, too."""

    split: str = Field(default=VAL, min_length=1, description="The split to score on.")


class DistilJob(Options):
    """Train a small network on a large one's predictions for a sample, score it, and publish it to the registry."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,91}$",
        description="The distillation's name: the same name and the same job resume it.",
    )
    teacher: Uri = Field(
        description="The model to learn from: the folder or URI of a bundle, or registry:NAME@champion, or "
        "registry:NAME@VERSION."
    )
    source: Uri = Field(description="The images to sample: a folder, s3://, gs:// or az://.")
    output: Uri = Field(
        description="Where everything is kept, below OUTPUT/NAME: a folder, s3://, gs:// or az://. Not inside the "
        "source."
    )
    registry: Uri | None = Field(None, description="Where the student is published. Default: FCN_REGISTRY.")
    registry_name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", description="The student's name in the registry."
    )
    sample: int = Field(
        2000, ge=10, le=100_000_000, description="Images to sample, from every folder in proportion to its images."
    )
    include: Globs = Field((), description="Only keys that match one of these globs. Default: files named like images.")
    exclude: Globs = Field((), description="Skip keys that match one of these globs.")
    follow_links: bool = Field(
        False, description="Also read the targets of links that lead out of a local SOURCE. Default: they are skipped."
    )
    teaching: TeachingOptions = Field(
        default_factory=TeachingOptions, description="How the teacher segments the sample: device, void_below, ..."
    )
    predicted: PredictedOptions = Field(
        default_factory=PredictedOptions,
        description="Which of its predictions to train on, and the share of split val.",
    )
    student: StudentOptions = Field(
        default_factory=StudentOptions, description="What to train, as in a training job: backbone, model, train, ..."
    )
    truth: TruthOptions | None = Field(
        None, description="Annotated images of the teacher's classes, to score student and teacher on, too."
    )
    evaluation: ActorOptions = Field(
        default_factory=ActorOptions, description="Where models run when they are scored: device, actors, ..."
    )
    quantize: bool = Field(False, description="Also make an int8 student, score it and publish it.")
    ray_address: Annotated[str | None, DRIVER] = Field(
        None,
        description="A Ray cluster to use; local: a new one of this process. Default: RAY_ADDRESS, else local, if the "
        "job needs a Ray.",
    )

    @field_serializer("student")
    def _only_what_was_given(self, student: StudentOptions) -> dict[str, Any]:
        """A job that is written down and read again is the same job."""
        return student.model_dump(exclude_unset=True)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.predicted.val_share:
            raise ValueError("predicted.val_share is 0, so there is nothing to score the student on; give a share")
        try:
            self.training_on("output:/predictions", "labels.json", self.output)
        except ValidationError as error:
            first = error.errors()[0]
            option = ".".join(["student", *(str(part) for part in first["loc"])])
            raise ValueError(f"{option}: {first['msg'].removeprefix('Value error, ')}") from None
        return self

    def teaching_on(self, keys: str | None, output: str) -> SegmentJob:
        """The job in which the teacher segments the images of a key list; of None those that are sampled from."""
        options = self.teaching.model_dump() | {"ray_address": self.ray_address}
        return SegmentJob(
            source=self.source, output=output, model=self.teacher, registry=self.registry, key_list=keys,
            include=self.include, exclude=self.exclude, follow_links=self.follow_links, **options,
        )  # fmt: skip

    def training_on(self, dataset: str, labels: str, output: str) -> TrainJob:
        """The job that trains the student, as `output`/student."""
        return TrainJob.model_validate(
            self.student.model_dump(exclude_unset=True)
            | {
                "name": "student", "output": output, "dataset": dataset, "labels": labels, "train_split": TRAIN,
                "val_split": VAL, "predicted": self.predicted, "follow_links": self.follow_links,
                "registry": self.registry, "ray_address": self.ray_address,
            }
        )  # fmt: skip

    def scoring_of(self, model: str, data: DatasetOptions, split: str, output: str) -> EvaluateJob:
        """The job that scores a model on a split."""
        actors = self.evaluation.model_dump() | {"ray_address": self.ray_address}
        return EvaluateJob(
            **data.model_dump(include=set(DatasetOptions.model_fields)),
            **actors,
            model=model,
            registry=self.registry,
            split=split,
            output=output,
        )

    def agreement_on(self, dataset: str, labels: str) -> DatasetOptions:
        """The teacher's predictions, to score the student against."""
        return DatasetOptions(dataset=dataset, labels=labels, predicted=self.predicted, follow_links=self.follow_links)
