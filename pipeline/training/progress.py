"""The messages between the processes of a training. Imports nothing heavy: some of them do without torchvision."""

from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict


class TrainProgress(BaseModel):
    """progress.json: how far a run is, as of `updated`. `val_mean_iou` is the latest, `best_mean_iou` the best."""

    model_config = ConfigDict(frozen=True)

    name: str
    stage: str
    stage_number: int
    stages: int
    workers: int
    step: int
    steps: int
    epoch: float
    loss: float | None = None
    learning_rate: float | None = None
    images_per_second: float | None = None
    eta_seconds: float | None = None
    val_mean_iou: float | None = None
    best_mean_iou: float | None = None
    updated: datetime


class WorkerOutcome(BaseModel):
    """How the training of a stage, or of several, ended: by itself, or on request. `seconds` are those of its steps."""

    model_config = ConfigDict(frozen=True)

    finished: bool
    step: int
    seconds: float

    def then(self, next_stage: "WorkerOutcome") -> "WorkerOutcome":
        """Of this and the stage after it together."""
        return WorkerOutcome(
            finished=next_stage.finished, step=self.step + next_stage.step, seconds=self.seconds + next_stage.seconds
        )


def now() -> datetime:
    return datetime.now(UTC)
