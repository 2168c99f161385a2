"""The options of a retraining, defined once: a training job, the registry it publishes to, and what it takes to win."""

from datetime import datetime
from typing import Self

from pydantic import Field, model_validator

from fcn_core.options import Options
from pipeline.jobs.evaluate import EvaluateJob
from pipeline.jobs.segment import ActorOptions, LabelOptions, SegmentJob, SourceAndOutput
from pipeline.jobs.train import TrainJob

DATE = "{date}"


class RelabelJob(ActorOptions, LabelOptions, SourceAndOutput):
    """Which images the new champion labels, and how: a SegmentJob less its model."""

    def with_model(self, model: str, registry: str) -> SegmentJob:
        return SegmentJob(**self.model_dump(), model=model, registry=registry)


class ContestOptions(Options):
    """Against whom a newly trained model stands, on which images, and by how much it has to win."""

    registry_name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="The model's name in the registry: its champion is the one to beat, and is replaced.",
    )
    eval_split: str | None = Field(
        None, description="The split both models are scored on. Default: val_split; a split of its own is fairer."
    )
    margin: float = Field(0.005, ge=0, le=1, description="Minimum gain in mean IoU for a promotion; 0: any gain.")
    class_limit: float = Field(0.05, ge=0, le=1, description="Maximum allowed drop in any class's IoU.")
    min_mean_iou: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Minimum mean IoU for a promotion. Default: a first champion must have more than a model that "
        "gives every pixel the commonest class.",
    )
    relabel: RelabelJob | None = Field(
        None, description="Images that the new champion labels at once: source, output and options of a labelling job."
    )
    evaluation: ActorOptions = Field(
        default_factory=ActorOptions, description="Where both models run when they are scored: device, actors, ..."
    )


class RetrainJob(TrainJob, ContestOptions):
    """Train a challenger, score it and the champion on the same images, and promote it if it is better."""

    name: str = Field(
        pattern=r"^([A-Za-z0-9]|\{date\})([A-Za-z0-9._-]|\{date\}){0,91}$",
        description="The run's name: the same name and the same job resume it. {date} is the day of its scheduled "
        "start, so that a schedule trains anew each time.",
    )

    @model_validator(mode="after")
    def _held_out(self) -> Self:
        if not (self.eval_split or self.val_split):
            raise ValueError("there is nothing to score the models on; give eval_split, or a val_split")
        if self.scored_split == self.train_split:
            raise ValueError(
                f"the challenger is trained on split {self.train_split!r}, so its scores there mean nothing; "
                "give another eval_split"
            )
        return self

    @property
    def scored_split(self) -> str:
        """The split that the contest is held on."""
        return self.eval_split or self.val_split or ""

    def dated(self, day: datetime) -> Self:
        """The job with `day`, in the time zone it comes in, for {date} in its name: 20261122."""
        return self.model_copy(update={"name": self.name.replace(DATE, f"{day:%Y%m%d}")})

    def evaluation_of(self, model: str, registry: str, output: str) -> EvaluateJob:
        """The job that scores `model` on the contest's split."""
        reading = {name: getattr(self, name) for name in ("dataset", "preset", "labels", "mask_coding", "follow_links")}
        cache = {"cache": self.cache, "cache_bytes": self.cache_bytes, "predicted": self.predicted.model_dump()}
        actors = self.evaluation.model_dump() | {"ray_address": self.ray_address}
        return EvaluateJob(
            model=model, registry=registry, split=self.scored_split, output=output, **reading, **cache, **actors
        )
