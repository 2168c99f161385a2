"""The curves of a training run as SVG, over epochs, stage after stage: two panels as one picture, or a page's panels.

SVG, because a curve is a few kilobytes of text that stays sharp, and every browser, editor and run page shows it.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from fcn_core.labels import LabelSet
from fcn_core.training.loop import History, LossPoint, ValidationPoint
from pipeline.report.charts import hex_color, round_step
from pipeline.report.markup import Html, el
from pipeline.training.records import Measured

POINTS_AT_MOST = 400
"""A curve with more is thinned to this many, each the mean of its neighbours."""

CLASSES_AT_MOST = 40
"""Curves in the panel of the classes: those with the lowest IoU."""

_WIDTH, _HEIGHT = 440, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 34, 40
_LOSS, _SCORE, _OTHER, _GRID, _TEXT = "#c0392b", "#1f6fb2", "#5b6b7b", "#dddddd", "#333333"
_TOO_BRIGHT = 600
"""The sum of a colour's channels from which on a line of it is not seen on white."""

Point = tuple[float, float]


@dataclass(frozen=True)
class _Line:
    """One curve over epochs of all stages. `name` is what a pointer over it says."""

    colour: str
    points: Sequence[Point]
    name: str = ""


@dataclass(frozen=True)
class Panel:
    """A panel: what is drawn, over epochs of all stages. `marks` are drawn as dots."""

    title: str
    lines: Sequence[_Line]
    marks: Sequence[Point] = ()


@dataclass(frozen=True)
class Curves:
    """What a stage's curves are drawn from."""

    history: History
    measured: Mapping[str, Measured] = field(default_factory=dict)


def draw_curves(histories: Mapping[str, History]) -> str:
    """An SVG document of loss and mean IoU, by stage in the order they were trained; each begins where the one before
    ended.
    """
    stages = {name: Curves(history) for name, history in histories.items()}
    panels = (_loss(stages), _mean_iou(stages))
    drawn = (mark for index, panel in enumerate(panels) for mark in _drawn(panel, index * _WIDTH, stages))
    return _picture(2 * _WIDTH, *drawn)


def panels(stages: Mapping[str, Curves], labels: LabelSet) -> list[Panel]:
    """All panels of a training's page that have something to show."""
    found = [
        _loss(stages),
        _mean_iou(stages),
        _class_ious(stages, labels),
        Panel("learning rate", [_of_losses(stages, lambda point: point.learning_rate)]),
        Panel("norm of the gradient", [_of_losses(stages, lambda point: point.grad_norm)]),
        Panel("images per second", [_of_measured(stages, lambda measured: measured.images_per_second)]),
        Panel(
            "memory of the first worker, GiB", [_of_measured(stages, lambda measured: measured.memory_bytes / 2**30)]
        ),
    ]
    return [panel for panel in found if any(line.points for line in panel.lines)]


def draw_panel(panel: Panel, stages: Mapping[str, Curves]) -> Html:
    """One panel as a picture of its own."""
    return _picture(_WIDTH, *_drawn(panel, 0, stages), role="img", aria_label=f"{panel.title}, over epochs")


def _picture(width: int, *marks: Html, **attributes: str) -> Html:
    return el(
        "svg",
        el("rect", width=width, height=_HEIGHT, fill="#ffffff"),
        *marks,
        xmlns="http://www.w3.org/2000/svg",
        width=width,
        height=_HEIGHT,
        viewBox=f"0 0 {width} {_HEIGHT}",
        font_family="sans-serif",
        font_size=11,
        fill=_TEXT,
        **attributes,
    )


def _starts(stages: Mapping[str, Curves]) -> dict[str, float]:
    """The epoch that each stage begins with, and under "" that after the last."""
    starts, start = {}, 0.0
    for name, curves in stages.items():
        starts[name] = start
        both = (curves.history.losses, curves.history.validations)
        start += max((curve[-1].epoch for curve in both if curve), default=0.0)
    return starts | {"": start}


def _over_epochs(
    stages: Mapping[str, Curves], values: Callable[[Curves], Iterator[tuple[float, float | None]]]
) -> list[Point]:
    """The values of all stages at their epochs, thinned; None is left out."""
    starts = _starts(stages)
    return _thinned(
        [
            (starts[name] + epoch, value)
            for name, curves in stages.items()
            for epoch, value in values(curves)
            if value is not None
        ]
    )


def _of_losses(stages: Mapping[str, Curves], value: Callable[[LossPoint], float | None], colour: str = _OTHER) -> _Line:
    return _Line(
        colour, _over_epochs(stages, lambda curves: ((point.epoch, value(point)) for point in curves.history.losses))
    )


