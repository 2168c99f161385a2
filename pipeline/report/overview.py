"""The page of a whole output: what is current in it, over all runs, and the runs with links to their reports."""

from collections.abc import Sequence
from itertools import islice

from pipeline.errors import ObjectMissing, StorageError
from pipeline.numbers import count, counted, duration, percent, rate, score
from pipeline.outputs.runs import RunRecord, records, run_ids
from pipeline.outputs.standing import standing
from pipeline.report import sections
from pipeline.report.charts import Column, Tick, columns
from pipeline.report.gallery import gallery, nothing_shown
from pipeline.report.make import EACH, RANDOM, open_photos, picture_groups, report_key
from pipeline.report.markup import Html, el
from pipeline.report.model_card import class_colors, read_card
from pipeline.report.page import document, top_bar
from pipeline.report.panels import table, tile, tiles
from pipeline.report.pictures import ImageRenderer
from pipeline.report.rerun import without_secrets
from pipeline.report.summary import SPARES, Summary, summarize_current
from pipeline.storage.store import Store

OVERVIEW_KEY = "reports/index.html"
"""Where under OUTPUT the page is."""

RUNS = 100
"""Runs on the page, the newest; each costs a GET."""


def make_overview(output: Store, *, links: bool) -> str:
    """The page. `links`: to the reports of the runs that have one, for a page that lies at OVERVIEW_KEY.

    Reads every committed result of the newest variant. Raises ObjectMissing where there is no run, and other
    PipelineErrors when results cannot be read.
    """
    everything = len(run_ids(output))
    found = [_standing(output, record) for record in islice(records(output), RUNS)]
    if not found:
        raise ObjectMissing(f"there is no run under {output.uri}.")
    linked = {info.key for info in output.list("reports/")} if links else set()
    newest = found[0]
    summary = summarize_current(output, shown=EACH, sampled=RANDOM * SPARES)
    card = read_card(newest)
    colors = class_colors(card, summary, output)
    source, trouble = open_photos(newest)
    wanted = list(picture_groups(summary, None))
    with ImageRenderer(source, output) as renderer:
        rendered = renderer.render([(requests, shown) for _, requests, shown in wanted])
    groups = [group.with_images(images) for (group, _, _), images in zip(wanted, rendered, strict=True) if images]
    planned = summary.images or newest.images
    errors = sections.errors(summary, planned)
    main = el(
        "main",
        _headline(summary, planned, everything),
        errors if summary.mostly_failed else None,
        _runs(found, everything, linked),
        gallery(groups, colors, trouble if summary.ok else "", nothing_shown(summary)),
        sections.classes(summary, colors, card),
        None if summary.mostly_failed else errors,
        id="main",
    )
    footer = el("footer", el("p", "Made by fcn-pipeline. This page is one file and loads nothing."))
    return document(f"Output {output.uri}", _header(output, newest, summary), main, footer)


def _standing(output: Store, record: RunRecord) -> RunRecord:
    try:
        return standing(output, record)
    except StorageError:  # one damaged file must not hide the other runs; its numbers are as its driver left them
        return record


def _header(output: Store, newest: RunRecord, summary: Summary) -> Html:
    parts = (("runs", "Runs"), ("pictures", "Pictures"), ("classes", "Classes"), ("errors", "Errors"))
    return el(
        "header",
        *top_bar("numbers", "output"),
        el("h1", el("bdi", without_secrets(output.uri), class_="path")),
        el(
            "p",
            f"{counted(summary.images, 'image')} by the newest variant, model ",
            el("span", newest.model_id, class_="run-id"),
            f", as of run {newest.run_id}.",
            class_="lead",
        ),
        el(
            "nav",
            el("ul", *(el("li", el("a", name, href=f"#{at}")) for at, name in parts if at != "classes" or summary.ok)),
            aria_label="Parts of the page",
        ),
    )


def _headline(summary: Summary, planned: int, runs: int) -> Html:
    failed = summary.images - summary.ok
    return tiles(
        [
            tile(count(summary.ok), "images with a mask" if summary.ok != 1 else "image with a mask", ""),
            tile(
                el("a", count(failed), href="#errors") if failed else "0",
                "failed",
                f"{percent(failed / summary.images)} of the images"
                if failed
                else sections.without_failures(summary, planned),
                alarming=failed > 0,
            ),
            tile(score(summary.mean_confidence, 2) if summary.ok else "-", "mean confidence", ""),
            tile(count(sum(1 for total in summary.classes if total.pixels)), "classes found", ""),
            tile(count(runs), "run" if runs == 1 else "runs", ""),
        ]
    )


def _runs(found: Sequence[RunRecord], everything: int, linked: set[str]) -> Html:
    rows = []
    for record in found:
        name = el("span", record.run_id, class_="run-id")
        has_page = report_key(record.run_id) in linked
        rows.append(
            el(
                "tr",
                el("th", el("a", name, href=f"{record.run_id}/index.html") if has_page else name, scope="row"),
                el("td", record.state),
                *(
                    el("td", value, class_="number")
                    for value in (
                        count(record.counts.images),
                        count(record.counts.failed),
                        rate(record.images_per_second) if record.seconds else "-",
                        duration(record.seconds) if record.seconds else "-",
                    )
                ),
                el("td", record.model_id, class_="number"),
            )
        )
    left = everything - len(found)
    caption = "Runs, the newest first" + (f"; `fcn runs` has the other {count(left)}" if left > 0 else "")
    head = ("run", "state", "images", "failed", "images/s", "time", "model")
    as_table = el("div", table(caption, head, rows, numbers_from=2), class_="panel numbers")
    oldest_first = list(reversed(found))
    chart = columns(
        "run-images",
        "Images of each run",
        f"A column for each of {counted(len(found), 'run')}, the oldest first.",
        [
            Column(
                each.counts.images,
                f"{each.run_id}: {counted(each.counts.images, 'image')}, {each.counts.failed} failed",
            )
            for each in oldest_first
        ],
        [Tick(0.0, f"{oldest_first[0].started:%Y-%m-%d}"), Tick(1.0, f"{oldest_first[-1].started:%Y-%m-%d}")],
    )
    figure = el("figure", el("figcaption", el("h3", "Images of each run")), chart, class_="panel")
    return el(
        "section",
        el("h2", "Runs", id="runs-title"),
        as_table,
        figure if len(found) > 1 else None,
        id="runs",
        aria_labelledby="runs-title",
    )
