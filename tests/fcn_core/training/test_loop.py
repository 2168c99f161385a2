from dataclasses import replace

import numpy as np
import pytest
import torch

from fcn_core.data.datasets import InMemory
from fcn_core.errors import DataError, DivergedError
from fcn_core.inference.evaluation import evaluate
from fcn_core.inference.predictor import Predictor
from fcn_core.metrics import Scores
from fcn_core.training import checkpoint
from fcn_core.training.config import LoopPlan
from fcn_core.training.loop import SHOWN, SHOWN_SIDE, History, TrainingLoop, ValidationPoint
from fcn_core.training.trainer import Trainer
from tests.fcn_core.nets import LABELS as FIVE
from tests.fcn_core.tiny_training import SETTINGS, config, fresh_model, halves


class Shelf:
    """Keeps everything, as files."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.checkpoints: dict[int, dict[str, bytes]] = {}
        self.models: list = []
        self.shown: list = []
        self.reports: list = []
        self.order: list[str] = []
        self._stop_after = stop_after

    def report(self, report, history):
        self.reports.append(report)
        self.order.append(f"report {report.step}")
        if report.step == self._stop_after:
            raise KeyboardInterrupt

    def validated(self, point, tiles):
        self.shown.append((point.step, tiles))

    def best(self, bundle):
        self.models.append(bundle)
        self.order.append("best")

    def checkpoint(self, step, state):
        self.checkpoints[step] = checkpoint.to_files(state)
        self.order.append(f"checkpoint {step}")


def loop(shelf: Shelf, validation=True, **plan) -> TrainingLoop:
    trainer = Trainer(fresh_model(), halves(6), config(steps=9))
    plan = LoopPlan.model_validate({"validate_every": 1, "save_every": 2, "log_every": 2} | plan)
    return TrainingLoop(trainer, halves(3) if validation else None, plan, shelf)


def test_the_best_model_carries_the_scores_that_it_really_has():
    shelf = Shelf()
    history = loop(shelf).run()
    best = history.best
    assert best is not None
    assert best.scores.mean_iou == max(point.scores.mean_iou for point in history.validations)
    assert evaluate(shelf.models[-1], halves(3), SETTINGS) == best.scores
    assert shelf.models[-1].scores == best.scores.model_dump(mode="json")


def test_each_validation_shows_the_same_images_beside_their_truth():
    shelf = Shelf()
    history = loop(shelf).run()
    assert [step for step, _ in shelf.shown] == [point.step for point in history.validations]
    for _, tiles in shelf.shown:
        assert [tile.caption for tile in tiles] == [f"example-{index}" for index in range(3)]
        assert all((tile.truth == halves(3)[index].mask).all() for index, tile in enumerate(tiles))


def test_epochs_that_are_no_whole_number_of_steps_have_no_validation_just_before_the_last():
    trainer = Trainer(fresh_model(), halves(9), config(batch_size=4, steps=9))  # four epochs of 2.25 steps
    history = TrainingLoop(trainer, halves(3), LoopPlan(), Shelf()).run()
    assert [point.step for point in history.validations] == [3, 5, 7, 9]


def test_what_is_shown_is_what_the_scored_model_makes_of_an_image():
    shelf = Shelf()
    loop(shelf, validate_every=1000).run()
    (model,), ((_, tiles),) = shelf.models, shelf.shown
    expected = Predictor(model, SETTINGS).predict([example.image for example in halves(3)._examples])
    assert all((tile.mask == found.mask).all() for tile, found in zip(tiles, expected, strict=True))


def test_no_more_than_a_few_small_images_are_shown():
    shelf = Shelf()
    trainer = Trainer(fresh_model(), halves(6), config(steps=1))
    TrainingLoop(trainer, halves(40, size=(1000, 30)), LoopPlan(), shelf).run()
    ((_, tiles),) = shelf.shown
    assert len(tiles) == SHOWN
    assert [tile.caption for tile in tiles] == [f"example-{at * 40 // SHOWN}" for at in range(SHOWN)], "from all over"
    assert all(max(tile.image.shape) == max(tile.mask.shape) == SHOWN_SIDE for tile in tiles)


def test_validation_comes_every_epoch_and_at_the_end_and_checkpoints_as_planned():
    shelf = Shelf()
    history = loop(shelf).run()  # three steps per epoch
    assert [point.step for point in history.validations] == [3, 6, 9]
    assert list(shelf.checkpoints) == [2, 4, 6, 8, 9]
    assert [point.step for point in history.losses] == [2, 4, 6, 8, 9]
    assert shelf.order.index("checkpoint 9") == len(shelf.order) - 1  # after the model that it knows of
    assert [point.epoch for point in history.validations] == [1, 2, 3]


def test_a_point_of_the_loss_curve_is_the_mean_of_its_steps():
    shelf = Shelf()
    history = loop(shelf).run()
    losses = [report.loss for report in shelf.reports]
    assert history.losses[0].loss == pytest.approx(sum(losses[:2]) / 2)
    assert history.losses[-1].loss == pytest.approx(losses[-1])
    norms = [report.grad_norm for report in shelf.reports]
    assert history.losses[0].grad_norm == pytest.approx(sum(norms[:2]) / 2)


@pytest.mark.parametrize("stop_after", range(1, 9))
def test_killed_after_any_step_and_resumed_it_ends_in_the_same_bits(stop_after, undisturbed):
    shelf = Shelf(stop_after)
    with pytest.raises(KeyboardInterrupt):
        loop(shelf).run()
    resumed, second = loop(after := Shelf()), shelf.checkpoints
    if second:
        resumed.load_state_dict(checkpoint.from_files(second[max(second)]))
    history = resumed.run()
    last = checkpoint.from_files(after.checkpoints[9])
    expected = checkpoint.from_files(undisturbed.checkpoints[9])
    for state in (last, expected):
        state["trainer"]["seconds"] = 0.0  # the only thing that two runs may differ in
    assert checkpoint.to_files(last) == checkpoint.to_files(expected)
    assert history.model_dump(mode="json") == expected["history"]
    assert after.models == [] or after.models[-1].model_id == undisturbed.models[-1].model_id


@pytest.fixture(scope="module")
def undisturbed():
    shelf = Shelf()
    loop(shelf).run()
    return shelf


def test_without_validation_the_last_model_is_kept():
    shelf = Shelf()
    history = loop(shelf, validation=False).run()
    assert history.best is None
    assert history.validations == []
    assert len(shelf.models) == 1
    assert shelf.models[0].provenance["steps"] == 9


def test_the_earliest_of_equally_good_models_is_the_best():
    def point(step, mean_iou):
        scores = Scores(
            pixel_accuracy=1, mean_accuracy=1, mean_iou=mean_iou, frequency_weighted_iou=1, per_class_iou=(1,), pixels=1
        )
        return ValidationPoint(step=step, epoch=step, scores=scores)

    history = History(validations=[point(1, 0.2), point(2, 0.5), point(3, 0.5), point(4, None)])
    assert history.best is not None
    assert history.best.step == 2


def test_validation_data_of_other_classes_are_refused_before_any_step():
    trainer = Trainer(fresh_model(), halves(), config())
    five = InMemory([], FIVE)
    with pytest.raises(DataError, match="the model knows 2 classes"):
        TrainingLoop(trainer, five, LoopPlan(), Shelf())


@pytest.mark.parametrize("validation", [True, False])
def test_a_last_update_that_ruins_the_weights_ends_the_run_without_a_model(validation):
    shelf = Shelf()
    run = loop(shelf, validation, validate_every=100, save_every=100)
    step = run.trainer.optimizer.step

    def ruin() -> None:
        step()
        if run.trainer.step == 8:  # the ninth and last
            with torch.no_grad():
                run.trainer.model.fc7.weight.mul_(float("inf"))

    run.trainer.optimizer.step = ruin
    with pytest.raises(DivergedError, match=r"after step 9: weights that are NaN or infinite: fc7.weight"):
        run.run()
    assert shelf.models == []
    assert shelf.checkpoints == {}


@pytest.mark.parametrize("validation", [True, False])
def test_a_model_whose_scores_overflow_is_neither_saved_nor_called_the_best(validation):
    shelf = Shelf()
    run = loop(shelf, validation, validate_every=100, save_every=100)
    step = run.trainer.optimizer.step

    def ruin() -> None:
        step()
        if run.trainer.step == 8:
            with torch.no_grad():
                for layer in (run.trainer.model.fc6, run.trainer.model.fc7, run.trainer.model.score_fr):
                    layer.weight.fill_(1e30)

    run.trainer.optimizer.step = ruin
    with pytest.raises(DivergedError, match="the model is ruined after step 9"):
        run.run()
    assert shelf.models == []
    assert shelf.checkpoints == {}


def test_where_no_pixel_of_the_validation_split_is_labelled_the_last_model_is_kept():
    some = halves(3)
    void = InMemory([replace(some[i], mask=np.full_like(some[i].mask, 255)) for i in range(3)], some.labels)
    shelf = Shelf()
    history = TrainingLoop(Trainer(fresh_model(), halves(6), config(steps=9)), void, LoopPlan(), shelf).run()
    assert history.best is None
    assert [model.provenance["steps"] for model in shelf.models] == [9]
