"""The options of an evaluation, defined once: for the command line, for config files, for flows."""

from pydantic import Field

from fcn_core.options import Options
from pipeline.jobs.dataset import DatasetOptions, DatasetPlace, ReadingOptions
from pipeline.jobs.segment import ActorOptions
from pipeline.storage.uri import Uri


class EvaluatePlaces(DatasetPlace):
    """Which model on which annotated images."""

    model: Uri = Field(
        description="The model: the folder or URI of a bundle, or registry:NAME@champion, or registry:NAME@VERSION."
    )


class ScoringOptions(Options):
    """What is scored, and what becomes of it."""

    split: str = Field(default="val", min_length=1, description="The split to score the model on.")
    output: Uri | None = Field(
        default=None,
        description="Where scores, a row per image and the worst images go: a folder, s3://, gs:// or az://. An "
        "evaluation that is there is replaced. Default: nothing is written.",
    )
    worst: int = Field(default=12, ge=0, le=200, description="How many of the worst images are drawn.")
    allow_errors: bool = Field(
        default=False, description="Leave out examples that are broken, instead of refusing the whole split."
    )
    registry: Uri | None = Field(
        default=None, description="The folder or URI where registry:... models are. Default: FCN_REGISTRY."
    )


class EvaluateOptions(ActorOptions, ReadingOptions, ScoringOptions):
    """Everything about an evaluation but its model and data set, which the command line takes by position."""


class EvaluateJob(EvaluateOptions, EvaluatePlaces):
    """Score `model` on a split of annotated images."""

    def dataset_options(self) -> DatasetOptions:
        """The part that says which images and how they are read."""
        return DatasetOptions.model_validate(self.model_dump(include=set(DatasetOptions.model_fields)))
