"""What a person at a terminal sees of a job: a live progress bar there, one line per shard anywhere else.

Everything goes to standard error; standard output is for results.
"""

import contextlib
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from decimal import Decimal
from typing import Any, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fcn_core.text.printable import printable
from pipeline.actors.observer import Observer
from pipeline.actors.outcome import ShardOutcome
from pipeline.cli.live_bar import LiveBar
from pipeline.cli.log_format import is_json, json_line, stamp
from pipeline.cli.lost_output import lost_stderr
from pipeline.cli.terminal import Screen
from pipeline.logfmt import key_values
from pipeline.numbers import count, counted, duration, fixed, percent
from pipeline.outputs.pulse import Pulse
from pipeline.outputs.results import ClassTotal
from pipeline.outputs.runs import Counts, Progress, RunRecord
from pipeline.segmentation.run_report import RunReport
from pipeline.segmentation.selection import suffixes_text, ways_to_take

Seen = TypeVar("Seen")


def stderr_console() -> Console:
    return Screen(stderr=True, soft_wrap=True)


def shown(text: object) -> str:
    """Text from outside as Rich markup that shows it, on one line."""
    return escape(printable(str(text)))


def results_only_on_stdout() -> AbstractContextManager[object]:
    """What is printed meanwhile goes to standard error: Ray tells of lost workers on standard output, from a thread."""
    return contextlib.redirect_stdout(sys.stderr)


def print_line(console: Console, **values: object) -> None:
    """A line for logs, with the time."""
    line = json_line(time=stamp(), **values) if is_json() else key_values(time=stamp(), **values)
    console.print(line, markup=False, emoji=False)


@contextlib.contextmanager
def live_or_lines(
    console: Console, live: Callable[[Console], AbstractContextManager[Seen]], lines: Callable[[Console], Seen]
) -> Iterator[Seen]:
    """The observer that suits `console`: a live one on a terminal, one that prints lines otherwise."""
    with results_only_on_stdout():
        if console.is_terminal:
            with live(console) as observer:
                yield observer
        else:
            yield lines(console)


def observe(console: Console) -> AbstractContextManager[Observer]:
    """An observer of a job on actors that suits `console`."""
    return live_or_lines(console, _BarObserver, _LineObserver)


@contextlib.contextmanager
def watch(console: Console, run_id: str) -> Iterator[Callable[[Progress], None]]:
    """Shows the progress of a run that works elsewhere: a bar on a terminal, else a line whenever it has moved."""
    if console.is_terminal:
        with _BarObserver(console) as observer:
            observer.phase(f"run {run_id}")
            yield observer.progress
        return
    told: Progress | None = None

    def line(progress: Progress) -> None:
        nonlocal told
        if told is None or progress.done != told.done:
            told = progress
            print_line(
                console,
                run=run_id,
                done=f"{progress.done}/{progress.images}",
                errors=progress.counts.failed,
                actors=progress.actors,
                current_images_per_s=fixed(progress.images_per_second, 1),
            )

    yield line


class _SegmentObserver(Observer):
    """What both kinds have in common."""

    def lost_output(self) -> str | None:
        return lost_stderr()


