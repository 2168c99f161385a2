"""What a person at a terminal sees of a training: a live bar there, a line now and then anywhere else."""

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from fcn_core.metrics import Scores
from fcn_core.text.printable import printable
from pipeline.cli.console import live_or_lines, print_line, shown
from pipeline.cli.live_bar import LiveBar
from pipeline.cli.lost_output import lost_stderr
from pipeline.jobs.dataset import ReadingOptions
from pipeline.jobs.evaluate import EvaluateJob
from pipeline.jobs.train import TrainJob
from pipeline.numbers import duration, score
from pipeline.report.rerun import option_words, quoted
from pipeline.training.observer import TrainObserver
from pipeline.training.progress import TrainProgress
from pipeline.training.report import TrainReport

LINE_SECONDS = 15.0
WIDE = 140
"""Characters from which on a bar's line has room for the learning rate."""


def observe(console: Console) -> AbstractContextManager[TrainObserver]:
    """An observer of a training that suits `console`."""
    return live_or_lines(console, _BarObserver, _LineObserver)


class _TrainingObserver(TrainObserver):
    """What both kinds have in common."""

    def lost_output(self) -> str | None:
        return lost_stderr()


class _LineObserver(_TrainingObserver):
    """key=value lines for logs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._written = 0.0
        self._validated: tuple[str, float | None] = ("", None)

    def phase(self, name: str) -> None:
        print_line(self._console, phase=name)

    def note(self, text: str) -> None:
        print_line(self._console, note=text)

    def progress(self, progress: TrainProgress) -> None:
        validated = (progress.stage, progress.val_mean_iou)
        if progress.loss is None or (
            time.monotonic() - self._written < LINE_SECONDS
            and validated == self._validated
            and progress.step < progress.steps
        ):
            return
        self._written, self._validated = time.monotonic(), validated
        values = {
            "run": progress.name,
            "stage": progress.stage,
            "workers": progress.workers,
            "step": f"{progress.step}/{progress.steps}",
            "epoch": f"{progress.epoch:.2f}",
            "loss": f"{progress.loss:.4f}",
            "learning_rate": f"{progress.learning_rate:.3g}",
            "images_per_s": f"{progress.images_per_second:.2f}",
            "eta_s": f"{progress.eta_seconds:.0f}",
        }
        if progress.val_mean_iou is not None:
            values["val_mean_iou"] = score(progress.val_mean_iou, 4)
            values["best_mean_iou"] = score(progress.best_mean_iou, 4)
        print_line(self._console, **values)


class _BarObserver(LiveBar, _TrainingObserver):
    """A spinner for the phases and a bar for the steps."""

    def __init__(self, console: Console) -> None:
        super().__init__(console, bar_width=12)  # the numbers need the room
        self._validated: tuple[str, float | None] = ("", None)

    def progress(self, progress: TrainProgress) -> None:
        numbers = f"step {progress.step}/{progress.steps}, epoch {progress.epoch:.1f}"
        if progress.loss is not None:
            rate = f"rate {progress.learning_rate:.2g}, " if self._console.width >= WIDE else ""
            numbers += (
                f", loss {progress.loss:.3f}, {rate}{progress.images_per_second:.1f} images/s, "
                f"{duration(progress.eta_seconds or 0)} left"
            )
        self._stay(progress)
        self.show(progress.step, progress.steps, numbers)

    def _stay(self, progress: TrainProgress) -> None:
        """A line above the bar for each validation, which is there when the bar has gone."""
        validated = (progress.stage, progress.val_mean_iou)
        if progress.val_mean_iou is None or validated == self._validated:
            return
        self._validated = validated
        stage = f"{progress.stage}, " if progress.stages > 1 else ""
        loss = "" if progress.loss is None else f", loss {progress.loss:.3f}"
        self._console.print(
            f"{printable(stage)}step {progress.step}, epoch {progress.epoch:.1f}: val mean IoU "
            f"{score(progress.val_mean_iou)} (best {score(progress.best_mean_iou)}){loss}",
            markup=False,
            highlight=False,
        )


def print_report(console: Console, report: TrainReport, job: TrainJob | None = None) -> None:
    """The end of a training: where the model is, how good each class is, and, of a `job`, what to do next."""
    if report.nothing_to_do:
        text = f"nothing to do: run {report.name} is finished, its model is {report.model_uri}"
        console.print(printable(text), markup=False)
    elif report.state == "interrupted":
        console.print(f"stopped at step {report.steps}; the same command resumes", markup=False)
    else:
        console.print(
            f"run [bold]{shown(report.name)}[/] finished: {report.steps} steps in {duration(report.seconds)}"
            + (f", {report.failures} failures survived" if report.failures else "")
        )
        console.print(f"model {report.model_id} is {printable(str(report.model_uri))}", markup=False)
    if report.report_uri is not None:
        console.print(f"report: {printable(report.report_uri)}", markup=False)
    if report.scores is not None and report.scores.mean_iou is not None:
        scores = report.scores
        console.print(f"mean IoU {score(report.scores.mean_iou, 4)}, pixel accuracy {score(scores.pixel_accuracy, 4)}")
        if len(report.classes) == len(scores.per_class_iou):
            console.print(_class_table(report.classes, scores))
    if job is not None and report.state == "finished" and report.model_uri is not None:
        words = " ".join(quoted(_evaluation_of(report.model_uri, job)))
        console.print(printable(f"next: {words}"), markup=False, soft_wrap=True)


def _class_table(classes: Sequence[str], scores: Scores) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("class")
    table.add_column("IoU", justify="right")
    for name, iou in zip(classes, scores.per_class_iou, strict=True):
        table.add_row(shown(name), score(iou))
    return table


def _evaluation_of(model: str, job: TrainJob) -> list[str]:
    """The words of `fcn evaluate` for the trained model, on what it was validated on."""
    words = ["fcn", "evaluate", model, job.dataset]
    for name, value in _set_options(ReadingOptions, job).items():
        words += option_words(name, value)
    if job.val_split not in (None, EvaluateJob.model_fields["split"].default):
        words += option_words("split", job.val_split)
    return words


def _set_options(kind: type[BaseModel], given: BaseModel, prefix: str = "") -> dict[str, Any]:
    """The options of `kind` that have another value than their default, by name; nested ones as `outer.inner`."""
    found: dict[str, Any] = {}
    for name, field in kind.model_fields.items():
        value = getattr(given, name)
        if isinstance(value, BaseModel):
            found |= _set_options(type(value), value, f"{prefix}{name}.")
        elif value != field.get_default(call_default_factory=True):
            found[prefix + name] = value
    return found


def report_json(report: TrainReport) -> dict[str, Any]:
    """The same for machines."""
    return {
        "state": report.state,
        "name": report.name,
        "uri": report.uri,
        "nothing_to_do": report.nothing_to_do,
        "model": report.model_uri,
        "report": report.report_uri,
        "model_id": report.model_id,
        "scores": report.scores.model_dump(mode="json") if report.scores else None,
        "steps": report.steps,
        "seconds": report.seconds,
        "failures": report.failures,
    }
