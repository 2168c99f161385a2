"""Charts as inline SVG. Bars are placed in percent of the width and text in pixels, so that a chart fits any screen and
its letters keep their size. Each has a title and a description for screen readers; tables beside them say the same.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from fcn_core.labels import RGB
from pipeline.report.markup import Html, el, join

ROW = 26
"""Pixels that a horizontal bar takes, its gap included; the style sheet has the same."""

PLOT_HEIGHT = 180
_TOP, _AXIS = 12, 24
_WIDEST = 80.0
"""Percent of the width that the longest horizontal bar has; its number stands beside it."""


@dataclass(frozen=True)
class Bar:
    """One horizontal bar: its name, value 0..1, and the value as people read it."""

    name: str
    value: float
    shown: str
    color: RGB | None = None


@dataclass(frozen=True)
class Column:
    """One column: its value, and what a pointer over it says."""

    value: float
    tip: str


@dataclass(frozen=True)
class Tick:
    """A word on the horizontal axis. `at` is in 0..1 of the width."""

    at: float
    word: str


def bars(chart_id: str, title: str, description: str, rows: Sequence[Bar]) -> Html:
    """Horizontal bars with their names on the left."""
    longest = max((row.value for row in rows), default=0.0) or 1.0
    colored = any(row.color for row in rows)
    marks = []
    for index, row in enumerate(rows):
        top, width = index * ROW, _WIDEST * row.value / longest
        bar = el(
            "rect",
            el("title", f"{row.name}: {row.shown}"),
            x="0",
            y=top + 5,
            width=f"{max(width, 0.4):.2f}%",
            height=ROW - 10,
            rx=3,
            class_="bar",
            fill=hex_color(row.color) if row.color else None,
        )
        marks += [bar, el("text", row.shown, x=f"{width:.2f}%", dx=7, y=top + ROW // 2, dominant_baseline="central")]
    names = [
        el("li", swatch(row.color) if colored else None, el("span", row.name, class_="name", title=row.name))
        for row in rows
    ]
    return el(
        "div",
        # The names are in the description and in the table; a screen reader need not hear them a third time.
        el("ul", *names, class_="bar-names", aria_hidden="true"),
        picture(chart_id, title, description, max(1, len(rows)) * ROW, *marks),
        class_="bars",
    )


def columns(
    chart_id: str,
    title: str,
    description: str,
    values: Sequence[Column],
    ticks: Sequence[Tick],
    marks: Sequence[Tick] = (),
) -> Html:
    """Columns side by side over an axis that begins at nought; `marks` are broken lines with a word."""
    levels = levels_to(max((column.value for column in values), default=0.0))
    height = PLOT_HEIGHT - _TOP - _AXIS

    def y(value: float) -> float:
        return round(_TOP + height * (1 - value / levels[-1]), 1)

    each = 100 / max(1, len(values))
    drawn = [el("line", x1="0", x2="100%", y1=y(level), y2=y(level), class_="grid") for level in levels]
    drawn += [
        el(
            "rect",
            el("title", column.tip),
            x=f"{index * each + each * 0.06:.3f}%",
            width=f"{each * 0.88:.3f}%",
            y=y(column.value),
            height=round(y(0) - y(column.value), 1),
            class_="column",
        )
        for index, column in enumerate(values)
    ]
    for mark in marks:
        at = f"{100 * mark.at:.2f}%"
        drawn.append(el("line", x1=at, x2=at, y1=_TOP, y2=y(0), class_="mark"))
        drawn.append(el("text", mark.word, x=at, y=_TOP - 2, text_anchor=anchor(mark.at)))
    drawn += [
        el("text", tick.word, x=f"{100 * tick.at:.2f}%", y=PLOT_HEIGHT - 6, text_anchor=anchor(tick.at))
        for tick in ticks
    ]
    words = [f"{level:g}" for level in levels]
    width = 8 * max(map(len, words)) + 8
    axis = [
        el("text", word, x=width - 8, y=y(level), text_anchor="end", dominant_baseline="central")
        for word, level in zip(words, levels, strict=True)
    ]
    return el(
        "div",
        el("svg", *axis, width=width, height=PLOT_HEIGHT, aria_hidden="true", class_="axis"),
        picture(chart_id, title, description, PLOT_HEIGHT, *drawn),
        class_="columns",
    )


def swatch(color: RGB | None) -> Html:
    """A small square in a class's colour."""
    square = el("rect", x=0.5, y=0.5, width=13, height=13, rx=3, fill=hex_color(color) if color else "none")
    return el("svg", square, width=14, height=14, class_="swatch", aria_hidden="true")


def hex_color(color: RGB) -> str:
    """ "#rrggbb"."""
    return "#" + bytes(color).hex()


def levels_to(largest: float) -> list[float]:
    """Three to six round numbers from 0 to at least `largest`."""
    if largest <= 0 or not math.isfinite(largest):
        return [0.0, 1.0]
    step = round_step(largest, 4)
    return [round(step * index, 12) for index in range(math.ceil(largest / step - 1e-9) + 1)]


def round_step(span: float, most: int) -> float:
    """The least of the steps 1, 2, 5, 10, ... (times a power of ten) of which at most `most` cover `span`."""
    step = 10.0 ** math.floor(math.log10(span / 3))
    return next(step * factor for factor in (1, 2, 5, 10) if span / (step * factor) <= most)


def picture(chart_id: str, title: str, description: str, height: int, *marks: str) -> Html:
    """Marks as one image with a title and a description, as wide as there is room and `height` pixels high."""
    return el(
        "svg",
        el("title", title, id=f"{chart_id}-title"),
        el("desc", description, id=f"{chart_id}-desc"),
        join(*marks),
        id=chart_id,
        width="100%",
        height=height,
        role="img",
        aria_labelledby=f"{chart_id}-title",
        aria_describedby=f"{chart_id}-desc",
        class_="plot",
    )


def anchor(at: float) -> str:
    """How a word at 0..1 of the width is anchored, so that it stays within."""
    return "start" if at < 0.08 else "end" if at > 0.92 else "middle"