class _LineObserver(_SegmentObserver):
    """key=value lines for logs: one per shard, and one for each thing worth knowing."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._latest: Progress | None = None

    def phase(self, name: str) -> None:
        print_line(self._console, phase=name)

    def note(self, text: str) -> None:
        print_line(self._console, note=text)

    def progress(self, progress: Progress) -> None:
        self._latest = progress

    def shard(self, run_id: str, outcome: ShardOutcome, done: int, images: int) -> None:
        rate = self._latest.images_per_second if self._latest else 0.0
        print_line(
            self._console,
            run=run_id,
            **outcome.for_log(),
            done=f"{done}/{images}",
            current_images_per_s=fixed(rate, 1),
        )
        if outcome.image_lines is not None:
            for image in outcome.image_lines:
                print_line(self._console, run=run_id, shard=outcome.shard, **image)
            return
        for example in outcome.examples:
            print_line(self._console, run=run_id, key=example.key, error=example.reason, message=example.message)


class _BarObserver(LiveBar, _SegmentObserver):
    """A spinner for the phases and a bar for the images."""

    def progress(self, progress: Progress) -> None:
        if progress.actors:
            eta = "" if progress.eta_seconds is None else f", {duration(progress.eta_seconds)} left"
            errors = f", [yellow]{progress.counts.failed} errors[/]" if progress.counts.failed else ""
            speed = f"now {fixed(progress.images_per_second, 1)} images/s on {progress.actors} actor(s){eta}{errors}"
        else:
            speed = "waiting for the first actor"
        numbers = f"{count(progress.done)}/{counted(progress.images, 'image')}, {speed}"
        self.show(progress.done, progress.images, numbers)

    def shard(self, run_id: str, outcome: ShardOutcome, done: int, images: int) -> None:
        for image in outcome.image_lines or ():
            self._console.print(key_values(**image), markup=False)
        for example in () if outcome.image_lines is not None else outcome.examples:
            self._console.print(f"[yellow]{shown(example.reason)}[/] {shown(example.key)}: {shown(example.message)}")


def print_report(console: Console, report: RunReport, output: str) -> None:
    """The end of a job, in a few lines."""
    for record in report.runs:
        console.print(
            f"run [bold]{shown(record.run_id)}[/] {record.state}: {counted(record.counts.ok, 'image')} segmented, "
            f"{escape(describe_errors(record.counts))}, {_time_of(record)}, "
            f"{fixed(record.images_per_second, 1)} images/s overall"
        )
    selection = report.selection
    if not report.runs and report.state == "finished":
        console.print(f"nothing to do: {selection.done} of {selection.listed} objects are done already", markup=False)
    if selection.reconfirmed:
        console.print(
            f"{counted(selection.reconfirmed, 'image is', 'images are')} again as in an earlier run, whose results are "
            "repeated",
            markup=False,
        )
    if selection.failed_before:
        console.print(
            f"{selection.failed_before} of those done could not be read; --retry-errors tries them again", markup=False
        )
    if selection.left_out:
        console.print(f"left out by name: {suffixes_text(selection)}; {ways_to_take(selection)}", markup=False)
    if report.runs and report.state == "finished":
        console.print(f"masks and tables are under {printable(output)}", markup=False)
    for key in report.reports:
        console.print(f"report: {printable(output.partition('?')[0].rstrip('/'))}/{key}", markup=False)
    if report.aborted:
        console.print(f"[red]stopped early: {shown(report.aborted)}[/]; once that is mended the same command resumes")
    elif report.state == "interrupted":
        console.print("stopped; the same command resumes", markup=False)
    if report.failed_gate and not report.aborted:
        console.print(f"[red]{shown(report.failed_gate)}[/]; the rows with status=error in results say why")


def report_json(report: RunReport, output: str) -> dict[str, Any]:
    """The same for machines."""
    return {
        "state": report.state,
        "output": output,
        "runs": [record.run_id for record in report.runs],
        "reports": list(report.reports),
        "listed": report.selection.listed,
        "left_out": report.selection.left_out,
        "already_done": report.selection.done,
        "reconfirmed": report.selection.reconfirmed,
        "images": report.counts.images,
        "ok": report.counts.ok,
        "errors": report.counts.errors,
        "error_rate": report.counts.error_rate,
        "seconds": sum(record.seconds for record in report.runs),
        "overall_images_per_second": {record.run_id: record.images_per_second for record in report.runs},
        "max_error_rate": report.max_error_rate,
        "aborted": report.aborted,
        "failed_gate": report.failed_gate,
    }


def class_table(totals: list[ClassTotal], title: str = "") -> Table:
    """Classes by area, largest first."""
    table = Table(title=title, title_justify="left")
    for name, justify in (("class", "left"), ("pixels", "right"), ("pixel share", "right"), ("images", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for total in sorted(totals, key=lambda total: -total.pixels):
        table.add_row(shown(total.class_name), f"{total.pixels:,}", percent(total.fraction, 1), f"{total.images:,}")
    return table


def runs_table(records: list[RunRecord], pulses: Mapping[str, Pulse | None]) -> Table:
    """Runs, newest first. An id is also when its run began, in UTC; 80 columns show it whole.

    `pulses`, by run id, say of those that have not ended whether they are still at work.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("run", "state", "planned", "ok", "errors", "overall/s", "model"):
        numeric = name in ("planned", "ok", "errors", "overall/s")
        table.add_column(name, no_wrap=True, justify="right" if numeric else "left")
    for record in records:
        pulse = pulses.get(record.run_id)
        table.add_row(
            shown(record.run_id),
            pulse.state if pulse is not None else record.state,
            str(record.images),
            str(record.counts.ok),
            str(record.counts.failed),
            fixed(record.images_per_second, 1),
            shown(record.model_id),
        )
    return table


