"""Masks made strip by strip are the argmax of the network's logits, for every way in which networks upsample."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fcn_core.inference import argmax as upsample
from fcn_core.inference.argmax import label_pixels, logit_strips, mean_confidence
from fcn_core.models.fcn import final_upsample
from fcn_core.models.upsampling import Upsampling
from tests.fcn_core.nets import small_net


def _scores(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 150),
    st.integers(1, 150),
    st.integers(1, 3),
    st.integers(1, 6),
    st.sampled_from([8, 16, 32]),
)
def test_strips_give_the_argmax_of_the_whole(height: int, width: int, count: int, classes: int, stride: int) -> None:
    scores = _scores(count, classes, -(-height // stride), -(-width // stride))
    upsampling = Upsampling.half_pixel((scores.shape[2], scores.shape[3]), (height, width), stride)
    logits = final_upsample(scores, stride, (height, width))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upsample, "_STRIP_VALUES", 1)
        patch.setattr(upsample, "_CELL_ROWS", 3)
        narrow, areas = label_pixels(scores, upsampling)
    wide, _ = label_pixels(scores, upsampling)
    for masks in (narrow, wide):
        chosen = logits.gather(1, masks[:, None].long())[:, 0]
        assert bool((chosen >= logits.amax(1) - 1e-5).all())
    assert areas.tolist() == [np.bincount(mask.flatten(), minlength=classes).tolist() for mask in narrow.numpy()]


@pytest.mark.parametrize("arch", ["fcn32s", "fcn16s", "fcn8s", "fcn32s_padded", "fcn16s_padded", "fcn8s_padded"])
@pytest.mark.parametrize("size", [(1, 1), (75, 50), (64, 96)])
def test_strips_are_the_networks_own_logits(arch: str, size: tuple[int, int]) -> None:
    _assert_own_logits(arch, size)


@pytest.mark.parametrize("arch", ["fcn_alexnet_padded", "tv_fcn"])
def test_strips_are_the_networks_own_logits_in_the_other_geometries(arch: str) -> None:
    _assert_own_logits(arch, (75, 50))


def _assert_own_logits(arch: str, size: tuple[int, int]) -> None:
    network = small_net(arch)
    x = _scores(1, 3, *size)
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(upsample, "_STRIP_VALUES", 1)
        logits = network(x)[0]
        strips = list(logit_strips(network.scores(x)[0], network.upsampling(size)))
    assert [start for start, _, _ in strips] == [0, *(stop for _, stop, _ in strips[:-1])]
    found = torch.cat([part for _, _, part in strips]).permute(2, 0, 1)
    torch.testing.assert_close(found, logits, rtol=1e-4, atol=1e-5 * float(logits.abs().max()))


def test_ties_go_to_the_lowest_class() -> None:
    masks, areas = label_pixels(torch.ones(1, 4, 2, 2), Upsampling.half_pixel((2, 2), (9, 16), 8))
    assert not masks.any()
    assert areas.tolist() == [[144, 0, 0, 0]]


def test_masks_do_not_depend_on_the_batch() -> None:
    scores = _scores(5, 7, 12, 15)
    upsampling = Upsampling.half_pixel((12, 15), (91, 113), 8)
    together, areas = label_pixels(scores, upsampling)
    for index in range(5):
        alone, own_areas = label_pixels(scores[index : index + 1], upsampling)
        assert torch.equal(alone[0], together[index])
        assert torch.equal(own_areas[0], areas[index])


def test_bfloat16_scores_are_upsampled_in_float32() -> None:
    scores = _scores(1, 5, 6, 7).bfloat16()
    upsampling = Upsampling.half_pixel((6, 7), (48, 56), 8)
    assert torch.equal(label_pixels(scores, upsampling)[0], label_pixels(scores.float(), upsampling)[0])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 6), st.integers(1, 40), st.integers(1, 40))
def test_confidence_is_the_mean_of_the_largest_probability(count: int, classes: int, rows: int, columns: int) -> None:
    scores = _scores(count, classes, rows, columns)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upsample, "_STRIP_VALUES", 100)
        found = mean_confidence(scores)
    assert found.tolist() == pytest.approx(scores.softmax(1).amax(1).mean((1, 2)).tolist(), rel=1e-5)
