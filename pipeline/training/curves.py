"""The curves of a training run as one SVG picture: loss and validation mean IoU over epochs, stage after stage.

SVG, because a curve is a few kilobytes of text that stays sharp, and every browser, editor and run page shows it.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from fcn_core.training.loop import History
from pipeline.report.charts import round_step
from pipeline.report.markup import Html, el

POINTS_AT_MOST = 400
"""A curve with more is thinned to this many, each the mean of its neighbours."""

_WIDTH, _HEIGHT = 440, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 34, 40
_LOSS, _SCORE, _GRID, _TEXT = "#c0392b", "#1f6fb2", "#dddddd", "#333333"

Point = tuple[float, float]


@dataclass(frozen=True)
class _Curve:
    """A panel: what is drawn, over epochs of all stages, and a word about it. `marks` are drawn as dots."""

    title: str
    colour: str
    points: Sequence[Point]
    marks: Sequence[Point] = ()


def draw_curves(histories: Mapping[str, History]) -> str:
    """An SVG document of the histories, by stage in the order they were trained; each begins where the one before
    ended.
    """
    losses: list[Point] = []
    scores: list[Point] = []
    borders: list[tuple[float, str]] = []
    best: Point | None = None
    start = 0.0
    for stage, history in histories.items():
        borders.append((start, stage))
        losses += [(start + point.epoch, point.loss) for point in history.losses]
        scores += [
            (start + point.epoch, point.scores.mean_iou)
            for point in history.validations
            if point.scores.mean_iou is not None
        ]
        # Of the last stage: that is the one whose best model counts.
        best = (start + history.best.epoch, history.best.scores.mean_iou or 0.0) if history.best else None
        ends = [curve[-1].epoch for curve in (history.losses, history.validations) if curve]
        start += max(ends, default=0.0)
    title = "validation mean IoU" + (f", best {best[1]:.4f} at epoch {best[0]:.4g}" if best else "")
    panels = (
        _Curve("training loss", _LOSS, _thinned(losses)),
        _Curve(title, _SCORE, _thinned(scores), marks=[best] if best else ()),
    )
    stages = borders if len(borders) > 1 else []
    width = 2 * _WIDTH
    drawn = (mark for index, panel in enumerate(panels) for mark in _panel(panel, index * _WIDTH, start, stages))
    return el(
        "svg",
        el("rect", width=width, height=_HEIGHT, fill="#ffffff"),
        *drawn,
        xmlns="http://www.w3.org/2000/svg",
        width=width,
        height=_HEIGHT,
        viewBox=f"0 0 {width} {_HEIGHT}",
        font_family="sans-serif",
        font_size=11,
        fill=_TEXT,
    )


def _panel(curve: _Curve, offset: int, epochs: float, stages: Sequence[tuple[float, str]]) -> Iterator[Html]:
    values = [value for _, value in curve.points if math.isfinite(value)]
    ticks = _ticks(min([0.0, *values]), max(values, default=1.0))
    low, high = ticks[0], ticks[-1]
    across, up = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def x(epoch: float) -> str:
        return f"{offset + _LEFT + across * (epoch / epochs if epochs else 0.0):.1f}"

    def y(value: float) -> str:
        return f"{_TOP + up * (1 - (value - low) / (high - low)):.1f}"

    left, right = offset + _LEFT, offset + _WIDTH - _RIGHT
    middle = f"{(left + right) / 2:.1f}"
    yield el("text", curve.title, x=left, y=_TOP - 14, font_weight="bold")
    for tick in ticks:
        yield el("path", d=f"M{left} {y(tick)}H{right}", stroke=_GRID)
        yield el("text", f"{tick:.4g}", x=left - 6, y=f"{float(y(tick)) + 4:.1f}", text_anchor="end")
    for tick in _ticks(0.0, epochs):
        if tick <= epochs:
            yield el("text", f"{tick:.4g}", x=x(tick), y=_HEIGHT - 22, text_anchor="middle")
    yield el("text", "epoch", x=middle, y=_HEIGHT - 6, text_anchor="middle")
    for start, stage in stages:
        yield el("path", d=f"M{x(start)} {_TOP}V{_HEIGHT - _BOTTOM}", stroke="#888888", stroke_dasharray="3 3")
        yield el("text", stage, x=f"{float(x(start)) + 4:.1f}", y=_TOP + 10, fill="#888888")
    finite = [(x(epoch), y(value)) for epoch, value in curve.points if math.isfinite(value)]
    if len(finite) > 1:
        line = " ".join(",".join(point) for point in finite)
        yield el("polyline", points=line, fill="none", stroke=curve.colour, stroke_width=1.6)
    for cx, cy in finite if len(finite) == 1 else [(x(epoch), y(value)) for epoch, value in curve.marks]:
        yield el("circle", cx=cx, cy=cy, r=3.5, fill=curve.colour)
    if not finite:
        yield el("text", "nothing yet", x=middle, y=f"{_HEIGHT / 2:.1f}", text_anchor="middle")


def _thinned(points: Sequence[Point]) -> list[Point]:
    """Every point, or means of runs of neighbours where there are too many."""
    size = -(-len(points) // POINTS_AT_MOST) or 1
    runs = (points[first : first + size] for first in range(0, len(points), size))
    return [(run[-1][0], sum(value for _, value in run) / len(run)) for run in runs]


def _ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers that span low..high."""
    span = high - low or 1.0
    step = round_step(span, 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, max(last, first + 1) + 1)]
