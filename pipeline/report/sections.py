"""The parts of the page that tell in numbers and words: headline, classes, speed and confidence, errors, model,
configuration, commands.
"""

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from fcn_core.labels import RGB, VOID
from pipeline.numbers import count, counted, duration, large, percent, rate, score, size
from pipeline.outputs.results import TRANSIENT_ERRORS, ClassTotal
from pipeline.outputs.runs import RunRecord
from pipeline.report import rerun
from pipeline.report.charts import Bar, Column, Tick, bars, columns, swatch
from pipeline.report.markup import Html, el, join
from pipeline.report.model_card import ModelCard
from pipeline.report.panels import facts, panel, table, tile, tiles
from pipeline.report.summary import CONFIDENCE_BINS, ErrorGroup, Summary
from pipeline.report.throughput import Throughput, throughput
from pipeline.storage.uri import is_absolute

CLASSES_DRAWN = 24


def headline(record: RunRecord, summary: Summary) -> Html:
    """The numbers that most people came for."""
    failed = summary.images - summary.ok
    share = percent(failed / summary.images) if summary.images else ""
    speed = rate(record.images_per_second) if record.seconds and summary.images else "-"
    attempts = f" in {counted(len(record.attempts), 'attempt')}" if len(record.attempts) > 1 else " in all"
    shown = [
        tile(
            count(summary.ok),
            "images segmented" if summary.ok != 1 else "image segmented",
            f"{large(summary.pixels)} pixels",
        ),
        tile(
            el("a", count(failed), href="#errors") if failed else "0",
            "failed",
            f"{share} of the run" if failed else without_failures(summary, record.images),
            alarming=failed > 0,
        ),
        tile(
            speed,
            "images/s overall",
            f"{duration(record.seconds)}{attempts}, start-up included" if record.seconds else "",
        ),
        tile(
            score(summary.mean_confidence, 2) if summary.ok else "-",
            "mean confidence",
            "1 is sure of every pixel" if summary.ok else "",
        ),
        tile(str(sum(1 for total in summary.classes if total.pixels)), "classes found", f"of {len(summary.classes)}"),
        tile(size(summary.bytes), "of images read", f"in {counted(len(summary.commits), 'shard')}"),
    ]
    return tiles(shown)


def classes(summary: Summary, colors: Mapping[str, RGB], card: ModelCard) -> Html:
    """Area and frequency of the classes as charts, and both as a table."""
    if not summary.ok:
        return join()
    by_area = sorted(summary.classes, key=lambda total: (-total.pixels, total.class_id))
    by_images = sorted(summary.classes, key=lambda total: (-total.images, -total.pixels, total.class_id))
    area = bars(
        "class-area",
        "Share of all pixels, by class",
        f"Horizontal bars. {_first_three(by_area, lambda total: percent(total.fraction))}",
        [
            Bar(total.class_name, total.fraction, percent(total.fraction), colors.get(total.class_name))
            for total in by_area[:CLASSES_DRAWN]
        ],
    )
    frequency = bars(
        "class-frequency",
        "Share of images in which a class is found",
        f"Horizontal bars. {_first_three(by_images, lambda total: percent(total.images / summary.ok))}",
        [
            Bar(
                total.class_name,
                total.images / summary.ok,
                percent(total.images / summary.ok),
                colors.get(total.class_name),
            )
            for total in by_images[:CLASSES_DRAWN]
        ],
    )
    rest = len(by_area) - CLASSES_DRAWN
    more = (
        el("p", f"{counted(rest, 'class', 'classes')} with less are in the table.", class_="quiet")
        if rest > 0
        else None
    )
    return el(
        "section",
        el("h2", "Classes", id="classes-title"),
        el(
            "div",
            el(
                "figure", el("figcaption", el("h3", "Area"), el("p", "Share of all pixels")), area, more, class_="panel"
            ),
            el(
                "figure",
                el("figcaption", el("h3", "Frequency"), el("p", "Share of images in which the class is found")),
                frequency,
                more,
                class_="panel",
            ),
            class_="pair",
        ),
        _class_table(by_area, summary, colors, card),
        id="classes",
        aria_labelledby="classes-title",
    )


