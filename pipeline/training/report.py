"""What a training did, for who called it."""

from dataclasses import dataclass
from typing import Literal

from fcn_core.metrics import Scores
from pipeline.numbers import score


@dataclass(frozen=True)
class TrainReport:
    """What a call of `train` did. `steps` and `seconds` are of all stages. `model_uri` is where the best model is,
    once finished; `report_uri`: a page of the training, once there is one; `classes` are those of the scores."""

    state: Literal["finished", "interrupted"]
    name: str
    uri: str
    nothing_to_do: bool
    model_uri: str | None
    model_id: str | None
    scores: Scores | None
    steps: int
    seconds: float
    failures: int
    report_uri: str | None = None
    classes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        iou = score(self.scores.mean_iou) if self.scores is not None else "-"
        return f"<TrainReport {self.name} {self.state}: {self.steps:,} steps, mean IoU {iou}, model {self.model_uri}>"
