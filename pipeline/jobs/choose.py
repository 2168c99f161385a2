"""Which images people annotate next, and where their tasks go: the options of the first half of the loop."""

from datetime import datetime
from typing import Literal, Self

from pydantic import Field

from fcn_core.options import Options
from pipeline.jobs.retrain import DATE
from pipeline.storage.uri import Uri


class ChooseJob(Options):
    """Rank an output's images, and write tasks with the model's masks as proposals for an annotation tool."""

    output: Uri = Field(description="The OUTPUT of a segmentation job, whose images are ranked.")
    tasks: Uri = Field(
        description="Where the tasks go: a folder or URI, new or empty. {date} is the day of the scheduled start."
    )
    by: Literal["confidence", "disagreement", "rare"] = Field(
        "confidence", description="What makes an image worth annotating; see `fcn rank`."
    )
    top: int = Field(50, ge=1, le=5000, description="How many images.")
    diverse: bool = Field(True, description="Of the first five times as many, those that are unlike each other.")
    per_folder: int | None = Field(None, ge=1, le=1_000_000, description="At most so many images of one folder.")
    without: Uri | None = Field(
        None, description="A data set, such as DATASET@latest, whose images are annotated already and not chosen."
    )
    format: Literal["label-studio", "cvat"] = Field("label-studio", description="The annotation tool.")
    url_prefix: str | None = Field(
        None,
        description="Where Label Studio will find the tasks' folder: a URL. Default: its local storage, or the bucket.",
    )

    def dated(self, day: datetime) -> Self:
        """The job with `day`, in the time zone it comes in, for {date} in `tasks`: 20261122."""
        return self.model_copy(update={"tasks": self.tasks.replace(DATE, f"{day:%Y%m%d}")})
