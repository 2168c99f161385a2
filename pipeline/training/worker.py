"""What each worker of a training run does: go on from the newest checkpoint, and keep what the loop makes.

The one thing to know: a worker gets no history from its driver. At every start of the worker group (the first,
one after a death, one of another size) the first worker looks for the newest checkpoint in the run's own store, and all
go on from there. Ray is only asked to start processes that can talk to each other.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist

from fcn_core import ModelBundle
from fcn_core.data.class_pixels import ClassPresence
from fcn_core.data.datasets import Dataset
from fcn_core.render import SheetTile
from fcn_core.training.config import LoopPlan, TrainConfig
from fcn_core.training.loop import History, TrainingLoop, ValidationPoint
from fcn_core.training.trainer import StepReport, Trainer
from pipeline.outputs.runs import ProgressWriter
from pipeline.storage.opening import open_store
from pipeline.training.curves import Curves
from pipeline.training.memory import peak_memory
from pipeline.training.page import TrainingPage, training_page, validation_sheet
from pipeline.training.progress import TrainProgress, WorkerOutcome, now
from pipeline.training.records import Checkpoint, Measured
from pipeline.training.store import TrainStore
from pipeline.training.tensorboard import event_file

TELL_SECONDS = 0.5
"""How often the first worker reports its progress to the driver, and learns whether to stop."""

_GPU_STEPS_A_CHECK = 8
"""Agreeing to stop makes a GPU wait for its own work, so it is not done at every step there."""


class LeaderHandle(Protocol):
    """Whom the first worker reports to."""

    def report_progress(self, progress: TrainProgress) -> bool:
        """How far the run is; returns whether the run goes on. False as well when nobody is there any more."""


@dataclass(frozen=True)
class TrainWorkerSpec:
    """All that a worker needs to know. Holds URIs, never credentials: each node finds its own."""

    name: str
    run_uri: str
    stage: str
    stage_number: int
    stages: int
    train_set: Dataset
    val_set: Dataset | None
    config: TrainConfig
    plan: LoopPlan
    threads: int
    record_examples: bool
    presence: ClassPresence | None = None


class _StopRequested(Exception):
    """All workers have agreed to stop after this step."""


def train_stage(spec: TrainWorkerSpec, leader: LeaderHandle) -> WorkerOutcome:
    """Train one stage from where it stands to its end, or until it is asked to stop; the function that Ray Train runs.

    Every worker of the group calls it, with torch.distributed initialised. Raises FcnError for what cannot be trained.
    """
    torch.set_num_threads(spec.threads)
    store = TrainStore(open_store(spec.run_uri))
    start = store.load_start()
    trainer = Trainer(start.build(), spec.train_set, spec.config, start.normalization, spec.presence)
    keeper = _RunKeeper(spec, store, trainer, leader)
    loop = TrainingLoop(trainer, spec.val_set, spec.plan, keeper)
    keeper.loop = loop
    checkpoint = _agreed_checkpoint(store, trainer)
    if checkpoint is not None:
        loop.load_state_dict(checkpoint.loop)
        keeper.resume(checkpoint)
    try:
        keeper.begin()
        loop.run()
        finished = True
    except _StopRequested:
        finished = False
    finally:
        keeper.close()
    if trainer.rank == 0:
        keeper.save_curves()  # a group that died between its last checkpoint and its curves left old ones
    return WorkerOutcome(finished=finished, step=trainer.step, seconds=trainer.seconds)


def _agreed_checkpoint(store: TrainStore, trainer: Trainer) -> Checkpoint | None:
    """The checkpoint that all workers go on from: the newest that the first worker finds."""
    checkpoint = store.newest_checkpoint() if trainer.rank == 0 else None
    if trainer.world == 1:
        return checkpoint
    step = torch.tensor(checkpoint.step if checkpoint else -1, device=trainer.device)
    dist.broadcast(step, src=0)
    if trainer.rank == 0:
        return checkpoint
    return store.load_checkpoint(int(step)) if int(step) >= 0 else None


class _RunKeeper:
    """The loop's keeper: checkpoints and best models go to the run's store, progress to the driver."""

    loop: TrainingLoop

    def __init__(self, spec: TrainWorkerSpec, store: TrainStore, trainer: Trainer, leader: LeaderHandle) -> None:
        self._spec = spec
        self._store = store
        self._trainer = trainer
        self._leader = leader
        self._times: dict[str, float] = {}
        self._measured: dict[str, Measured] = {}
        self._sheet: tuple[int, bytes] | None = None
        self._saved_step = 0
        self._saved_best: int | None = None
        self._seen: dict[int, tuple[str, ...]] = {}
        self._records: list[str] = []
        self._told = 0.0
        self._going_on = True
        self._writer = ProgressWriter(store.store, "progress.json") if trainer.rank == 0 else None

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint that is loaded into the loop."""
        self._times = dict(checkpoint.times)
        self._measured = dict(checkpoint.measured)
        self._sheet = self._store.newest_sheet() if self._trainer.rank == 0 else None
        self._records = list(checkpoint.examples)
        self._saved_step = checkpoint.step
        best = self.loop.history.best
        self._saved_best = best.step if best else None

    def begin(self) -> None:
        """Say that the workers are up."""
        if self._trainer.rank == 0:
            self._report(self._progress(None))

    def report(self, report: StepReport, history: History) -> None:
        last = report.progress >= 1
        if last and self._trainer.rank == 0:
            self._report(self._progress(report))
        stop = not last and self._stop_is_agreed(report)
        if self._trainer.rank == 0:
            self._note_point(report, history)
        if self._spec.record_examples:
            self._seen[report.step] = report.names
            if last or stop or report.step % self._spec.plan.save_every == 0:
                self._record_examples(report.step)
        if stop:
            if self._trainer.rank == 0:
                self._save_here(report.step, history)
            raise _StopRequested

    def validated(self, point: ValidationPoint, tiles: Sequence[SheetTile]) -> None:
        if not tiles:
            return
        self._sheet = (point.step, validation_sheet(tiles, self._trainer.dataset.labels, point.step))
        self._store.save_sheet(*self._sheet)
        self._save_page()

    def best(self, bundle: ModelBundle) -> None:
        self._store.save_best(self._trainer.step, bundle)

    def checkpoint(self, step: int, state: Mapping[str, Any]) -> None:
        history = self.loop.history
        self._store.save_checkpoint(
            Checkpoint(
                step=step,
                loop=state,
                times=self._times,
                measured=self._measured,
                examples=tuple(self._records),
            )
        )
        # The two checkpoints that are kept each need the model that was best by then.
        best = history.best.step if history.best else None
        self._store.drop_bests_but(found for found in (best, self._saved_best) if found is not None)
        self._saved_step, self._saved_best = step, best
        self.save_curves()

    def save_curves(self) -> None:
        """The curves as they are now, for people and for TensorBoard."""
        classes = self._trainer.dataset.labels.names
        self._store.save_history(self.loop.history)
        self._store.save_measured(self._measured)
        self._store.save_events(event_file(self.loop.history, self._times, classes, self._measured))
        self._save_page()

    def _save_page(self) -> None:
        spec = self._spec
        page = TrainingPage(
            name=spec.name,
            stages={spec.stage: Curves(self.loop.history, self._measured)},
            labels=self._trainer.dataset.labels,
            settings=spec.config.model_dump(mode="json"),
            sheet=self._sheet,
        )
        self._store.save_page(training_page(page))

    def close(self) -> None:
        """Write the last progress."""
        if self._writer is not None:
            self._writer.close()

    def _save_here(self, step: int, history: History) -> None:
        """What the loop itself would save after this step, had it been due."""
        best = history.best
        if best is not None and best.step == step:
            self.best(self._trainer.bundle(best.scores))
        self.checkpoint(step, self.loop.state_dict())

    def _stop_is_agreed(self, report: StepReport) -> bool:
        """Whether all workers stop after this step; the first one says so."""
        trainer = self._trainer
        if trainer.rank == 0 and time.monotonic() - self._told >= TELL_SECONDS:
            self._report(self._progress(report))
        if trainer.world == 1:
            return not self._going_on
        if trainer.device.type == "cuda" and report.step % _GPU_STEPS_A_CHECK:
            return False
        flag = torch.tensor(int(self._going_on), device=trainer.device)
        dist.broadcast(flag, src=0)
        return not int(flag)

    def _report(self, progress: TrainProgress) -> None:
        self._told = time.monotonic()
        self._going_on = self._leader.report_progress(progress)
        if self._writer is not None:
            self._writer.update(progress)

    def _progress(self, report: StepReport | None) -> TrainProgress:
        trainer, history = self._trainer, self.loop.history
        latest = history.validations[-1].scores.mean_iou if history.validations else None
        return TrainProgress(
            name=self._spec.name,
            stage=self._spec.stage,
            stage_number=self._spec.stage_number,
            stages=self._spec.stages,
            workers=trainer.world,
            step=trainer.step,
            steps=trainer.steps,
            epoch=trainer.epoch,
            loss=report.loss if report else None,
            learning_rate=report.learning_rate if report else None,
            images_per_second=report.images_per_second if report else None,
            eta_seconds=report.eta_seconds if report else None,
            val_mean_iou=latest,
            best_mean_iou=history.best.scores.mean_iou if history.best else None,
            updated=now(),
        )

    def _note_point(self, report: StepReport, history: History) -> None:
        """When the points of the curves came, which TensorBoard wants to know, and what they took."""
        step = str(report.step)
        logged, validated = (bool(c and c[-1].step == report.step) for c in (history.losses, history.validations))
        if logged or validated:
            self._times[step] = round(time.time(), 3)
        if logged:
            memory = peak_memory(self._trainer.device)
            self._measured[step] = Measured(images_per_second=report.images_per_second, memory_bytes=memory)

    def _record_examples(self, step: int) -> None:
        """What this worker saw since the last checkpoint. All have written theirs before the next one is committed."""
        trainer = self._trainer
        folder = f"examples/{self._saved_step + 1:08d}-{step:08d}-of-{trainer.world}"
        content = json.dumps({str(seen): names for seen, names in self._seen.items()}, ensure_ascii=False)
        self._store.store.put(f"{folder}/worker-{trainer.rank}.json", content.encode())
        self._seen.clear()
        self._records.append(folder)
        if trainer.world > 1:
            dist.barrier()
        if trainer.rank != 0:
            self._saved_step = step
