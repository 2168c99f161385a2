import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fcn_core.data.augmentation import Augmentation
from fcn_core.data.transform import TrainTransform, as_tensors, random_crop, resize

PLAIN = {"brightness": 0, "contrast": 0, "saturation": 0, "flip": 0}


def example(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """An image whose every channel is 20 times its mask, so that one can be checked against the other."""
    mask = np.random.default_rng(height * 100 + width).integers(0, 12, (height, width)).astype(np.uint8)
    return as_tensors(np.repeat(mask[..., None] * 20, 3, axis=2), mask)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(0, 9))
def test_crop_and_flip_keep_image_and_mask_together(height, width, crop_height, crop_width, seed):
    setting = Augmentation(
        crop_height=crop_height, crop_width=crop_width, scale_min=1, scale_max=1, **(PLAIN | {"flip": 0.5})
    )
    torch.manual_seed(seed)
    image, mask = TrainTransform(setting)(*example(height, width))
    assert image.shape == (3, crop_height, crop_width)
    assert mask.shape == (crop_height, crop_width)
    labelled = mask != 255
    assert (image[0][labelled] == mask[labelled] * 20).all()
    assert (image[0][~labelled] == 0).all()
    assert labelled.sum() == min(height, crop_height) * min(width, crop_width)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.3, 3), st.integers(1, 30), st.integers(1, 30))
def test_a_resized_mask_holds_only_classes_it_held_before(scale, height, width):
    image, mask = example(height, width)
    large_image, large_mask = resize(image, mask, scale)
    assert large_image.shape[1:] == large_mask.shape
    assert set(large_mask.unique().tolist()) <= set(mask.unique().tolist())


def test_image_and_mask_are_resized_to_the_same_place():
    image = torch.zeros(3, 40, 40, dtype=torch.uint8)
    image[:, 10:30, 20:] = 200
    mask = (image[0] > 100).to(torch.uint8)
    for scale in (0.5, 0.7, 1.3, 2.0):
        large_image, large_mask = resize(image, mask, scale)
        differing = ((large_image[0] > 100) != (large_mask > 0)).float().mean()
        assert differing < 0.03


@settings(max_examples=40, deadline=None)
@given(st.floats(0.3, 3), st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(0, 9))
def test_an_enlarged_crop_has_the_crops_size_and_no_other_classes(scale, height, width, crop, seed):
    torch.manual_seed(seed)
    image, mask = example(height, width)
    large_image, large_mask = random_crop(image, mask, crop, 2 * crop, 255, scale)
    assert large_image.shape == (3, crop, 2 * crop)
    assert large_mask.shape == (crop, 2 * crop)
    assert set(large_mask.unique().tolist()) <= {*mask.unique().tolist(), 255}
    # What the enlarged picture does not fill is padding, black; a cut is off by less than a pixel of the picture.
    filled = (min(crop, height * scale), min(2 * crop, width * scale))
    labelled = large_mask != 255
    for axis, expected in enumerate(filled):
        assert abs(int(labelled.any(1 - axis).sum()) - expected) <= max(1.0, scale)
    assert (large_image[:, ~labelled] == 0).all()


def test_an_enlarged_crop_shows_image_and_mask_of_one_place_at_that_scale():
    stripes = torch.arange(200) // 20 % 2 * torch.ones(120, 1, dtype=torch.int64)
    mask = stripes.to(torch.uint8)
    image = (mask * 200).expand(3, -1, -1)
    for seed, scale in enumerate((0.5, 0.7, 1.3, 2.0)):
        torch.manual_seed(seed)
        large_image, large_mask = random_crop(image, mask, 60, 90, 255, scale)
        assert (large_mask[large_image[0] > 120] == 1).all()
        assert (large_mask[large_image[0] < 80] == 0).all()
        edges = (large_mask[0].int().diff() != 0).nonzero().flatten()
        assert (edges.diff().float().mean() - 20 * scale).abs() < 1


def test_colour_changes_the_image_and_never_the_mask():
    setting = Augmentation(crop_height=20, crop_width=20, scale_min=1, scale_max=1, flip=0, brightness=0.9)
    image, mask = example(20, 20)
    torch.manual_seed(1)
    varied, kept = TrainTransform(setting)(image, mask)
    assert not torch.equal(varied, image)
    assert torch.equal(kept, mask)
    assert type(varied) is torch.Tensor
    assert type(kept) is torch.Tensor


def test_the_same_seed_gives_the_same_variation_and_another_another():
    transform = TrainTransform(Augmentation(crop_height=16, crop_width=16))
    outcomes = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        outcomes.append(transform(*example(50, 60)))
    assert torch.equal(outcomes[0][0], outcomes[1][0])
    assert torch.equal(outcomes[0][1], outcomes[1][1])
    assert not torch.equal(outcomes[0][0], outcomes[2][0])


def test_the_caller_keeps_its_tensors():
    image, mask = example(30, 30)
    before = image.clone(), mask.clone()
    TrainTransform(Augmentation(crop_height=40, crop_width=40))(image, mask)
    assert torch.equal(image, before[0])
    assert torch.equal(mask, before[1])


def test_padding_is_ignored_by_the_label_set_s_own_index():
    _, mask = random_crop(*example(2, 2), 4, 4, ignore_index=99)
    assert (mask == 99).sum() == 12


def test_scales_the_wrong_way_round_are_refused():
    with pytest.raises(ValueError, match="swap them"):
        Augmentation(scale_min=2, scale_max=1)
