import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fcn_core.data.augmentation import Augmentation
from fcn_core.data.datasets import Example, InMemory
from fcn_core.data.stream import ExampleStream, Shares, load_batches
from fcn_core.data.transform import TrainTransform
from tests.fcn_core.tiny_training import LABELS, halves


@given(
    first=st.integers(0, 50),
    steps=st.integers(0, 6),
    world=st.integers(1, 5),
    parts=st.integers(1, 3),
    extra=st.integers(0, 9),
)
@settings(max_examples=100, deadline=None)
def test_workers_share_every_step_without_gap_or_overlap(first, steps, world, parts, extra):
    batch_size = world * parts + extra
    by_rank = [list(Shares(first, first + steps, batch_size, rank, world, parts)) for rank in range(world)]
    assert all(len(shares) == steps * parts for shares in by_rank)
    assert all(part for shares in by_rank for part in shares)  # an empty part would leave a worker without a gradient
    for step in range(steps):
        taken = [p for shares in by_rank for part in shares[step * parts : (step + 1) * parts] for p in part]
        assert sorted(taken) == list(range((first + step) * batch_size, (first + step + 1) * batch_size))


@given(start=st.integers(0, 30), world=st.sampled_from([1, 2, 3]))
@settings(max_examples=20, deadline=None)
def test_every_example_is_seen_once_an_epoch_by_any_number_of_workers(start, world):
    """Also when the number of workers changes in the middle of it."""
    dataset, batch_size, steps = halves(12), 6, 4  # two epochs
    stream = ExampleStream(dataset, TrainTransform(Augmentation.none()), seed=start)
    seen = []
    for first, last, workers in ((0, 1, world), (1, 3, 1), (3, steps, 3)):
        for rank in range(workers):
            for batch in load_batches(stream, Shares(first, last, batch_size, rank, workers), 0):
                seen += batch.names
    assert sorted(seen) == sorted([example.name for example in dataset._examples] * 2)


def test_examples_of_several_sizes_are_padded_black_and_ignored():
    examples = [
        Example(name, np.full((h, w, 3), 9, np.uint8), np.ones((h, w), np.uint8))
        for name, h, w in (("a", 3, 5), ("b", 4, 2))
    ]
    stream = ExampleStream(InMemory(examples, LABELS), TrainTransform(Augmentation.none()), seed=0)
    (batch,) = load_batches(stream, Shares(0, 1, 2), 0)
    assert batch.images.shape == (2, 3, 4, 5)
    assert batch.masks.shape == (2, 4, 5)
    for image, mask, name in zip(batch.images, batch.masks, batch.names, strict=True):
        height, width = (3, 5) if name == "a" else (4, 2)
        assert (mask[:height, :width] == 1).all()
        assert (mask == 255).sum() == 20 - height * width
        assert (image[:, mask == 255] == 0).all()
        assert (image[:, mask == 1] == 9).all()


def test_an_example_is_varied_anew_in_every_pass():
    dataset = halves(1)
    stream = ExampleStream(dataset, TrainTransform(Augmentation(crop_height=8, crop_width=8)), seed=0)
    images = [stream[position][0] for position in range(8)]
    assert len({image.numpy().tobytes() for image in images}) > 1
    assert all(torch.equal(stream[position][0], image) for position, image in enumerate(images)), "each is always so"


def test_the_callers_random_state_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    stream = ExampleStream(halves(3), TrainTransform(Augmentation(crop_height=8, crop_width=8)), seed=0)
    list(load_batches(stream, Shares(0, 2, 2), 0))
    assert torch.equal(torch.rand(2), expected)
