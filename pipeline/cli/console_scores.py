"""Scores for people: the four of the paper and a table of classes."""

from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from fcn_core.text.printable import printable
from pipeline.cli.console import shown
from pipeline.evaluation.confusion import mistaken_for
from pipeline.evaluation.files import EvaluationRecord
from pipeline.evaluation.job import EvaluateReport
from pipeline.numbers import percent, score


def print_scores(console: Console, report: EvaluateReport) -> None:
    """Classes, the four scores, and what was scored on what."""
    record = report.record
    scores = record.scores
    console.print(class_scores_table(record))
    console.print(
        f"mean IoU [bold]{score(scores.mean_iou)}[/], pixel accuracy {score(scores.pixel_accuracy)}, "
        f"mean accuracy {score(scores.mean_accuracy)}, frequency-weighted IoU {score(scores.frequency_weighted_iou)}"
    )
    broken = f", {len(record.errors)} left out" if record.errors else ""
    console.print(
        printable(
            f"model {record.model_id} on split {record.split} of {record.dataset}: {record.examples} images{broken}, "
            f"{scores.pixels:,} annotated pixels"
        ),
        markup=False,
    )
    if record.void:
        console.print(
            f"{percent(sum(record.void) / scores.pixels, 1)} of the annotated pixels were left void, "
            "which counts as wrong",
            markup=False,
        )
    if record.trained_on:
        console.print(
            f"{record.trained_on:,} of these images are among those that the model was trained on: "
            "its scores on others are lower",
            markup=False,
        )


def class_scores_table(record: EvaluationRecord) -> Table:
    """One row per class: IoU, accuracy, share of the annotated pixels, and the class most of its wrong pixels got."""
    table = Table()
    table.add_column("class")
    for name in ("IoU", "accuracy", "pixels"):
        table.add_column(name, justify="right")
    table.add_column("taken for")
    scores = record.scores
    confusion = np.array(record.confusion, np.int64)
    for index, name in enumerate(record.classes):
        table.add_row(
            shown(name),
            score(scores.per_class_iou[index]),
            score(scores.per_class_accuracy[index]),
            percent(int(record.truths[index]) / scores.pixels, 1) if scores.pixels else "-",
            shown(mistaken_for(confusion, index, record.classes)),
        )
    return table


def report_json(report: EvaluateReport, output: str | None) -> dict[str, Any]:
    """scores.json, and where the rest is."""
    return report.record.model_dump(mode="json") | {
        "output": output,
        "per_image": report.per_image,
        "contact_sheet": report.contact_sheet,
        "page": report.page,
    }
