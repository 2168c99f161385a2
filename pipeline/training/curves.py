"""The curves of a training run as one SVG picture: loss and validation mean IoU over epochs, stage after stage.

SVG, because a curve is a few kilobytes of text that stays sharp, and every browser, editor and run page shows it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from fcn_core.training.loop import History

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
    body = "".join(_panel(panel, index * _WIDTH, start, stages) for index, panel in enumerate(panels))
    size = f'width="{2 * _WIDTH}" height="{_HEIGHT}" viewBox="0 0 {2 * _WIDTH} {_HEIGHT}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11" fill="{_TEXT}">'
        f'<rect width="{2 * _WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>{body}</svg>'
    )


def _panel(curve: _Curve, offset: int, epochs: float, stages: Sequence[tuple[float, str]]) -> str:
    values = [value for _, value in curve.points if math.isfinite(value)]
    ticks = _ticks(min([0.0, *values]), max(values, default=1.0))
    low, high = ticks[0], ticks[-1]
    across, up = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def x(epoch: float) -> str:
        return f"{offset + _LEFT + across * (epoch / epochs if epochs else 0.0):.1f}"

    def y(value: float) -> str:
        return f"{_TOP + up * (1 - (value - low) / (high - low)):.1f}"

    left, right = offset + _LEFT, offset + _WIDTH - _RIGHT
    parts = [f'<text x="{left}" y="{_TOP - 14}" font-weight="bold">{escape(curve.title)}</text>']
    for tick in ticks:
        parts.append(f'<path d="M{left} {y(tick)}H{right}" stroke="{_GRID}"/>')
        parts.append(f'<text x="{left - 6}" y="{float(y(tick)) + 4:.1f}" text-anchor="end">{tick:.4g}</text>')
    parts += [
        f'<text x="{x(tick)}" y="{_HEIGHT - 22}" text-anchor="middle">{tick:.4g}</text>'
        for tick in _ticks(0.0, epochs)
        if tick <= epochs
    ]
    parts.append(f'<text x="{(left + right) / 2:.1f}" y="{_HEIGHT - 6}" text-anchor="middle">epoch</text>')
    for start, stage in stages:
        parts.append(f'<path d="M{x(start)} {_TOP}V{_HEIGHT - _BOTTOM}" stroke="#888888" stroke-dasharray="3 3"/>')
        parts.append(f'<text x="{float(x(start)) + 4:.1f}" y="{_TOP + 10}" fill="#888888">{escape(stage)}</text>')
    finite = [(x(epoch), y(value)) for epoch, value in curve.points if math.isfinite(value)]
    if len(finite) > 1:
        line = " ".join(",".join(point) for point in finite)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{curve.colour}" stroke-width="1.6"/>')
    dots = finite if len(finite) == 1 else [(x(epoch), y(value)) for epoch, value in curve.marks]
    parts += [f'<circle cx="{cx}" cy="{cy}" r="3.5" fill="{curve.colour}"/>' for cx, cy in dots]
    if not finite:
        parts.append(
            f'<text x="{(left + right) / 2:.1f}" y="{_HEIGHT / 2:.1f}" text-anchor="middle">nothing yet</text>'
        )
    return "".join(parts)


def _thinned(points: Sequence[Point]) -> list[Point]:
    """Every point, or means of runs of neighbours where there are too many."""
    size = -(-len(points) // POINTS_AT_MOST) or 1
    runs = (points[first : first + size] for first in range(0, len(points), size))
    return [(run[-1][0], sum(value for _, value in run) / len(run)) for run in runs]


def _ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers that span low..high."""
    span = high - low or 1.0
    step = 10.0 ** math.floor(math.log10(span / 3))
    step = next(step * factor for factor in (1, 2, 5, 10) if span / (step * factor) <= 5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, max(last, first + 1) + 1)]
