"""An evaluation as one HTML page: scores, IoU of each class, what is taken for what, and the worst images as pictures.

Made of the parts of a run's report, under the same policy: one file that loads nothing. No times or host names inside,
so that equal evaluations give equal pages.
"""

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from fcn_core.labels import RGB, LabelSet, decode_mask
from fcn_core.render import SheetTile, difference, overlay, shrink
from pipeline.evaluation.confusion import confusion_section, mistaken_for
from pipeline.evaluation.files import CONFUSION_FILE, IMAGES_FILE, BrokenExample, EvaluationRecord
from pipeline.evaluation.gallery import ScoredExample
from pipeline.numbers import count, counted, percent, score
from pipeline.report.charts import Bar, Column, Tick, bars, columns, swatch
from pipeline.report.gallery import NO_PICTURE, GalleryGroup, gallery
from pipeline.report.markup import Html, el, join
from pipeline.report.page import document, top_bar
from pipeline.report.panels import facts, panel, table, tile, tiles
from pipeline.report.pictures import SIDE, ImageRequest, Layer, ShownImage, jpeg, png, within_budget
from pipeline.report.rerun import without_secrets
from pipeline.report.samples import Candidate

ROWS = 300
"""Images in the table of the worst; images.parquet has all."""

BINS = 20
ERRORS_NAMED = 20
MOST_LEFT_OUT = 0.5
"""From this share of examples that could not be scored on, errors come first."""


def evaluation_page(record: EvaluationRecord, rows: pa.Table, worst: Sequence[ScoredExample], labels: LabelSet) -> str:
    """The page. `rows` have IMAGES_SCHEMA, and the ranks of `worst` count them; `labels` has the colours."""
    colors = dict(zip(record.classes, labels.palette, strict=True))
    scored = rows.filter(pc.is_valid(rows["mean_iou"])).sort_by([("mean_iou", "ascending"), ("name", "ascending")])
    errors = _errors(record.errors, record.examples)
    first = bool(record.errors) and len(record.errors) >= MOST_LEFT_OUT * (len(record.errors) + record.examples)
    main = el(
        "main",
        *_notices(record),
        _headline(record),
        errors if first else None,
        _classes(record, colors),
        confusion_section(record),
        gallery(_groups(worst, rows, labels), colors, "", NO_PICTURE if worst else "No image has a score to sort by."),
        _images(scored),
        None if first else errors,
        _about(record),
        id="main",
    )
    footer = el("footer", el("p", "Made by fcn-pipeline. This page is one file and loads nothing."))
    return document(f"Evaluation of model {record.model_id}", _header(record), main, footer)


def _header(record: EvaluationRecord) -> Html:
    parts = (
        ("classes", "Classes"),
        ("confusion", "Confusion"),
        ("pictures", "Pictures"),
        ("images", "Images"),
        ("errors", "Errors"),
        ("about", "Model and data"),
    )
    return el(
        "header",
        *top_bar("scores", "evaluation"),
        el("h1", "Model ", el("span", record.model_id, class_="run-id")),
        el(
            "p",
            f"Scored on {counted(record.examples, 'image')} of split ",
            el("bdi", record.split, class_="path"),
            " of ",
            el("bdi", without_secrets(record.dataset), class_="path"),
            f", {count(record.scores.pixels)} annotated pixels.",
            class_="lead",
        ),
        el("nav", el("ul", *(el("li", el("a", name, href=f"#{at}")) for at, name in parts)), aria_label="Parts"),
    )


def _notices(record: EvaluationRecord) -> list[Html]:
    notices = []
    if record.errors:
        notices.append(
            f"{counted(len(record.errors), 'example')} of the split could not be scored and "
            f"{'is' if len(record.errors) == 1 else 'are'} left out: "
            + ("these are the scores of the others." if record.examples else "no example is left to score.")
        )
    if record.trained_on:
        notices.append(
            f"{count(record.trained_on)} of these images {'is' if record.trained_on == 1 else 'are'} among those that "
            "the model was trained on: its scores on others are lower."
        )
    if record.examples and record.scores.mean_iou is None:
        notices.append("No pixel of these images is annotated, so there are no scores.")
    return [el("p", notice, class_="notice") for notice in notices]


def _headline(record: EvaluationRecord) -> Html:
    scores, failed = record.scores, len(record.errors)
    shown = (
        (score(scores.mean_iou), "mean IoU", "over the classes", False),
        (score(scores.pixel_accuracy), "pixel accuracy", "share of the annotated pixels that are right", False),
        (score(scores.mean_accuracy), "mean accuracy", "over the classes", False),
        (score(scores.frequency_weighted_iou), "frequency-weighted IoU", "by the classes' pixels", False),
        (count(record.examples), "image scored" if record.examples == 1 else "images scored", "", False),
        (
            el("a", count(failed), href="#errors") if failed else "0",
            "left out",
            "could not be scored" if failed else _all_scored(record.examples),
            failed > 0,
        ),
    )
    return tiles([tile(*each) for each in shown])


