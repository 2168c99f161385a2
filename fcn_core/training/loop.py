"""A whole training run around a Trainer: validation now and then, the best model, the history, and when to save.

The one thing to know: where things are kept is not decided here. A `Keeper` gets checkpoints, the best model and
reports; the loop's state is the trainer's plus its history, so a run that goes on from a checkpoint has one history
without a gap or an overlap. Where torch.distributed is initialised every process runs the loop alike, and only the
first one's keeper is given anything but reports.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
import torch.distributed as dist
from pydantic import BaseModel, ConfigDict

from fcn_core.bundle import ModelBundle
from fcn_core.data.datasets import Dataset
from fcn_core.errors import DivergedError, PredictionError
from fcn_core.inference.evaluation import check_classes, confusion
from fcn_core.inference.predictor import Predictor
from fcn_core.inference.settings import resolve_settings
from fcn_core.metrics import Scores
from fcn_core.render import SheetTile, shrink
from fcn_core.training.config import LoopPlan
from fcn_core.training.trainer import StepReport, Trainer

SHOWN = 6
"""Images of the validation split that are shown, at most."""

SHOWN_SIDE = 440
"""Their longest side, in pixels."""


class LossPoint(BaseModel):
    """Training since the last such point: mean loss and mean norm of the gradient of the steps in between.

    `grad_norm` is of the gradient before it is clipped; None in histories of version 0.1, and where one was infinite,
    as float16 has it now and then.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    epoch: float
    loss: float
    learning_rate: float
    grad_norm: float | None = None


