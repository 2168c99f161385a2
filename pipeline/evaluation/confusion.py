"""The confusion matrix for people: as a table of shares, and in words."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.evaluation.files import CONFUSION_FILE, EvaluationRecord
from pipeline.numbers import count, counted, percent
from pipeline.report.markup import Html, el

WORTH_NAMING = 0.01
"""A confusion is named when it takes at least this share of a class's pixels."""

CLASSES = 40
"""Classes that the page's matrix has, those of the most pixels; confusion.csv has all."""

_STEPS = (0.005, 0.05, 0.2, 0.5, 0.8)
"""Shares from which on a cell has the next stronger colour."""


def mistaken_for(confusion: npt.NDArray[np.int64], index: int, classes: Sequence[str]) -> str:
    """The class that most wrong pixels of class `index` were given, and the share of its pixels; "" for next to none.

    `confusion[t, p]`: pixels of true class t that were given class p, int64 [C, C].
    """
    row = confusion[index].copy()
    total = int(row.sum())
    row[index] = 0
    other = int(row.argmax())
    if not total or row[other] < WORTH_NAMING * total:
        return ""
    return f"{classes[other]} {percent(row[other] / total)}"


def confusion_section(record: EvaluationRecord) -> Html:
    """True classes down, predicted classes across, each cell the share of the true class."""
    confusion = np.array(record.confusion, np.int64)
    of_class = confusion.sum(axis=0) + confusion.sum(axis=1)
    present = np.flatnonzero(of_class)
    chosen = np.sort(present[np.argsort(-of_class[present], kind="stable")[:CLASSES]])
    if not len(chosen):
        body = el("p", "No pixel is annotated.", class_="quiet")
    else:
        body = el("div", _matrix(confusion, chosen.tolist(), record.classes), class_="panel")
    left = len(record.classes) - len(chosen)
    return el(
        "section",
        el("h2", "Confusion matrix", id="confusion-title"),
        el(
            "p",
            "Each row is a true class; the cells are the share of its pixels that was given each class.",
            f" {counted(left, 'class', 'classes')} without a pixel or with fewer pixels are left out; "
            f"{CONFUSION_FILE} has all, in pixels."
            if left
            else f" {CONFUSION_FILE} has the pixels.",
            class_="quiet",
        ),
        body,
        id="confusion",
        aria_labelledby="confusion-title",
    )


def _matrix(confusion: npt.NDArray[np.int64], chosen: Sequence[int], classes: Sequence[str]) -> Html:
    head = [el("th", "true class", scope="col"), *(el("th", classes[p], scope="col", title=classes[p]) for p in chosen)]
    rows = []
    for true in chosen:
        total = int(confusion[true].sum())
        cells = [_cell(int(confusion[true, given]), total, true == given) for given in chosen]
        rows.append(el("tr", el("th", classes[true], scope="row"), *cells))
    caption = "Shares of each true class by predicted class"
    table = el("table", el("caption", caption), el("thead", el("tr", *head)), el("tbody", *rows), class_="heat")
    # A region that can be scrolled must be reachable by keyboard.
    return el("div", table, class_="scroll", tabindex=0, role="region", aria_label=caption)


def _cell(pixels: int, total: int, right: bool) -> Html:
    share = pixels / total if total else 0.0
    strength = sum(share >= step for step in _STEPS)
    return el(
        "td",
        percent(share, 0) if pixels else "",
        class_=f"{'right' if right else 'wrong'} h{strength}",
        title=f"{count(pixels)} pixels" if total else None,
    )