def _first_three(totals: Sequence[ClassTotal], shown: Any) -> str:
    return "Largest: " + ", ".join(f"{total.class_name} {shown(total)}" for total in totals[:3]) + "."


def _class_table(by_area: Sequence[ClassTotal], summary: Summary, colors: Mapping[str, RGB], card: ModelCard) -> Html:
    scores = card.description.scores.get("per_class_iou") if card.description else None
    rated = isinstance(scores, list) and len(scores) == sum(total.class_id != VOID for total in summary.classes)
    head = ["class", "pixels", "of all pixels", "images", "of all images", *(["model's IoU"] if rated else [])]
    rows = []
    for total in by_area:
        iou = scores[total.class_id] if rated and scores and total.class_id != VOID else None
        cells = [
            count(total.pixels),
            percent(total.fraction),
            count(total.images),
            percent(total.images / summary.ok),
            *([score(iou, 2) if isinstance(iou, int | float) else "-"] if rated else []),
        ]
        name = el("th", swatch(colors.get(total.class_name)), el("span", total.class_name), scope="row")
        rows.append(el("tr", name, *(el("td", cell, class_="number") for cell in cells)))
    as_table = table("Area and frequency of each class", head, rows, numbers_from=1)
    return el("details", el("summary", "Both as a table"), as_table, class_="panel")


def work(record: RunRecord, summary: Summary) -> Html:
    """Throughput over time and the distribution of confidence."""
    if not summary.images:
        return join()
    speed = throughput(summary.commits, record)
    return el(
        "section",
        el("h2", "Speed and confidence", id="work-title"),
        el("div", _speed(speed, record.started), _stages(record), _confidence_chart(summary), class_="pair"),
        id="work",
        aria_labelledby="work-title",
    )


def _speed(speed: Throughput | str, started: datetime) -> Html:
    caption = el("figcaption", el("h3", "Throughput"), el("p", "Images per second, from when results were committed"))
    if isinstance(speed, str):
        return el("figure", caption, el("p", speed, class_="quiet"), class_="panel")
    total = speed.step * len(speed.rates)
    spans = [
        f"{duration(index * speed.step)} to {duration((index + 1) * speed.step)}" for index in range(len(speed.rates))
    ]
    ticks = [Tick(at / total, duration(at)) for at in _times(total)]
    pauses = [Tick(at / total, f"paused {duration(length)}") for at, length in speed.paused]
    chart = columns(
        "throughput",
        "Images per second over the time of the run",
        f"Columns of {duration(speed.step)} each, from {started:%Y-%m-%d %H:%M} UTC; between "
        f"{rate(min(speed.rates))} and {rate(max(speed.rates))} images per second.",
        [Column(value, f"{span}: {rate(value)} images/s") for value, span in zip(speed.rates, spans, strict=True)],
        ticks,
        pauses,
    )
    rows = [
        el("tr", el("th", span, scope="row"), el("td", rate(value), class_="number"))
        for span, value in zip(spans, speed.rates, strict=True)
    ]
    as_table = table(
        "Throughput over the time of the run", ["time since the start", "images per second"], rows, numbers_from=1
    )
    return el("figure", caption, chart, el("details", el("summary", "As a table"), as_table), class_="panel")


def _stages(record: RunRecord) -> Html | None:
    """Where the time of the work went; None for a run whose record does not have it."""
    total = sum(record.stage_seconds.values())
    if not total:
        return None
    longest = sorted(record.stage_seconds.items(), key=lambda stage: -stage[1])
    caption = el(
        "figcaption",
        el("h3", "Stages"),
        el("p", "Where the time of the work went, summed over the threads that do it: stages run side by side"),
    )
    chart = bars(
        "stages",
        "Seconds in each stage of the work",
        "Horizontal bars. Longest: " + ", ".join(f"{name} {duration(seconds)}" for name, seconds in longest[:3]) + ".",
        [Bar(name, seconds / total, percent(seconds / total)) for name, seconds in longest],
    )
    rows = [
        el(
            "tr",
            el("th", name, scope="row"),
            el("td", f"{seconds:.1f}", class_="number"),
            el("td", f"{1000 * seconds / max(1, record.counts.images):.1f}", class_="number"),
        )
        for name, seconds in longest
    ]
    as_table = table("Time of each stage", ["stage", "seconds", "milliseconds per image"], rows, numbers_from=1)
    return el("figure", caption, chart, el("details", el("summary", "As a table"), as_table), class_="panel")