def _classes(record: EvaluationRecord, colors: Mapping[str, RGB]) -> Html:
    """IoU of each class, the worst first, as a chart and with all else as a table."""
    scores = record.scores
    confusion = np.array(record.confusion, np.int64)
    rated = [index for index, value in enumerate(scores.per_class_iou) if value is not None]
    rated.sort(key=lambda index: (scores.per_class_iou[index] or 0.0, index))
    chart = bars(
        "class-iou",
        "IoU of each class",
        "Horizontal bars, the worst class first. "
        + ", ".join(f"{record.classes[index]} {score(scores.per_class_iou[index])}" for index in rated[:3]),
        [
            Bar(
                record.classes[index],
                scores.per_class_iou[index] or 0.0,
                score(scores.per_class_iou[index]),
                colors.get(record.classes[index]),
            )
            for index in rated
        ],
    )
    rows = []
    for index in [*rated, *(index for index in range(len(record.classes)) if index not in set(rated))]:
        name = record.classes[index]
        cells = (
            score(scores.per_class_iou[index]),
            score(scores.per_class_accuracy[index]),
            percent(int(record.truths[index]) / scores.pixels, 1) if scores.pixels else "-",
        )
        rows.append(
            el(
                "tr",
                el("th", swatch(colors.get(name)), el("span", name), scope="row"),
                *(el("td", cell, class_="number") for cell in cells),
                el("td", mistaken_for(confusion, index, record.classes), class_="number"),
            )
        )
    head = ("class", "IoU", "accuracy", "pixels", "taken for")
    as_table = table("Scores of each class, the worst first", head, rows, numbers_from=1)
    return el(
        "section",
        el("h2", "Classes", id="classes-title"),
        el(
            "div",
            el(
                "figure",
                el(
                    "figcaption",
                    el("h3", "IoU"),
                    el("p", "Right pixels over all annotated or predicted so"),
                ),
                chart if rated else el("p", "No class is annotated or predicted anywhere.", class_="quiet"),
                class_="panel",
            ),
            el("div", as_table, class_="panel numbers"),
            class_="pair",
        ),
        id="classes",
        aria_labelledby="classes-title",
    )


def _groups(worst: Sequence[ScoredExample], rows: pa.Table, labels: LabelSet) -> list[GalleryGroup]:
    shown = [_shown(example, rows, labels) for example in worst]
    (kept,) = within_budget([shown])
    if not kept:
        return []
    why = (
        f"The {counted(len(kept), 'image')} of the lowest mean IoU, the worst first. Difference: red is predicted "
        "wrong, blue is annotated as nothing and does not count."
    )
    return [GalleryGroup("worst", "Worst images", why, tuple(kept))]


def _shown(example: ScoredExample, rows: pa.Table, labels: LabelSet) -> ShownImage:
    row = rows.slice(example.rank[1], 1).to_pylist()[0]
    with Image.open(io.BytesIO(example.image), formats=["JPEG"]) as image:
        photo = np.asarray(image)
    tile = SheetTile(example.caption, photo, decode_mask(example.mask), example.note, decode_mask(example.truth))
    tile = shrink(tile, SIDE)
    assert tile.truth is not None, "an example of the gallery has a truth"
    layers = (
        Layer("difference", jpeg(difference(tile.image, tile.truth, tile.mask, labels.ignore_index))),
        Layer("prediction", jpeg(overlay(tile.image, tile.mask, labels))),
        Layer("truth", jpeg(overlay(tile.image, tile.truth, labels))),
        Layer("photo", jpeg(tile.image)),
        Layer("prediction-mask", png(tile.mask, labels)),
        Layer("truth-mask", png(tile.truth, labels)),
    )
    candidate = Candidate(
        key=example.caption,
        etag="",
        size=0,
        pixels=tile.mask.size,
        mask_key="",
        confidence=row["confidence"],
        shares=_truth_shares(row),
    )
    return ShownImage(ImageRequest(candidate, example.note), layers, tile.mask.shape[1], tile.mask.shape[0])


def _truth_shares(row: Mapping[str, Any]) -> tuple[tuple[str, float], ...]:
    """The classes of an example in its truth or prediction and their share of the truth, the largest first."""
    total = max(1, row["labelled_pixels"])
    shares = [(each["class_name"], each["truth_pixels"] / total) for each in row["classes"]]
    return tuple(sorted(shares, key=lambda share: -share[1]))


