"""A cross-validation for people: a row per fold, and mean and spread of the scores."""

from typing import Any

from rich.console import Console
from rich.table import Table

from fcn_core.text.printable import printable
from pipeline.cli.console import shown
from pipeline.numbers import count, score
from pipeline.training.cross_validation import TABLE, CrossValidation, CrossValidationReport, Spread


def print_folds(console: Console, report: CrossValidationReport) -> None:
    """The table of the folds and that of the classes, or how far it has come."""
    if report.table is None:
        console.print(f"stopped after {report.folds_done} folds; the same command resumes", markup=False)
        return
    console.print(_folds(report.table))
    console.print(_classes(report.table))
    console.print(f"the folds' runs and {TABLE} are under {printable(report.uri)}", markup=False)


def _folds(table: CrossValidation) -> Table:
    shown_table = Table()
    shown_table.add_column("fold")
    for name in ("trained on", "validated on", "mean IoU", "pixel accuracy"):
        shown_table.add_column(name, justify="right")
    for fold in table.folds:
        scores = fold.scores
        shown_table.add_row(
            str(fold.fold),
            count(fold.train_images),
            count(fold.val_images),
            score(scores.mean_iou if scores else None),
            score(scores.pixel_accuracy if scores else None),
        )
    shown_table.add_section()
    shown_table.add_row("mean", "", "", score(table.mean_iou.mean), score(table.pixel_accuracy.mean))
    shown_table.add_row("spread", "", "", score(table.mean_iou.deviation), score(table.pixel_accuracy.deviation))
    return shown_table


def _classes(table: CrossValidation) -> Table:
    shown_table = Table()
    shown_table.add_column("class")
    for name in ("IoU, mean", "spread"):
        shown_table.add_column(name, justify="right")
    for name, spread in table.class_iou.items():
        shown_table.add_row(shown(name), *_both(spread))
    return shown_table


def _both(spread: Spread) -> tuple[str, str]:
    return score(spread.mean), score(spread.deviation)


def folds_json(report: CrossValidationReport) -> dict[str, Any]:
    """The same for machines: cross_validation.json, and how it stands."""
    table = report.table.model_dump(mode="json") if report.table else None
    return {"state": report.state, "uri": report.uri, "folds_done": report.folds_done, "table": table}
