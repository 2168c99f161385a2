"""Which images an epoch shows how often: a function of seed, epoch and classes, alike for any number of workers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fcn_core.data.augmentation import Augmentation
from fcn_core.data.class_pixels import ClassPresence, class_pixels
from fcn_core.data.datasets import Example, InMemory
from fcn_core.data.sampling import LARGEST_IMAGE_WEIGHT, epoch_order, image_weights
from fcn_core.data.stream import ExampleStream, Shares, load_batches
from fcn_core.data.transform import TrainTransform
from fcn_core.errors import DataError
from fcn_core.training.trainer import Trainer
from tests.fcn_core.tiny_training import AUGMENTATION, LABELS, config, fresh_model, halves

TABLES = arrays.arrays(bool, st.tuples(st.integers(1, 60), st.integers(1, 20)))


@given(table=TABLES)
@settings(deadline=None)
def test_a_table_of_classes_comes_back_from_its_bits(table: np.ndarray) -> None:
    presence = ClassPresence.of(table)
    assert (presence.table() == table).all()
    assert len(presence.bits) <= len(table) * 32


def test_two_tables_have_one_digest_only_if_they_are_equal() -> None:
    table = np.eye(9, dtype=bool)
    assert ClassPresence.of(table).digest() == ClassPresence.of(table.copy()).digest()
    assert ClassPresence.of(table).digest() != ClassPresence.of(table[::-1]).digest()
    nothing = np.zeros((3, 8), bool)
    assert ClassPresence.of(nothing).digest() != ClassPresence.of(nothing[:, :7]).digest()


def test_an_image_weighs_as_much_as_its_rarest_class() -> None:
    table = np.zeros((400, 4), bool)
    table[:, 0] = True
    table[:100, 1] = True  # a quarter
    table[:16, 2] = True  # a 25th
    table[:1, 3] = True  # a 400th: bounded
    weights = image_weights(ClassPresence.of(table))
    assert weights[0] == LARGEST_IMAGE_WEIGHT
    assert weights[1:16] == pytest.approx(5.0)
    assert weights[16:100] == pytest.approx(2.0)
    assert (weights[100:] == 1).all()


def test_an_image_without_annotated_pixels_weighs_one() -> None:
    table = np.array([[True, False], [False, False], [True, True]])
    assert image_weights(ClassPresence.of(table))[1] == 1.0


@given(table=TABLES, seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 10**6))
@settings(deadline=None)
def test_each_image_occurs_as_often_as_its_weight_has_it_rounded_down_or_up(
    table: np.ndarray, seed: int, epoch: int
) -> None:
    weights = image_weights(ClassPresence.of(table))
    assert weights.min() >= 1
    assert weights.max() <= LARGEST_IMAGE_WEIGHT
    order = epoch_order(len(table), seed, epoch, weights)
    assert len(order) == len(table), "an epoch is as long as without sampling"
    expected = len(table) * weights / weights.sum()
    times = np.bincount(order, minlength=len(table))
    assert (np.floor(expected - 1e-6) <= times).all()
    assert (times <= np.ceil(expected + 1e-6)).all()
    assert (order == epoch_order(len(table), seed, epoch, weights)).all()


def test_over_many_epochs_an_image_occurs_as_often_as_its_weight_has_it() -> None:
    weights = np.array([1.0] * 8 + [3.0, 5.0])
    times = sum(np.bincount(epoch_order(10, 0, epoch, weights), minlength=10) for epoch in range(2000)) / 2000
    assert times == pytest.approx(10 * weights / weights.sum(), abs=0.06)


def test_equal_weights_show_every_image_once() -> None:
    assert sorted(epoch_order(7, 3, 2, np.full(7, 2.5))) == list(range(7))


def test_the_order_without_weights_is_that_of_version_0_1() -> None:
    assert (epoch_order(9, 4, 2) == np.random.default_rng([4, 2]).permutation(9)).all()


def mostly_dark(count: int = 12) -> InMemory:
    """Images of which only the first has the class bright."""
    dark = halves(count)._examples
    masks = [example.mask if index == 0 else np.zeros_like(example.mask) for index, example in enumerate(dark)]
    return InMemory([Example(e.name, e.image, mask) for e, mask in zip(dark, masks, strict=True)], LABELS)


@given(start=st.integers(0, 30), world=st.sampled_from([1, 2, 3]))
@settings(max_examples=10, deadline=None)
def test_any_number_of_workers_sees_one_balanced_order_also_from_its_middle(start: int, world: int) -> None:
    dataset, batch_size = mostly_dark(), 6
    weights = image_weights(class_pixels(dataset).presence)
    stream = ExampleStream(dataset, TrainTransform(Augmentation.none()), start, weights)
    seen: list[str] = []
    for first, last, workers in ((0, 1, world), (1, 3, 1), (3, 4, 3)):
        for rank in range(workers):
            for batch in load_batches(stream, Shares(first, last, batch_size, rank, workers), 0):
                seen += batch.names
    expected = [f"example-{index}" for epoch in (0, 1) for index in epoch_order(12, start, epoch, weights)]
    assert sorted(seen) == sorted(expected)
    assert seen.count("example-0") >= 4, "its weight is 3.5, that of 11 others 1"


def test_a_trainer_shows_images_with_rare_classes_more_often_and_goes_on_alike() -> None:
    dataset = mostly_dark()
    balanced = config(steps=6, batch_size=4, sampling="class_balanced", augmentation=AUGMENTATION)
    whole = Trainer(fresh_model(), dataset, balanced)
    reports = list(whole.run())
    first = Trainer(fresh_model(), dataset, balanced)
    steps = first.run()
    early = [next(steps) for _ in range(2)]
    second = Trainer(fresh_model(), dataset, balanced, presence=class_pixels(dataset).presence)
    second.load_state_dict(first.state_dict())
    late = list(second.run())
    names = [report.names for report in reports]
    assert [report.names for report in early + late] == names
    assert sum(step.count("example-0") for step in names) >= 4
    state = second.model.state_dict()
    assert all(weight.equal(state[name]) for name, weight in whole.model.state_dict().items())


def test_a_table_of_another_data_set_is_refused() -> None:
    presence = class_pixels(halves(5)).presence
    with pytest.raises(DataError, match="not one of 6 images and 2 classes"):
        Trainer(fresh_model(), halves(6), config(sampling="class_balanced"), presence=presence)
