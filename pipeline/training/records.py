"""The records of a training run, as they are kept: what was planned, how it stands, how it ended."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from fcn_core import Architecture, LabelSet
from fcn_core.metrics import Scores
from fcn_core.models.networks import ArchName
from fcn_core.training.config import TrainConfig

_NAMES_OF_0_1 = {
    "accumulate": "gradient_accumulation_steps",
    "backbone_rate_factor": "backbone_lr_multiplier",
    "bias_rate_factor": "bias_lr_multiplier",
    "clip_norm": "max_grad_norm",
}


class StagePlan(BaseModel):
    """One network to train, and how."""

    model_config = ConfigDict(frozen=True)

    arch: ArchName
    config: TrainConfig

    @field_validator("config", mode="before")
    @classmethod
    def _as_called_today(cls, config: Any) -> Any:
        """Plans that 0.1 wrote are continued, whatever their settings were called."""
        if not isinstance(config, dict):
            return config
        return {_NAMES_OF_0_1.get(name, name): value for name, value in config.items()}


class SplitPlan(BaseModel):
    """A split as it was at the first start: how many examples, and a digest of their names and keys.

    `files` changes when a file is written anew, `content` when pixels or masks are others; None in what 0.1 wrote, and
    `content` where the data was not looked through.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    examples: int
    digest: str
    files: str | None = None
    content: str | None = None


class TrainPlan(BaseModel):
    """What a run's weights follow from. `architecture` is of the last stage."""

    model_config = ConfigDict(frozen=True)

    dataset: str
    mask_coding: str
    labels: LabelSet
    train: SplitPlan
    val: SplitPlan | None
    model: str | None
    model_input: str | None
    architecture: Architecture
    class_balance: str
    validate_every: float
    stages: tuple[StagePlan, ...]


class TrainRun(BaseModel):
    """job.json: the plan, and what was found on the way to it.

    `class_weights` are of `class_balance`; `class_presence`: digest of the table that says which classes each image
    holds, for balanced sampling.
    """

    model_config = ConfigDict(frozen=True)

    plan: TrainPlan
    start_model_id: str
    start_notes: tuple[str, ...]
    class_weights: tuple[float, ...] | None
    class_presence: str | None = None
    created: datetime
    version: str


class TrainRecord(BaseModel):
    """run.json: how a run stands. `step` counts those of all stages; `seconds` are those of training
    steps alone."""

    model_config = ConfigDict(frozen=True)

    state: Literal["running", "finished", "interrupted", "failed"]
    reason: str | None = None
    started: datetime
    updated: datetime
    model_id: str | None = None
    scores: Scores | None = None
    step: int = 0
    seconds: float = 0.0
    lost_output: str | None = None
    """Since when, and why, standard error could not be written: progress and notes from then on are lost."""
    version: str


class Measured(BaseModel):
    """What training took by a point of the curves: images per second of all workers since this start, and the most
    memory that the first worker had at once, in bytes (the GPU's where it uses one)."""

    model_config = ConfigDict(frozen=True)

    images_per_second: float
    memory_bytes: int


class MeasuredSteps(BaseModel):
    """measured.json: by the step of a point of the curves."""

    model_config = ConfigDict(frozen=True)

    steps: dict[str, Measured]


class Checkpoint(BaseModel):
    """A training state as the workers read it. `times` and `measured` are by step; `examples` names the records of
    the steps it stands on."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)

    step: int
    loop: Mapping[str, Any]
    times: Mapping[str, float] = Field(default_factory=dict)
    measured: Mapping[str, Measured] = Field(default_factory=dict)
    examples: tuple[str, ...] = ()
