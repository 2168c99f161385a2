"""A training as one HTML page: where it stands, its curves, what it makes of a few validation images, its settings.

The one thing to know: the page is made anew from what a run keeps, at every checkpoint and validation and at its end,
and holds no more than a bounded number of points, classes and pixels, however long the run is.
"""

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from fcn_core.labels import LabelSet
from fcn_core.render import SheetTile, contact_sheet
from fcn_core.training.loop import ValidationPoint
from pipeline.numbers import count, score
from pipeline.report.charts import swatch
from pipeline.report.markup import Html, el
from pipeline.report.page import document, top_bar
from pipeline.report.panels import facts
from pipeline.report.pictures import jpeg
from pipeline.training.curves import Curves, draw_panel, panels

TILE_WIDTH = 220
_COLUMNS = 2


@dataclass(frozen=True)
class TrainingPage:
    """What the page shows. `sheet`: PNG of the newest validation images, and the step that they are of."""

    name: str
    stages: Mapping[str, Curves]
    labels: LabelSet
    settings: Mapping[str, Any]
    sheet: tuple[int, bytes] | None = None


def validation_sheet(tiles: Sequence[SheetTile], labels: LabelSet, step: int) -> bytes:
    """PNG: validation images, each with its truth and then its prediction laid over it."""
    sink = io.BytesIO()
    title = f"step {step}: image, truth, prediction"
    contact_sheet(tiles, labels, columns=_COLUMNS, tile_width=TILE_WIDTH, title=title).save(sink, "PNG")
    return sink.getvalue()


def training_page(page: TrainingPage) -> str:
    """The whole document."""
    return document(f"Training {page.name}", _header(page), _main(page), _footer())


def _header(page: TrainingPage) -> Html:
    return el(
        "header",
        *top_bar("report", "training"),
        el("h1", "Training ", el("span", page.name, class_="run-id")),
        el("p", _lead(page), class_="lead"),
    )


def _lead(page: TrainingPage) -> str:
    name = next(reversed(list(page.stages)), "")
    history = page.stages[name].history if name else None
    if history is None or not history.losses:
        return "No step has been taken yet."
    last = history.losses[-1]
    text = f"{name}: step {count(last.step)}, epoch {last.epoch:.4g}, loss {last.loss:.4g}"
    if history.best is not None:
        text += f"; best mean IoU {score(history.best.scores.mean_iou, 4)} at step {count(history.best.step)}"
    return text + "."


def _main(page: TrainingPage) -> Html:
    drawn = [
        el("figure", draw_panel(panel, page.stages), class_="panel scroll")
        for panel in panels(page.stages, page.labels)
    ]
    return el(
        "main",
        el("section", el("h2", "Curves", id="curves"), el("div", *drawn, class_="pair"), aria_labelledby="curves"),
        _classes(page),
        _pictures(page),
        el(
            "section",
            el("h2", "Settings", id="settings"),
            el("div", facts(page.settings), class_="panel"),
            aria_labelledby="settings",
        ),
        id="main",
    )


def _classes(page: TrainingPage) -> Html | None:
    name = next(reversed(list(page.stages)), "")
    history = page.stages[name].history if name else None
    if history is None or history.best is None:
        return None
    best, last = history.best, history.validations[-1]
    rows = [
        el(
            "tr",
            el("th", swatch(color), each, scope="row"),
            *(el("td", score(value), class_="number") for value in _both(index, best, last)),
        )
        for index, (each, color) in enumerate(zip(page.labels.names, page.labels.palette, strict=True))
    ]
    head = ("class", f"IoU at step {best.step}, the best", f"IoU at step {last.step}, the last")
    table = el(
        "table",
        el("caption", "IoU on the validation split by class", class_="unseen"),
        el("thead", el("tr", *(el("th", word, scope="col") for word in head))),
        el("tbody", *rows),
    )
    return el(
        "section",
        el("h2", "Classes", id="classes"),
        el("div", el("div", table, class_="scroll", tabindex=0, role="region", aria_label="Table"), class_="panel"),
        aria_labelledby="classes",
    )


def _both(index: int, *points: ValidationPoint) -> Iterable[float | None]:
    for point in points:
        ious = point.scores.per_class_iou
        yield ious[index] if index < len(ious) else None


def _pictures(page: TrainingPage) -> Html | None:
    if page.sheet is None:
        return None
    step, png = page.sheet
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        uri = jpeg(np.asarray(image.convert("RGB")))
    words = f"Validation images after step {step}: image, truth, prediction"
    return el(
        "section",
        el("h2", "Validation images", id="pictures"),
        el("figure", el("figcaption", el("p", words)), el("img", src=uri, alt=words, width="100%"), class_="panel"),
        aria_labelledby="pictures",
    )


def _footer() -> Html:
    return el("footer", el("p", "Made by fcn-pipeline. This page is one file and loads nothing."))