def _images(scored: pa.Table) -> Html:
    """How the images are spread over mean IoU, and the worst of them by name. `scored` is sorted by it."""
    if not len(scored):
        body = el("p", "No image has an annotated pixel.", class_="quiet")
    else:
        body = join(_spread(scored["mean_iou"].to_numpy()), _by_iou(scored))
    return el("section", el("h2", "Images", id="images-title"), body, id="images", aria_labelledby="images-title")


def _spread(values: npt.NDArray[np.float64]) -> Html:
    counts = np.histogram(values, BINS, (0.0, 1.0))[0].tolist()
    spans = [f"{index / BINS:.2f} to {(index + 1) / BINS:.2f}" for index in range(BINS)]
    chart = columns(
        "image-iou",
        "Images by mean IoU",
        f"Columns from 0 to 1; most images lie at {spans[counts.index(max(counts))]}.",
        [Column(value, f"{span}: {counted(value, 'image')}") for span, value in zip(spans, counts, strict=True)],
        [Tick(tenth / 10, f"{tenth / 10:.1f}") for tenth in range(0, 11, 2)],
    )
    caption = el("figcaption", el("h3", "Images by mean IoU"), el("p", "A class missed in a few pixels counts in full"))
    return el("figure", caption, chart, class_="panel")


def _by_iou(scored: pa.Table) -> Html:
    shown = scored.slice(0, ROWS).to_pylist()
    cells = [
        el(
            "tr",
            el("th", el("bdi", row["name"]), scope="row"),
            *(el("td", score(row[name]), class_="number") for name in ("mean_iou", "pixel_accuracy", "confidence")),
            el("td", _worst_class(row), class_="number"),
        )
        for row in shown
    ]
    more = len(scored) - len(shown)
    caption = f"Images by mean IoU, the worst first{f'; the other {count(more)} are in {IMAGES_FILE}' if more else ''}"
    head = ("image", "mean IoU", "pixel accuracy", "confidence", "worst class")
    as_table = table(caption, head, cells, numbers_from=1)
    return el("details", el("summary", "Sorted by IoU, as a table"), as_table, class_="panel")


def _worst_class(row: Mapping[str, Any]) -> str:
    rated = [(each["intersection_pixels"] / each["union_pixels"], each["class_name"]) for each in row["classes"]]
    if not rated:
        return ""
    value, name = min(rated)
    return f"{name} {score(value, 2)}"


def _errors(errors: Sequence[BrokenExample], scored: int) -> Html:
    if not errors:
        body = el("p", f"None: {_all_scored(scored)}.", class_="quiet")
    else:
        body = join(*(_reason(reason, errors, scored) for reason, _ in Counter(e.error for e in errors).most_common()))
    return el("section", el("h2", "Errors", id="errors-title"), body, id="errors", aria_labelledby="errors-title")


def _all_scored(scored: int) -> str:
    return "every example of the split was scored" if scored else "there was no example to score"


def _reason(reason: str, errors: Sequence[BrokenExample], scored: int) -> Html:
    of_it = [error for error in errors if error.error == reason]
    share = percent(len(of_it) / (len(errors) + scored))
    named = [
        el("li", el("bdi", error.name, class_="path"), el("span", error.message)) for error in of_it[:ERRORS_NAMED]
    ]
    more = len(of_it) - len(named)
    return el(
        "article",
        el("h3", el("code", reason), el("span", f" {counted(len(of_it), 'example')}, {share} of the split")),
        el("ul", *named, class_="examples"),
        el("p", f"and {count(more)} more, in {IMAGES_FILE}", class_="quiet") if more else None,
        class_="panel",
    )


def _about(record: EvaluationRecord) -> Html:
    origin = record.model
    model = {
        "model_id": record.model_id,
        "asked for as": without_secrets(origin.asked),
        "found at": without_secrets(origin.uri),
        "registry name": origin.name,
        "version": origin.version,
        "promotion": origin.champion,
    }
    data = {
        "data set": record.dataset,
        "split": record.split,
        "images scored": record.examples,
        "left out": len(record.errors),
        "annotated pixels": record.scores.pixels,
        "images the model was trained on": record.trained_on,
        "digest of the examples": record.examples_digest,
    }
    files = {"every image": IMAGES_FILE, "confusion matrix": CONFUSION_FILE, "all numbers": "scores.json"}
    return el(
        "section",
        el("h2", "Model and data", id="about-title"),
        el(
            "div",
            panel("Model", facts(model)),
            panel("Data", facts(data)),
            panel("Settings, as resolved", facts(record.settings.model_dump(mode="json"))),
            panel("Files beside this page", facts(files)),
            class_="masonry",
        ),
        id="about",
        aria_labelledby="about-title",
    )
