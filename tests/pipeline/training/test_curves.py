"""The curves of a training as SVG: well formed, of bounded size, and with the numbers at the right places."""

import math
from xml.etree import ElementTree

import pytest

from fcn_core.metrics import Scores
from fcn_core.training.loop import History, LossPoint, ValidationPoint
from pipeline.training.curves import POINTS_AT_MOST, draw_curves

SVG = "{http://www.w3.org/2000/svg}"


def history(losses: list[float], scores: list[float | None]) -> History:
    """A loss per step, two steps per epoch; a score per epoch."""
    return History(
        losses=[
            LossPoint(step=step, epoch=step / 2, loss=loss, learning_rate=0.1) for step, loss in enumerate(losses, 1)
        ],
        validations=[
            ValidationPoint(step=2 * epoch, epoch=epoch, scores=only(score)) for epoch, score in enumerate(scores, 1)
        ],
    )


def only(mean_iou: float | None) -> Scores:
    return Scores(
        pixel_accuracy=None,
        mean_accuracy=None,
        mean_iou=mean_iou,
        frequency_weighted_iou=None,
        per_class_iou=(),
        pixels=0,
    )


def drawn(histories: dict[str, History]) -> tuple[list[list[tuple[float, float]]], str]:
    """The lines' points and all text of the picture."""
    document = ElementTree.fromstring(draw_curves(histories))
    lines = [
        [(float(x), float(y)) for x, _, y in (pair.partition(",") for pair in line.attrib["points"].split())]
        for line in document.iter(f"{SVG}polyline")
    ]
    return lines, " ".join(text.text or "" for text in document.iter(f"{SVG}text"))


def test_a_falling_loss_and_a_rising_score_are_drawn_so() -> None:
    (loss, score), text = drawn({"fcn8s": history([4.0, 3.0, 2.0, 1.0], [0.2, 0.6])})
    assert [y for _, y in loss] == sorted(y for _, y in loss), "down the page"
    assert score[1][1] < score[0][1], "up the page"
    assert [x for x, _ in loss] == sorted(x for x, _ in loss)
    assert "best 0.6000 at epoch 2" in text
    assert "fcn8s" not in text, "one stage needs no name"


def test_stages_follow_each_other() -> None:
    stages = {"fcn32s": history([4.0, 3.0], [0.5]), "fcn16s": history([2.0, 1.0], [0.4])}
    (loss, _), text = drawn(stages)
    assert len(loss) == 4
    assert [x for x, _ in loss] == sorted({x for x, _ in loss})
    assert "fcn32s" in text
    assert "fcn16s" in text
    assert "best 0.4000 at epoch 2" in text, "of the last stage, whose best model is the run's"


def test_a_long_training_is_no_long_picture() -> None:
    long = history([1.0 + math.sin(step) for step in range(100_000)], [0.5] * 1000)
    (loss, score), _ = drawn({"fcn8s": long})
    assert len(loss) <= POINTS_AT_MOST
    assert len(score) <= POINTS_AT_MOST
    assert len(draw_curves({"fcn8s": long})) < 40_000


@pytest.mark.parametrize(
    "histories",
    [{}, {"fcn8s": History()}, {"fcn8s": history([1.0], [])}, {"fcn8s": history([0.0, 0.0], [None, 0.0])},
     {"fcn8s": history([1e9, 2e9, 1e12], [1.0])}, {"<&>": history([1.0], [0.1]), "b": history([1.0], [0.1])}],
)  # fmt: skip
def test_a_training_of_any_shape_gives_a_picture(histories: dict[str, History]) -> None:
    lines, _ = drawn(histories)
    assert all(math.isfinite(x) and math.isfinite(y) for line in lines for x, y in line)
