"""An estimate as one HTML page: the model beside the truth, per class, and how far its confidence is to be believed."""

from collections.abc import Mapping

from fcn_core.labels import RGB, LabelSet
from pipeline.audit.results import ClassEstimate, Estimate, Ratio
from pipeline.numbers import count, counted, fixed, percent, score
from pipeline.report.interval_charts import IntervalRow, Point, calibration_chart, interval_chart
from pipeline.report.markup import Html, el
from pipeline.report.page import document, top_bar

NAMED = 100
"""Images without a usable annotation that the page lists."""


def audit_page(estimate: Estimate, labels: LabelSet) -> str:
    """The whole document."""
    colors = dict(zip(labels.names, labels.palette, strict=True))
    return document(f"Audit {estimate.audit_id}", _header(estimate), _main(estimate, colors), _footer())


def _header(estimate: Estimate) -> Html:
    drawn = f"{count(estimate.annotated)} of {count(estimate.drawn)} images drawn at random were annotated"
    return el(
        "header",
        *top_bar("audit", "audit"),
        el("h1", "Areas and accuracies with error bars"),
        el(
            "p",
            f"{counted(estimate.images, 'image')} of ",
            el("bdi", estimate.output, class_="path"),
            ", masks of recipe ",
            el("span", estimate.recipe, class_="run-id"),
            f" by model {estimate.model_id}"
            + (f", where {estimate.where}" if estimate.where else "")
            + f". {drawn}. {estimate.created:%d %B %Y, %H:%M} UTC.",
            class_="lead",
        ),
    )


def _main(estimate: Estimate, colors: Mapping[str, RGB]) -> Html:
    notes = [el("p", note, class_="notice") for note in estimate.notes]
    return el(
        "main",
        *notes,
        _glance(estimate),
        _shares("areas", "Areas", estimate.classes, colors),
        _accuracy(estimate),
        *(
            _shares(f"domain-{number}", domain.name or "(no folder)", domain.classes, colors)
            for number, domain in enumerate(estimate.domains)
            if domain.classes
        ),
        _not_used(estimate),
        id="main",
    )


def _glance(estimate: Estimate) -> Html:
    tiles = [
        _tile(score(estimate.accuracy.value), "pixel accuracy", _between(estimate.accuracy)),
        _tile(score(estimate.mean_iou.value), "mean IoU", _between(estimate.mean_iou)),
        _tile(percent(estimate.response), "of the sample annotated", f"{count(estimate.annotated)} images"),
        _tile(percent(estimate.void), "void", "pixels that annotators gave no class"),
    ]
    return el("section", el("h2", "At a glance", class_="unseen"), el("dl", *tiles, class_="tiles"), id="glance")


def _tile(value: str, name: str, more: str) -> Html:
    words = (el("dt", name), el("dd", value, class_="value"), el("dd", more, class_="quiet"))
    return el("div", *words, class_="tile")


def _shares(anchor: str, title: str, classes: tuple[ClassEstimate, ...], colors: Mapping[str, RGB]) -> Html:
    ordered = sorted(classes, key=lambda each: (-each.share, each.class_id))
    rows = [
        IntervalRow(
            each.name, each.share, each.low, each.high, each.model_share,
            f"{percent(each.share)} ({percent(each.low)} to {percent(each.high)}), the model said "
            f"{percent(each.model_share)}",
            colors.get(each.name),
        )
        for each in ordered
    ]  # fmt: skip
    chart = interval_chart(
        f"{anchor}-chart", f"{title}: share of the labelled pixels, by class",
        "Intervals that hold the true share in 95 of 100 audits, with the estimate as a dot and the model's figure as "
        "a ring. The axis is that of square roots.",
        rows,
    )  # fmt: skip
    table = el(
        "table",
        el("caption", "Estimate, interval and model", class_="unseen"),
        el("thead", el("tr", *(el("th", name, scope="col") for name in _COLUMNS))),
        el("tbody", *(_row(each) for each in ordered)),
    )
    return el(
        "section",
        el("h2", title, id=anchor),
        el(
            "div",
            el(
                "figure",
                el("figcaption", el("p", "Line and dot: estimate with its 95 % interval. Ring: what the model says.")),
                chart,
                class_="panel",
            ),
            el("div", _wide(table), class_="panel"),
            class_="pair",
        ),
        aria_labelledby=anchor,
    )