def _times(total: float) -> list[float]:
    """Three to five round moments from 0 to `total` seconds."""
    steps = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200)
    step = next((step for step in steps if total / step < 5), 86400 * math.ceil(total / 86400 / 4))
    return [float(step * index) for index in range(int(total / step) + 1)]


def _confidence_chart(summary: Summary) -> Html:
    caption = el("figcaption", el("h3", "Confidence"), el("p", "Images by the model's mean class probability"))
    if not summary.ok:
        return el("figure", caption, el("p", "No image was segmented.", class_="quiet"), class_="panel")
    counts = summary.confidence.tolist()
    first = int(np.flatnonzero(summary.confidence)[0]) if summary.confidence.any() else 0
    # From the first that has an image, but a few at least: confidence below one over the classes cannot be.
    first = min(first, CONFIDENCE_BINS - 8)
    low = first / CONFIDENCE_BINS
    spans = [
        f"{index / CONFIDENCE_BINS:.2f} to {(index + 1) / CONFIDENCE_BINS:.2f}"
        for index in range(first, CONFIDENCE_BINS)
    ]
    shown = counts[first:]
    most = spans[int(np.argmax(shown))]
    chart = columns(
        "confidence",
        "Segmented images by confidence",
        f"Columns from {low:.2f} to 1; most images lie at {most}, their mean is {score(summary.mean_confidence, 2)}.",
        [Column(value, f"{span}: {counted(value, 'image')}") for value, span in zip(shown, spans, strict=True)],
        [Tick((tenth / 10 - low) / (1 - low), f"{tenth / 10:.1f}") for tenth in range(math.ceil(low * 10), 11)],
    )
    rows = [
        el("tr", el("th", span, scope="row"), el("td", count(value), class_="number"))
        for span, value in zip(spans, shown, strict=True)
    ]
    as_table = table("Segmented images by confidence", ["confidence", "images"], rows, numbers_from=1)
    return el("figure", caption, chart, el("details", el("summary", "As a table"), as_table), class_="panel")


def without_failures(summary: Summary, planned: int) -> str:
    """What it means that no image of `planned` ones failed: all is well only where there was something to do."""
    if not planned:
        return "there was no image to segment"
    if not summary.images:
        return "no image is done yet"
    return "every image has a mask" if summary.images >= planned else "so far"


def errors(summary: Summary, planned: int) -> Html:
    """What failed, by reason, with examples."""
    if summary.errors:
        body = join(*(_reason(group, summary.images) for group in summary.errors))
    else:
        body = el("p", f"None: {without_failures(summary, planned)}.", class_="quiet")
    return el("section", el("h2", "Errors", id="errors-title"), body, id="errors", aria_labelledby="errors-title")


def _reason(group: ErrorGroup, images: int) -> Html:
    about = (
        "About the moment, not the image: the next run tries again."
        if group.reason in TRANSIENT_ERRORS
        else "About the image: it is left alone until its bytes change, or --retry-errors is given."
    )
    examples = [el("li", el("bdi", item.key, class_="path"), el("span", item.message)) for item in group.examples]
    left = group.images - len(group.examples)
    return el(
        "article",
        el(
            "h3",
            el("code", group.reason),
            el("span", f" {counted(group.images, 'image')}, {percent(group.images / images)}"),
        ),
        el("p", about, class_="quiet"),
        el("ul", *examples, class_="examples"),
        el("p", f"and {count(left)} more, in the rows of results with this error", class_="quiet")
        if left > 0
        else None,
        class_="panel",
    )


