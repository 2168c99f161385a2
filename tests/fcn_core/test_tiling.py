"""Tiles cover the image once, within their budget, and what they give is what a whole pass gives."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fcn_core.bundle import IMAGENET
from fcn_core.errors import DataError
from fcn_core.tiling import plan_tiles, tiled_scores
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


@pytest.mark.parametrize("arch", ["fcn32s", "fcn16s", "fcn8s"])
@pytest.mark.parametrize("size", [(601, 733), (97, 2111)])
def test_tiled_scores_equal_those_of_a_whole_pass(arch: str, size: tuple[int, int]) -> None:
    model = small_net(arch).to(memory_format=torch.channels_last)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    assert len(plan_tiles(*size, model.backbone.reach(), BUDGET)) > 1
    with torch.inference_mode():
        tiled = tiled_scores(model, image, _prepare, BUDGET)
        whole = model.scores(_prepare(image))
    torch.testing.assert_close(tiled, whole, rtol=1e-4, atol=1e-5 * float(whole.abs().max()))


def test_no_part_larger_than_the_budget_is_ever_prepared() -> None:
    model = small_net()
    sizes: list[int] = []

    def prepare(part: npt.NDArray[np.uint8]) -> Tensor:
        sizes.append(part.shape[0] * part.shape[1])
        return _prepare(part)

    with torch.inference_mode():
        tiled_scores(model, np.zeros((500, 700, 3), np.uint8), prepare, BUDGET)
    assert len(sizes) > 1
    assert max(sizes) <= BUDGET


def test_tiling_needs_the_whole_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison above can fail: with a margin of one grid step, scores at the seams are off."""
    model = small_net()
    image = np.random.default_rng(0).integers(0, 256, (500, 700, 3), dtype=np.uint8)
    monkeypatch.setattr(model.backbone, "reach", lambda: 32)
    with torch.inference_mode():
        tiled = tiled_scores(model, image, _prepare, BUDGET)
        whole = model.scores(_prepare(image))
    assert float((tiled - whole).abs().max()) > 1e-3 * float(whole.abs().max())