_COLUMNS = ("class", "share", "95 % interval", "model said", "bias", "95 % interval of the bias")


def _row(each: ClassEstimate) -> Html:
    cells = (
        percent(each.share, 2) + ("*" if each.widened else ""),
        f"{percent(each.low, 2)} to {percent(each.high, 2)}",
        percent(each.model_share, 2),
        _points(each.bias),
        f"{_points(each.bias_low)} to {_points(each.bias_high)}",
    )
    return el("tr", el("th", each.name, scope="row"), *(el("td", cell) for cell in cells))


def _wide(table: Html) -> Html:
    """A table that a phone scrolls; by keyboard, too."""
    return el("div", table, class_="scroll numbers", tabindex=0, role="region", aria_label="Table")


def _points(value: float) -> str:
    return f"{fixed(100 * value, 2, '+')} %"


def _accuracy(estimate: Estimate) -> Html:
    names = ("IoU", "precision", "recall")
    body = [
        el(
            "tr",
            el("th", each.name, scope="row"),
            *(el("td", _with_interval(ratio)) for ratio in (each.iou, each.precision, each.recall)),
        )
        for each in estimate.classes
    ]
    table = el(
        "table",
        el("caption", "Scores by class with 95 % intervals", class_="unseen"),
        el("thead", el("tr", el("th", "class", scope="col"), *(el("th", name, scope="col") for name in names))),
        el("tbody", *body),
    )
    points = [
        Point(
            each.confidence,
            each.accuracy,
            f"{counted(each.images, 'image')}: confidence {score(each.confidence)}, accuracy {score(each.accuracy)}",
        )
        for each in estimate.calibration
    ]
    words = "; ".join(f"{score(each.confidence)}: accuracy {score(each.accuracy)}" for each in estimate.calibration)
    chart = calibration_chart(
        "calibration-chart",
        "Pixel accuracy over the model's confidence",
        f"Images of like confidence: {words}.",
        points,
    )
    return el(
        "section",
        el("h2", "Accuracy", id="accuracy"),
        el(
            "div",
            el("div", _wide(table), class_="panel"),
            el(
                "figure",
                el(
                    "figcaption",
                    el("h3", "Calibration of confidence"),
                    el("p", "Across: mean confidence. Up: pixel accuracy. On the broken line both are equal."),
                ),
                chart,
                class_="panel",
            ),
            class_="pair",
        ),
        aria_labelledby="accuracy",
    )


def _with_interval(ratio: Ratio | None) -> str:
    if ratio is None or ratio.value is None:
        return "-"
    return f"{score(ratio.value)} ({_between(ratio)})"


def _between(ratio: Ratio) -> str:
    return "" if ratio.value is None else f"{score(ratio.low)} to {score(ratio.high)}"


def _not_used(estimate: Estimate) -> Html | None:
    if not estimate.not_used:
        return None
    items = [el("li", el("code", each.key), f": {each.reason}") for each in estimate.not_used[:NAMED]]
    more = len(estimate.not_used) - NAMED
    return el(
        "section",
        el("h2", "Drawn and not used", id="not-used"),
        el(
            "div",
            el("p", "The annotated images of their strata stand for them."),
            el("ul", *items),
            el("p", f"and {counted(more, 'image')} more, in estimate.json", class_="quiet") if more > 0 else None,
            class_="panel",
        ),
        aria_labelledby="not-used",
    )


def _footer() -> Html:
    return el(
        "footer",
        el(
            "p",
            "* all images of the sample have one error, mostly none; what so many cannot have missed is the interval.",
        ),
        el("p", "What intervals mean, and what they do not: docs/audit.md. This page is one file and loads nothing."),
    )
