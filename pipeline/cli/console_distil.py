"""What a person at a terminal sees of a distillation: its scores and versions, or what it would cost."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fcn_core.text.printable import printable
from pipeline.cli import console as consoles
from pipeline.cli.common import DONE
from pipeline.cli.console import shown
from pipeline.cli.estimate import amount
from pipeline.distillation.estimate import PASSES, DistilEstimate, estimate_distillation
from pipeline.distillation.job import DistilReport
from pipeline.jobs.distil import DistilJob
from pipeline.numbers import count, duration, score
from pipeline.segmentation.prices import read_prices


def print_report(console: Console, report: DistilReport) -> None:
    """Scores of each model against teacher and truth, and where the student is."""
    table = Table()
    for title in ("model", "against"):
        table.add_column(title)
    for title in ("images", "mean IoU", "pixel accuracy"):
        table.add_column(title, justify="right")
    for each in report.scores:
        scores = each.record.scores
        table.add_row(
            each.model, each.against, count(each.record.examples), score(scores.mean_iou), score(scores.pixel_accuracy)
        )
    console.print(table)
    console.print(
        f"trained on {shown(report.predictions.dataset)}: {count(report.predictions.segmented)} images of "
        f"{count(report.predictions.sampled)} sampled, segmented by {shown(report.teacher)}"
    )
    for version in report.versions:
        console.print(printable(f"published: registry:{report.registry_name}@{version}"), markup=False)


def report_json(report: DistilReport) -> dict[str, Any]:
    """The same for machines. Scores are 0..1."""
    return {
        "name": report.name,
        "uri": report.uri,
        "teacher": report.teacher,
        "dataset": report.predictions.dataset,
        "sampled": report.predictions.sampled,
        "segmented": report.predictions.segmented,
        "training": report.trained.uri,
        "registry": report.registry,
        "registry_name": report.registry_name,
        "versions": list(report.versions),
        "scores": [
            {
                "model": each.model,
                "against": each.against,
                "uri": each.uri,
                "images": each.record.examples,
                **each.record.scores.model_dump(include={"mean_iou", "pixel_accuracy"}),
            }
            for each in report.scores
        ],
    }


def print_estimate(job: DistilJob, prices: Path | None, *, json: bool) -> int:
    """Foresee both ways and print them: lines for a person, or JSON."""
    table = read_prices(prices)
    screen = consoles.stderr_console()
    found = estimate_distillation(job, table, lambda name: screen.print(f"{name} ...", markup=False))
    if json:
        consoles.print_json(estimate_json(found))
        return DONE
    for name, value in _lines(found):
        print(f"{name:<22} {printable(value)}")
    for note in dict.fromkeys((*found.teacher.notes, *found.student.notes)):
        print(f"note: {printable(note)}")
    origin = f"from {prices}" if prices else "examples that come with the program"
    passes = f"{PASSES} predictions for each of {count(found.training.images)} images"
    print(f"note: the training was not tried; it is taken to last as long as {passes}")
    print(f"note: prices of {table.dated}, {origin}; nothing was written")
    return DONE


def estimate_json(found: DistilEstimate) -> dict[str, Any]:
    """An estimate as JSON's values."""
    totals = ("teacher_cost", "student_cost", "teacher_seconds", "student_seconds")
    return {**asdict(found), **{name: getattr(found, name) for name in totals}}


def _lines(found: DistilEstimate) -> list[tuple[str, str]]:
    currency = found.teacher.cost.currency
    steps = (
        ("teacher on all", found.teacher.images, found.teacher.seconds, found.teacher.cost.once),
        ("teacher on the sample", found.sample.images, found.sample.seconds, found.sample.cost.once),
        ("training", found.training.images, found.training.seconds, found.training.cost.once),
        ("student on all", found.student.images, found.student.seconds, found.student.cost.once),
        ("distilled, in all", found.student.images, found.student_seconds, found.student_cost),
    )
    return [
        (
            name,
            f"{count(images)} images, "
            + (f"about {duration(seconds)}, " if seconds is not None else "")
            + (f"{amount(cost)} {currency}" if cost is not None else "at a cost that is not known"),
        )
        for name, images, seconds, cost in steps
    ]
