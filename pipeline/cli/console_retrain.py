"""What a person at a terminal sees of a retraining: a live bar there, periodic lines elsewhere, and the verdict."""

import time
from contextlib import AbstractContextManager
from typing import Any

from rich.console import Console
from rich.table import Table

from fcn_core.text.printable import printable
from pipeline.cli import console as segmentation
from pipeline.cli.console import live_or_lines, print_line, shown
from pipeline.cli.live_bar import LiveBar
from pipeline.cli.lost_output import lost_stderr
from pipeline.numbers import score
from pipeline.retraining.contest import Contest
from pipeline.retraining.job import RetrainReport
from pipeline.retraining.observer import RetrainObserver

LINE_SECONDS = 15.0

_WHOLE = 1000


def observe(console: Console) -> AbstractContextManager[RetrainObserver]:
    """An observer of a retraining that suits `console`."""
    return live_or_lines(console, _BarObserver, _LineObserver)


class _RetrainingObserver(RetrainObserver):
    """What both kinds have in common."""

    def lost_output(self) -> str | None:
        return lost_stderr()


class _LineObserver(_RetrainingObserver):
    """key=value lines for logs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._written = float("-inf")
        self._told = ""

    def note(self, text: str) -> None:
        print_line(self._console, note=text)

    def progress(self, share: float | None, text: str) -> None:
        if share is None:
            print_line(self._console, phase=text)
        elif text != self._told and (time.monotonic() - self._written >= LINE_SECONDS or share == 1):
            self._written, self._told = time.monotonic(), text
            print_line(self._console, progress=text)

    def judged(self, contest: Contest) -> None:
        print_line(self._console, verdict=contest.verdict.reason)


class _BarObserver(LiveBar, _RetrainingObserver):
    """A spinner for the phases and a bar for what has a measure."""

    def __init__(self, console: Console) -> None:
        super().__init__(console, bar_width=20)  # the numbers need the room

    def progress(self, share: float | None, text: str) -> None:
        if share is None:
            self.phase(text)
        else:
            self.show(round(share * _WHOLE), _WHOLE, shown(text))

    def judged(self, contest: Contest) -> None:
        self.note(contest.verdict.reason)


def print_report(console: Console, report: RetrainReport) -> None:
    """The verdict, the IoU of each class for both models, and where the models are."""
    contest = report.contest
    table = Table()
    table.add_column("class")
    for title in ("champion", "challenger", "difference"):
        table.add_column(title, justify="right")
    for row in contest.verdict.rows:
        difference = "-" if row.difference is None else f"{row.difference:+.4f}"
        table.add_row(shown(row.name), score(row.champion), score(row.challenger), difference)
    console.print(table)
    again = "already promoted" if report.promotion is not None else "not promoted"
    console.print(printable(f"{'promoted' if report.promoted else again}: {contest.verdict.reason}"), markup=False)
    version = f"registry:{report.registry_name}@{contest.version}"
    if report.promotion is not None:
        version += f", champion by promotion {report.promotion}"
    console.print(printable(f"run {report.trained.uri} is {version}"), markup=False)
    if report.relabelled is not None and report.relabelling is not None:
        segmentation.print_report(console, report.relabelled, report.relabelling.output)


def report_json(report: RetrainReport) -> dict[str, Any]:
    """The same for machines. Scores are 0..1."""
    verdict, relabelled = report.contest.verdict, None
    if report.relabelled is not None and report.relabelling is not None:
        relabelled = segmentation.report_json(report.relabelled, report.relabelling.output)
    return {
        "run": report.trained.uri,
        "registry": report.registry,
        "registry_name": report.registry_name,
        "version": report.contest.version,
        "promoted": report.promoted,
        "promotion": report.promotion,
        "reason": verdict.reason,
        "mean_iou": verdict.challenger,
        "champion_mean_iou": verdict.champion,
        "relabelled": relabelled,
    }