def _of_validations(
    stages: Mapping[str, Curves], value: Callable[[ValidationPoint], float | None], colour: str, name: str = ""
) -> _Line:
    points = _over_epochs(stages, lambda curves: ((point.epoch, value(point)) for point in curves.history.validations))
    return _Line(colour, points, name)


def _of_measured(stages: Mapping[str, Curves], value: Callable[[Measured], float]) -> _Line:
    def values(curves: Curves) -> Iterator[tuple[float, float | None]]:
        for point in curves.history.losses:
            if (found := curves.measured.get(str(point.step))) is not None:
                yield point.epoch, value(found)

    return _Line(_OTHER, _over_epochs(stages, values))


def _loss(stages: Mapping[str, Curves]) -> Panel:
    return Panel("training loss", [_of_losses(stages, lambda point: point.loss, _LOSS)])


def _mean_iou(stages: Mapping[str, Curves]) -> Panel:
    title, marks = "validation mean IoU", []
    # Of the last stage: that is the one whose best model counts.
    last = next(reversed(list(stages)), "")
    if last and (best := stages[last].history.best) is not None:
        epoch, mean_iou = _starts(stages)[last] + best.epoch, best.scores.mean_iou or 0.0
        title, marks = f"{title}, best {mean_iou:.4f} at epoch {epoch:.4g}", [(epoch, mean_iou)]
    return Panel(title, [_of_validations(stages, lambda point: point.scores.mean_iou, _SCORE)], marks)


def _class_ious(stages: Mapping[str, Curves], labels: LabelSet) -> Panel:
    lines = []
    for index, (name, color) in enumerate(zip(labels.names, labels.palette, strict=True)):
        colour = hex_color(color) if sum(color) < _TOO_BRIGHT else "#999999"
        lines.append(_of_validations(stages, partial(_iou, index), colour, name))
    scored = sorted((line for line in lines if line.points), key=lambda line: line.points[-1][1])
    kept = scored[:CLASSES_AT_MOST]
    which = f", the {len(kept)} lowest of {len(scored)}" if len(kept) < len(scored) else ""
    return Panel(f"validation IoU by class{which}", kept)


def _iou(index: int, point: ValidationPoint) -> float | None:
    ious = point.scores.per_class_iou
    return ious[index] if index < len(ious) else None


def _drawn(panel: Panel, offset: int, stages: Mapping[str, Curves]) -> Iterator[Html]:
    starts = _starts(stages)
    epochs = starts[""]
    values = [value for line in panel.lines for _, value in line.points if math.isfinite(value)]
    ticks = _ticks(min([0.0, *values]), max(values, default=1.0))
    low, high = ticks[0], ticks[-1]
    across, up = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def x(epoch: float) -> str:
        return f"{offset + _LEFT + across * (epoch / epochs if epochs else 0.0):.1f}"

    def y(value: float) -> str:
        return f"{_TOP + up * (1 - (value - low) / (high - low)):.1f}"

    left, right = offset + _LEFT, offset + _WIDTH - _RIGHT
    middle = f"{(left + right) / 2:.1f}"
    yield el("text", panel.title, x=left, y=_TOP - 14, font_weight="bold")
    for tick in ticks:
        yield el("path", d=f"M{left} {y(tick)}H{right}", stroke=_GRID)
        yield el("text", f"{tick:.4g}", x=left - 6, y=f"{float(y(tick)) + 4:.1f}", text_anchor="end")
    for tick in _ticks(0.0, epochs):
        if tick <= epochs:
            yield el("text", f"{tick:.4g}", x=x(tick), y=_HEIGHT - 22, text_anchor="middle")
    yield el("text", "epoch", x=middle, y=_HEIGHT - 6, text_anchor="middle")
    for stage in stages if len(stages) > 1 else ():
        at = x(starts[stage])
        yield el("path", d=f"M{at} {_TOP}V{_HEIGHT - _BOTTOM}", stroke="#888888", stroke_dasharray="3 3")
        yield el("text", stage, x=f"{float(at) + 4:.1f}", y=_TOP + 10, fill="#888888")
    drawn = False
    for line in panel.lines:
        finite = [(x(epoch), y(value)) for epoch, value in line.points if math.isfinite(value)]
        drawn = drawn or bool(finite)
        tip = el("title", line.name) if line.name else None
        if len(finite) > 1:
            points = " ".join(",".join(point) for point in finite)
            yield el("polyline", tip, points=points, fill="none", stroke=line.colour, stroke_width=1.6)
        elif finite:
            yield el("circle", tip, cx=finite[0][0], cy=finite[0][1], r=3.5, fill=line.colour)
    if drawn:
        for epoch, value in panel.marks:
            yield el("circle", cx=x(epoch), cy=y(value), r=3.5, fill=panel.lines[0].colour)
    else:
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
