"""Tiles cover the image once, within their budget, and what they give is what a whole pass gives."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fcn_core.errors import DataError
from fcn_core.inference.tiling import plan_tiles, tiled_scores
from fcn_core.models import strips
from fcn_core.models.architecture import Architecture
from fcn_core.models.building import build
from fcn_core.normalization import IMAGENET
from tests.fcn_core.nets import small_net

REACH = 90
BUDGET = 1 << 17


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(BUDGET, 1 << 22))
def test_tiles_cover_every_pixel_once_within_budget(height: int, width: int, budget: int) -> None:
    covered = np.zeros((height, width), np.uint8)
    for tile in plan_tiles(height, width, REACH, budget):
        covered[tile.rows.start : tile.rows.stop, tile.columns.start : tile.columns.stop] += 1
        assert tile.rows.outer_size * tile.columns.outer_size <= budget
        for span, size in ((tile.rows, height), (tile.columns, width)):
            assert span.start % 32 == span.outer_start % 32 == 0
            assert span.outer_start == 0 or span.start - span.outer_start >= REACH
            assert span.outer_stop == size or span.outer_stop - span.stop >= REACH
    assert bool((covered == 1).all())


def test_image_within_budget_is_one_tile() -> None:
    (tile,) = plan_tiles(300, 400, REACH, BUDGET)
    assert (tile.rows.outer_size, tile.columns.outer_size) == (300, 400)


@pytest.mark.parametrize("size", [(3000, 4000), (4000, 3000)])
def test_margins_of_a_12_megapixel_photo_cost_an_eighth_at_most(size: tuple[int, int]) -> None:
    read = sum(t.rows.outer_size * t.columns.outer_size for t in plan_tiles(*size, REACH, 1 << 22))
    assert read <= 1.125 * size[0] * size[1]


def test_impossible_budget_says_what_is_needed() -> None:
    with pytest.raises(DataError, match=f"at least {224**2}"):
        plan_tiles(5000, 5000, REACH, 1000)


def _prepare(part: npt.NDArray[np.uint8]) -> Tensor:
    pixels = torch.from_numpy(part[None].copy()).permute(0, 3, 1, 2)
    return IMAGENET.apply(pixels).contiguous(memory_format=torch.channels_last)


# A network, an image, and the pixels that a tile may have: little more than its margins.
CASES = [
    ("fcn32s", "vgg16", (133, 401), 1 << 15),
    ("fcn16s", "vgg16", (401, 133), 1 << 15),
    ("fcn8s", "vgg16", (333, 421), 1 << 16),
    ("fcn8s", "vgg16", (1, 1203), 600),
    ("fcn8s", "vgg16_bn", (133, 401), 1 << 15),
    ("fcn8s", "alexnet", (333, 421), 90_000),
    ("fcn8s", "resnet50", (67, 413), 1 << 14),
    ("fcn8s", "mobilenet_v3_large", (133, 201), 10_000),
    ("fcn8s_padded", None, (123, 211), 1 << 16),
    ("fcn8s_atonce_padded", None, (123, 211), 1 << 16),
    ("fcn32s_padded", None, (1, 500), 1 << 16),
    ("fcn_alexnet_padded", None, (123, 301), 1 << 17),
    ("tv_fcn", "resnet50", (9, 1003), 6000),
    ("tv_deeplabv3", "resnet50", (67, 413), 1 << 14),
    ("tv_lraspp", "mobilenet_v3_large", (133, 201), 10_000),
]


@pytest.mark.parametrize(("arch", "backbone", "size", "budget"), CASES)
def test_tiled_scores_equal_those_of_a_whole_pass(
    arch: str, backbone: str | None, size: tuple[int, int], budget: int
) -> None:
    network = small_net(arch, backbone=backbone).to(memory_format=torch.channels_last)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    height, width = (side + 2 * network.border for side in size)
    assert len(plan_tiles(height, width, network.reach(), budget)) > 1
    with torch.inference_mode():
        tiled = tiled_scores(network, image, _prepare, budget)
        whole = network.scores(_prepare(image))
    torch.testing.assert_close(tiled, whole, rtol=1e-4, atol=2e-5 * float(whole.abs().max()))


@pytest.mark.parametrize(
    ("arch", "backbone"),
    [("fcn8s", "vgg16"), ("fcn8s", "alexnet"), ("fcn8s_padded", None), ("fcn_alexnet_padded", None)],
)
def test_a_head_in_strips_equals_a_head_in_one_piece(
    arch: str, backbone: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = small_net(arch, backbone=backbone)
    heights: list[int] = []
    network.fc7.register_forward_hook(lambda layer, inputs, output: heights.append(output.shape[2]))
    x = torch.randn(1, 3, 333, 70, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = network.scores(x)
        monkeypatch.setattr(strips, "_STRIP_VALUES", 1)
        parts = network.scores(x)
    assert len(heights) > 2
    assert max(heights[1:]) <= 7 < heights[0]  # one row, and at most three above and below it
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-5 * float(whole.abs().max()))


def test_no_part_larger_than_the_budget_is_ever_prepared() -> None:
    model = small_net()
    sizes: list[int] = []

    def prepare(part: npt.NDArray[np.uint8]) -> Tensor:
        sizes.append(part.shape[0] * part.shape[1])
        return _prepare(part)

    with torch.inference_mode():
        tiled_scores(model, np.zeros((400, 400, 3), np.uint8), prepare, BUDGET)
    assert max(sizes) <= BUDGET
    assert sum(sizes) >= 400 * 400


def test_a_12_megapixel_photo_costs_an_eighth_more_than_whole_at_most() -> None:
    """Counted in multiplications, on tensors without data."""
    with torch.device("meta"):
        network = build(Architecture(num_classes=21)).eval()
    image = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (3000, 4000, 3))

    def prepare(part: npt.NDArray[np.uint8]) -> Tensor:
        return torch.empty((1, 3, *part.shape[:2]), device="meta")

    with torch.inference_mode():
        with FlopCounterMode(display=False) as tiled:
            tiled_scores(network, image, prepare, 1 << 22)
        with FlopCounterMode(display=False) as whole:
            network.scores(prepare(image))
    assert tiled.get_total_flops() <= 1.125 * whole.get_total_flops()
