import numpy as np
import pytest
import torch

from fcn_core.training.class_balance import LARGEST_WEIGHT, balanced_weights
from fcn_core.training.losses import pixel_cross_entropy


def test_equals_the_sum_over_labelled_pixels_written_out():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 5, 6, generator=generator)
    target = torch.randint(0, 4, (2, 5, 6), generator=generator)
    target[0, :2] = 255
    total, valid = pixel_cross_entropy(logits, target)

    probabilities = np.exp(logits.numpy().astype(np.float64))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    expected = sum(
        -np.log(probabilities[n, target[n, y, x], y, x])
        for n in range(2)
        for y in range(5)
        for x in range(6)
        if target[n, y, x] != 255
    )
    assert float(total) == pytest.approx(expected, rel=1e-5)
    assert int(valid) == 2 * 30 - 12


@pytest.mark.parametrize(
    ("given", "computed"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float32), (torch.float64, torch.float64)],
)
def test_it_is_computed_in_float32_or_as_precisely_as_the_logits(given, computed):
    logits, target = torch.randn(1, 3, 4, 4, dtype=given), torch.zeros(1, 4, 4, dtype=torch.uint8)
    total, _ = pixel_cross_entropy(logits, target, weights=torch.tensor([1.0, 2.0, 3.0]))
    exact, _ = pixel_cross_entropy(logits.double(), target)
    assert total.dtype == computed
    assert float(total) == pytest.approx(float(exact), rel=torch.finfo(computed).eps * 100)


def test_a_batch_with_only_ignored_pixels_is_zero_and_has_a_zero_gradient():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    total, valid = pixel_cross_entropy(logits, torch.full((1, 4, 4), 255, dtype=torch.uint8))
    total.backward()
    assert float(total.detach()) == 0
    assert int(valid) == 0
    assert torch.count_nonzero(logits.grad) == 0


def test_batches_joined_give_the_loss_of_the_whole():
    logits = torch.randn(3, 5, 4, 4)
    target = torch.randint(0, 5, (3, 4, 4), dtype=torch.uint8)
    whole, count = pixel_cross_entropy(logits, target)
    parts = [pixel_cross_entropy(logits[i : i + 1], target[i : i + 1]) for i in range(3)]
    assert float(sum(total for total, _ in parts)) == pytest.approx(float(whole), rel=1e-5)
    assert int(sum(n for _, n in parts)) == int(count)


def test_another_ignore_index_is_respected():
    target = torch.tensor([[[0, 11]]])
    assert int(pixel_cross_entropy(torch.zeros(1, 3, 1, 2), target, ignore_index=11)[1]) == 1


def test_half_precision_logits_are_summed_in_float32():
    total, _ = pixel_cross_entropy(torch.zeros(1, 2, 300, 300, dtype=torch.bfloat16), torch.zeros(1, 300, 300).long())
    assert total.dtype == torch.float32
    assert float(total) == pytest.approx(90_000 * np.log(2), rel=1e-4)


def test_shapes_of_different_batches_are_refused():
    with pytest.raises(ValueError, match="not of one batch"):
        pixel_cross_entropy(torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 5).long())


def test_class_weights_weigh_the_pixels_of_their_class():
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(1))
    target = torch.randint(0, 3, (2, 4, 5), generator=torch.Generator().manual_seed(2))
    target[0, 0] = 255
    weights = torch.tensor([1.0, 0.0, 2.5])
    total, labelled = pixel_cross_entropy(logits, target, weights=weights)
    by_pixel = torch.nn.functional.cross_entropy(logits, target, ignore_index=255, reduction="none")
    expected = sum(float(by_pixel[target == c].sum()) * float(weights[c]) for c in range(3))
    assert float(total) == pytest.approx(expected, rel=1e-5)
    assert int(labelled) == 35


def test_median_balance_makes_the_median_class_weigh_one():
    weights = balanced_weights(np.array([100, 50, 10, 0]), "median")
    assert weights == pytest.approx((0.5, 1.0, 5.0, 1.0))


CAMVID_TRAIN = {
    "sky": (10682767, 63244800),
    "building": (14750079, 63072000),
    "pole": (623349, 63244800),
    "road": (20076880, 63417600),
    "sidewalk": (2845085, 60307200),
    "tree": (6166762, 55123200),
    "sign": (743859, 60652800),
    "fence": (714595, 29894400),
    "car": (3719877, 62208000),
    "pedestrian": (405385, 54777600),
    "cyclist": (184967, 34732800),
}
"""CamVid's training split (SegNet's 367 images): pixels of each class, and of the images that hold it."""


def test_median_balance_is_eigen_and_fergus_on_camvid():
    pixels, of_images = np.array(list(CAMVID_TRAIN.values())).T
    weights = balanced_weights(pixels, "median", of_images)
    assert weights is not None
    named = dict(zip(CAMVID_TRAIN, weights, strict=True))
    assert named["fence"] == pytest.approx(1.97, abs=0.005)
    assert named["cyclist"] == pytest.approx(8.86, abs=0.005)
    assert named["sidewalk"] == 1.0


def test_what_0_1_called_median_is_to_be_had_by_its_name():
    pixels, of_images = np.array(list(CAMVID_TRAIN.values())).T
    weights = balanced_weights(pixels, "median_share", of_images)
    assert weights is not None
    named = dict(zip(CAMVID_TRAIN, weights, strict=True))
    assert named["fence"] == pytest.approx(3.98, abs=0.005)
    assert named["cyclist"] == pytest.approx(15.38, abs=0.005)


@pytest.mark.parametrize("balance", ["median", "log"])
def test_a_class_of_one_pixel_does_not_outweigh_all_others(balance):
    weights = balanced_weights(np.array([10**9, 10**9, 1]), balance)
    assert weights is not None
    assert weights[2] <= LARGEST_WEIGHT


def test_log_balance_is_milder_and_keeps_the_mean_pixel_at_one():
    pixels = np.array([9000, 900, 100])
    log, median = balanced_weights(pixels, "log"), balanced_weights(pixels, "median")
    assert log is not None
    assert median is not None
    assert list(log) == sorted(log)
    assert log[2] / log[0] < median[2] / median[0]
    assert np.dot(log, pixels / pixels.sum()) == pytest.approx(1)


def test_no_balance_means_no_weights():
    assert balanced_weights(np.array([1, 2]), "none") is None