def model(record: RunRecord, card: ModelCard, colors: Mapping[str, RGB]) -> Html:
    """The model card."""
    origin = record.model
    identity: dict[str, Any] = {"model_id": record.model_id}
    if origin:
        identity |= {"asked for as": origin.asked, "found at": rerun.without_secrets(origin.uri)}
        if origin.name:
            identity |= {"registry name": origin.name, "version": origin.version, "promotion": origin.champion}
    parts = [panel("Identity", facts(identity))]
    description = card.description
    if description is None:
        parts.append(el("p", card.missing, class_="notice"))
    else:
        scores = {name: value for name, value in description.scores.items() if not name.startswith("per_class")}
        parts += [
            panel("Architecture", facts(description.architecture.model_dump(mode="json"))),
            panel("Scores", facts(scores) if scores else el("p", "None were kept with the model.", class_="quiet")),
            panel("Input", facts(description.normalization.model_dump(mode="json"))),
            panel("Provenance", facts(description.provenance) or el("p", "The model has none.", class_="quiet")),
        ]
    names = description.labels.names if description else tuple(colors)
    chips = [el("li", swatch(colors.get(name)), el("span", name)) for name in names]
    title = f"Labels: {description.labels.name}, {counted(len(names), 'class', 'classes')}" if description else "Labels"
    return el(
        "section",
        el("h2", "Model", id="model-title"),
        el("div", *parts, class_="masonry"),
        el("div", el("h3", title), el("ol", *chips, class_="legend"), class_="panel"),
        id="model",
        aria_labelledby="model-title",
    )


def configuration(record: RunRecord, output: str) -> Html:
    """The options as asked for, and as resolved."""
    chosen = dict(rerun.changed_options(record.job))
    run = {
        "run": record.run_id,
        "state": record.state,
        "reason": record.reason,
        "started": f"{record.started:%Y-%m-%d %H:%M:%S} UTC",
        "finished": f"{record.finished:%Y-%m-%d %H:%M:%S} UTC" if record.finished else None,
        "attempts": len(record.attempts) or None,
        "images planned": record.images,
        "shards": record.shards,
        "recipe": record.recipe,
        "params_id": record.params_id,
        "fcn-pipeline": record.version,
    }
    places = {"source": record.job.get("source"), "output": record.job.get("output")}
    if output != places["output"]:
        places["now at"] = output
    return el(
        "section",
        el("h2", "Configuration", id="configuration-title"),
        el(
            "div",
            panel("Run", facts(run)),
            panel("Places", facts(places)),
            panel("Options given", facts(chosen) if chosen else el("p", "None but the model.", class_="quiet")),
            panel("Settings, as resolved", facts(record.settings.model_dump(mode="json"))),
            class_="masonry",
        ),
        id="configuration",
        aria_labelledby="configuration-title",
    )


def commands(record: RunRecord, summary: Summary, output: str) -> Html:
    """How to run it again, and what else to do with it."""
    again = rerun.segment_command(record.job)
    steps = [("The same again: resumes what was stopped, adds what is new or changed", again)]
    if any(group.reason not in TRANSIENT_ERRORS for group in summary.errors):
        retry = rerun.segment_command(record.job, "--retry-errors")
        steps.append(("Also try the images again that could not be read", retry))
    steps += [
        ("Make this page again", ["fcn", "report", output, record.run_id]),
        ("Check that masks, tables and plan agree", ["fcn", "verify", output]),
        ("Copy the masks to plain names", ["fcn", "masks", "export", output, "masks/"]),
    ]
    places = [str(record.job.get(name, "")) for name in ("source", "output", "model")]
    relative = any(not is_absolute(place) and not place.startswith(("~", "registry:")) for place in places)
    return el(
        "section",
        el("h2", "Run it again", id="rerun-title"),
        el("p", "Paths are relative to the folder in which the run was started.", class_="quiet") if relative else None,
        el("dl", *(el("div", el("dt", what), el("dd", _command(words))) for what, words in steps), class_="commands"),
        id="rerun",
        aria_labelledby="rerun-title",
    )


def _command(words: Sequence[str]) -> Html:
    """A command whose words are kept whole where lines break."""
    spans = [el("span", word) for word in rerun.quoted(words)]
    return el("code", *(part for span in spans for part in (span, " ")))