def run_json(record: RunRecord, progress: Progress | None, pulse: Pulse | None) -> dict[str, Any]:
    """A run's record for machines, with what its driver says of itself while it has not ended."""
    driver = None if pulse is None else {"state": pulse.state, "last_heard_seconds_ago": round(pulse.quiet, 1)}
    return {
        **record.model_dump(mode="json"),
        "overall_images_per_second": record.images_per_second,
        "driver": driver,
        "progress": None if progress is None else progress.model_dump(mode="json"),
    }


def how_far(progress: Progress | None) -> str:
    """ "120 of 1,000 images done, now 3.2 images/s on 2 actor(s), 5 min left"."""
    if progress is None:
        return "no progress yet"
    left = "" if progress.eta_seconds is None else f", {duration(progress.eta_seconds)} left"
    speed = f"now {fixed(progress.images_per_second, 1)} images/s on {progress.actors} actor(s)"
    return f"{count(progress.done)} of {counted(progress.images, 'image')} done, {speed}{left}"


def committed(record: RunRecord) -> str:
    """ "120 of 1,000 images are committed, no errors"."""
    planned = counted(record.images, "image is", "images are")
    return f"{count(record.counts.images)} of {planned} committed, " + describe_errors(record.counts)


def _time_of(record: RunRecord) -> str:
    """ "20 s", or "20 s in 2 attempts"."""
    attempts = f" in {len(record.attempts)} attempts" if len(record.attempts) > 1 else ""
    return f"{duration(record.seconds)}{attempts}"


def describe_errors(counts: Counts) -> str:
    """ "2 errors (truncated 1, not_an_image 1)", or "no errors"."""
    if not counts.failed:
        return "no errors"
    reasons = ", ".join(
        f"{printable(reason)} {count}" for reason, count in sorted(counts.errors.items(), key=lambda item: -item[1])
    )
    return f"{counts.failed} error{'s' if counts.failed > 1 else ''} ({reasons})"


def _json_value(value: object) -> object:
    """NaN and infinities are no JSON, and become null. DuckDB's sums of whole numbers are Decimals: numbers, too."""
    match value:
        case float() if not math.isfinite(value):
            return None
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case dict():
            return {name: _json_value(each) for name, each in value.items()}
        case list() | tuple():
            return [_json_value(each) for each in value]
        case _:
            return value


def print_json(value: object, indent: int | None = 2) -> None:
    """One JSON document on standard output, on one line where `indent` is None."""
    text = json.dumps(_json_value(value), indent=indent, ensure_ascii=False, default=str)
    # JSON leaves some characters as they are that drive a terminal; its own escapes say the same.
    print("\n".join("".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line) for line in text.split("\n")))
