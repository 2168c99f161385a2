"""Labelling by patches gives the argmax of the interpolated scores, in every geometry."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fcn_core.inference.argmax import logit_strips
from fcn_core.inference.argmax_cpu import label_patches
from fcn_core.models.upsampling import Upsampling


def _plain(scores: Tensor, upsampling: Upsampling) -> Tensor:
    """Logits [H, W, C], all of them."""
    return torch.cat([logits for _, _, logits in logit_strips(scores, upsampling)])


def _differences(scores: Tensor, upsampling: Upsampling) -> int:
    """Pixels that are not the argmax, other than at ties within rounding."""
    mask = torch.from_numpy(label_patches(scores, upsampling)).long()
    logits = _plain(scores, upsampling)
    assert mask.shape == logits.shape[:2]
    lost = logits.amax(-1) - logits.gather(-1, mask[..., None])[..., 0]
    return int((lost > 1e-5 * logits.abs().amax()).sum())


def _blobs(classes: int, height: int, width: int, seed: int) -> Tensor:
    """Scores with large regions, as of a photo, and borders between them."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, classes, 4, 5, generator=generator)
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0] * 5


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 7), st.integers(1, 90), st.integers(1, 90), st.sampled_from((1, 8, 16, 32)), st.integers(0, 99),
    st.booleans(),
)  # fmt: skip
def test_it_is_the_argmax_in_same_geometry(
    classes: int, height: int, width: int, stride: int, seed: int, noisy: bool
) -> None:
    cells = (-(-height // stride), -(-width // stride))
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(classes, *cells, generator=generator) if noisy else _blobs(classes, *cells, seed)
    assert _differences(scores, Upsampling.half_pixel(cells, (height, width), stride)) == 0
    assert _differences(scores, Upsampling.resized(cells, (height, width))) == 0


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 60), st.integers(1, 60), st.sampled_from(((16, 8, 31), (64, 32, 19), (4, 2, 0))), st.integers(0, 99)
)
def test_it_is_the_argmax_in_padded_geometry(height: int, width: int, last: tuple[int, int, int], seed: int) -> None:
    kernel, stride, crop = last
    # Fewer cells than the image is wide: what lies beyond them fades to nothing.
    cells = (max(1, (height + crop) // stride), max(1, (width + crop) // stride))
    upsampling = Upsampling.transposed(cells, (height, width), kernel=kernel, stride=stride, crop=crop)
    assert _differences(_blobs(4, *cells, seed), upsampling) == 0


def test_where_nothing_is_said_the_lowest_class_wins() -> None:
    cells, size = (3, 3), (80, 80)  # the last pixels lie more than a cell beyond the last one
    upsampling = Upsampling.transposed(cells, size, kernel=16, stride=8, crop=0)
    scores = torch.zeros(3, *cells)
    scores[2] = 1.0
    mask = label_patches(scores, upsampling)
    assert mask[:20, :20].min() == 2
    assert mask[60:, 60:].max() == 0


def test_exact_ties_go_to_the_lowest_class() -> None:
    scores = torch.ones(4, 6, 7)
    assert label_patches(scores, Upsampling.half_pixel((6, 7), (48, 50), 8)).max() == 0


def test_a_cell_that_is_not_a_number_decides_what_it_does_in_the_argmax() -> None:
    scores = _blobs(4, 8, 9, 0)
    scores[2, 3, 4] = float("nan")
    upsampling = Upsampling.half_pixel((8, 9), (64, 72), 8)
    expected = _plain(scores, upsampling).argmax(-1).numpy()
    mask = label_patches(scores, upsampling)
    near = (slice(20, 36), slice(28, 44))  # all pixels that the cell has a say in; elsewhere logits may be NaN * 0
    assert np.array_equal(mask[near], expected[near])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_most_pixels_of_a_picture_need_no_logits(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    interpolated = []
    real = torch.Tensor.argmax
    monkeypatch.setattr(torch.Tensor, "argmax", lambda self, dim: interpolated.append(self.numel()) or real(self, dim))
    scores = _blobs(11, 45, 60, 1).to(dtype)
    label_patches(scores, Upsampling.half_pixel((45, 60), (360, 480), 8))
    assert sum(interpolated) < 0.5 * 11 * 360 * 480
