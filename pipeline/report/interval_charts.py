"""Charts of estimates: intervals with the model's figure beside them, and accuracy over confidence."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fcn_core.labels import RGB
from pipeline.report.charts import ROW, Tick, anchor, picture, swatch
from pipeline.report.markup import Html, el

_SIDE = 240
_MARGIN = 34


@dataclass(frozen=True)
class IntervalRow:
    """One line: an estimate with its interval and the model's figure, all 0..1, and the three as people read them."""

    name: str
    value: float
    low: float
    high: float
    model: float
    shown: str
    color: RGB | None = None


@dataclass(frozen=True)
class Point:
    """One point of a scatter: both 0..1, and what a pointer over it says."""

    x: float
    y: float
    tip: str


def interval_chart(chart_id: str, title: str, description: str, rows: Sequence[IntervalRow]) -> Html:
    """A line per row from low to high with a dot at the estimate, and a ring at the model's figure.

    The axis is that of square roots, so that classes of a percent are seen beside those of fifty.
    """
    largest = max((max(row.high, row.model) for row in rows), default=1.0) or 1.0

    def at(share: float) -> str:
        return f"{2 + 94 * math.sqrt(max(share, 0) / largest):.2f}%"

    height = max(1, len(rows)) * ROW
    ticks = [Tick(share, f"{100 * share:g} %") for share in _ticks(largest)]
    drawn = [el("line", x1=at(tick.at), x2=at(tick.at), y1=0, y2=height, class_="grid") for tick in ticks]
    drawn += [
        el("text", tick.word, x=at(tick.at), y=height + 16, text_anchor=anchor(math.sqrt(tick.at / largest)))
        for tick in ticks
    ]
    for index, row in enumerate(rows):
        middle = index * ROW + ROW // 2
        tip = el("title", f"{row.name}: {row.shown}")
        drawn += [
            el("line", tip, x1=at(row.low), x2=at(row.high), y1=middle, y2=middle, class_="interval"),
            el("circle", tip, cx=at(row.model), cy=middle, r=6, class_="predicted"),
            el("circle", tip, cx=at(row.value), cy=middle, r=3.5, class_="estimate"),
        ]
    names = [el("li", swatch(row.color), el("span", row.name, class_="name", title=row.name)) for row in rows]
    return el(
        "div",
        el("ul", *names, class_="bar-names", aria_hidden="true"),
        picture(chart_id, title, description, height + 22, *drawn),
        class_="bars",
    )


def calibration_chart(chart_id: str, title: str, description: str, points: Sequence[Point]) -> Html:
    """Points over the diagonal on which confidence is accuracy."""
    low = min((min(point.x, point.y) for point in points), default=0.0)
    start = math.floor(10 * low - 1e-9) / 10 if low > 0 else 0.0
    span = 1 - start or 1.0

    def place(value: float) -> float:
        return round(_MARGIN + (_SIDE - 2 * _MARGIN) * (value - start) / span, 1)

    first, last = place(start), place(1)
    levels = [start, start + span / 2, 1.0]
    drawn = [
        el("line", x1=place(level), x2=place(level), y1=_SIDE - first, y2=_SIDE - last, class_="grid")
        for level in levels
    ]
    drawn += [
        el("line", x1=first, x2=last, y1=_SIDE - place(level), y2=_SIDE - place(level), class_="grid")
        for level in levels
    ]
    drawn.append(el("line", x1=first, x2=last, y1=_SIDE - first, y2=_SIDE - last, class_="diagonal"))
    drawn += [
        el("circle", el("title", point.tip), cx=place(point.x), cy=_SIDE - place(point.y), r=5, class_="estimate")
        for point in points
    ]
    for level in levels:
        drawn.append(el("text", f"{level:.2g}", x=place(level), y=_SIDE - first + 16, text_anchor="middle"))
        drawn.append(el("text", f"{level:.2g}", x=first - 6, y=_SIDE - place(level) + 4, text_anchor="end"))
    return picture(chart_id, title, description, _SIDE, *drawn)


def _ticks(largest: float) -> list[float]:
    return [share for share in (0, 0.05, 0.2, 0.5, 1.0) if share <= largest] if largest > 0.05 else [0.0, largest]