class ValidationPoint(BaseModel):
    """Scores on the validation split after `step` steps."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    epoch: float
    scores: Scores


class History(BaseModel):
    """The curve of a run, from its first step."""

    model_config = ConfigDict(extra="forbid")

    losses: list[LossPoint] = []
    validations: list[ValidationPoint] = []

    @property
    def best(self) -> ValidationPoint | None:
        """The validation with the highest mean IoU, the earliest of equals."""
        scored = [point for point in self.validations if point.scores.mean_iou is not None]
        return max(scored, key=lambda point: (point.scores.mean_iou, -point.step), default=None)


class Keeper(Protocol):
    """Who keeps what a run makes. Called from the loop, between steps; the clock does not run meanwhile."""

    def report(self, report: StepReport, history: History) -> None:
        """A step is done, and validated if it was due."""

    def validated(self, point: ValidationPoint, tiles: Sequence[SheetTile]) -> None:
        """The model was scored. `tiles`: what it makes of a few images of the split, beside their truth, shrunk to
        SHOWN_SIDE; the same images each time."""

    def best(self, bundle: ModelBundle) -> None:
        """The best model so far, with its scores. Called before the checkpoint of the same step."""

    def checkpoint(self, step: int, state: Mapping[str, Any]) -> None:
        """All that a run needs to go on. Its tensors change with the next step: save or copy them now."""


class TrainingLoop:
    """Runs a trainer to its end. Without a validation set, or one with labelled pixels, the last model is the best."""

    def __init__(self, trainer: Trainer, validation: Dataset | None, plan: LoopPlan, keeper: Keeper) -> None:
        self.trainer = trainer
        self.validation = validation
        self.plan = plan
        self.keeper = keeper
        self.history = History()
        self._unlogged: list[float] = []
        self._unlogged_norms: list[float] = []
        per_epoch = len(trainer.dataset) / trainer.config.batch_size
        self._validate_steps = max(1.0, plan.validate_every * per_epoch)
        """Steps between validations, which may be no whole number: rounded, the last would come just before the end."""
        if validation is not None:
            check_classes(trainer.bundle(), validation)

    def run(self) -> History:
        """Take all steps that are left; returns the whole history."""
        for report in self.trainer.run():
            last = report.progress >= 1
            self._log_loss(report, last)
            validates = last or (self.validation is not None and self._is_due(report.step))
            if validates or report.step % self.plan.save_every == 0:
                self.trainer.check_weights()
            improved = validates and self._judge(report)
            improved = improved or (last and self.history.best is None)  # nothing in the split is labelled
            self.keeper.report(report, self.history)
            if self.trainer.rank == 0:
                if improved:
                    point = self.history.best
                    self.keeper.best(self.trainer.bundle(point.scores if point else None))
                if last or report.step % self.plan.save_every == 0:
                    self.keeper.checkpoint(report.step, self.state_dict())
        return self.history

    def _is_due(self, step: int) -> bool:
        """Whether a validation's turn came with this step; the same after a resume."""
        before, now = (int(each / self._validate_steps + 1e-9) for each in (step - 1, step))
        return now > before

    def state_dict(self) -> dict[str, Any]:
        """The trainer's state and the history."""
        return {
            "trainer": self.trainer.state_dict(),
            "history": self.history.model_dump(mode="json"),
            "unlogged": list(self._unlogged),
            "unlogged_norms": [norm if math.isfinite(norm) else None for norm in self._unlogged_norms],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.trainer.load_state_dict(state["trainer"])
        self.history = History.model_validate(state["history"])
        self._unlogged = list(state["unlogged"])
        norms = state.get("unlogged_norms") or [None] * len(self._unlogged)  # version 0.1 kept none
        self._unlogged_norms = [math.nan if norm is None else norm for norm in norms]

    def _log_loss(self, report: StepReport, last: bool) -> None:
        self._unlogged.append(report.loss)
        self._unlogged_norms.append(report.grad_norm)
        if last or report.step % self.plan.log_every == 0:
            mean = sum(self._unlogged) / len(self._unlogged)
            norm = sum(self._unlogged_norms) / len(self._unlogged_norms)
            point = LossPoint(
                step=report.step,
                epoch=report.epoch,
                loss=mean,
                learning_rate=report.learning_rate,
                grad_norm=norm if math.isfinite(norm) else None,
            )
            self.history.losses.append(point)
            self._unlogged.clear()
            self._unlogged_norms.clear()

    def _judge(self, report: StepReport) -> bool:
        """Whether the model is the best so far. Raises DivergedError where it has no finite scores."""
        self.trainer.share_buffers()
        try:
            if self.validation is not None:
                return self._validate(self.validation, report)
            if self.trainer.rank == 0:
                self._predictor().predict([self.trainer.dataset[0].image])  # a model without scores is of no use
            return True
        except PredictionError as error:
            raise DivergedError(
                f"the model is ruined after step {report.step} ({error}); lower the learning rate"
            ) from error

    def _predictor(self) -> Predictor:
        trainer = self.trainer
        settings = resolve_settings(
            device=trainer.config.device,
            precision="auto" if trainer.precision == "bfloat16" else "float32",
            threads=torch.get_num_threads(),
            engine="torch",  # each score is of new weights, which another engine would have to compile first
        )
        return Predictor(trainer.bundle(), settings)

    def _validate(self, validation: Dataset, report: StepReport) -> bool:
        """Score the model on the validation split, shared among all workers; whether it is the best so far."""
        trainer = self.trainer
        mine = range(trainer.rank, len(validation), trainer.world)
        predictor = self._predictor()
        matrix = confusion(predictor, validation, mine)
        if trainer.world > 1:
            counts = torch.from_numpy(matrix.counts).to(trainer.device)
            dist.all_reduce(counts)
            matrix.counts = counts.cpu().numpy()
        point = ValidationPoint(step=report.step, epoch=report.epoch, scores=matrix.scores())
        self.history.validations.append(point)
        if trainer.rank == 0:
            self.keeper.validated(point, _shown(predictor, validation))
        return self.history.best is point


def _shown(predictor: Predictor, validation: Dataset) -> list[SheetTile]:
    """Images from all over the split, one at a time: full-size pictures are not kept."""
    tiles = []
    for index in sorted({at * len(validation) // SHOWN for at in range(SHOWN)} if len(validation) else ()):
        example = validation[index]
        (predicted,) = predictor.predict([example.image])
        tiles.append(shrink(SheetTile(example.name, example.image, predicted.mask, truth=example.mask), SHOWN_SIDE))
    return tiles
