"""An Upsampling says in numbers what the networks' last layers do."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fcn_core.models.fcn import final_upsample
from fcn_core.models.upsampling import Axis, Upsampling, bilinear_transposed, bilinear_weight
from tests.fcn_core.nets import small_net

SIZES = st.tuples(st.integers(1, 90), st.integers(1, 90))


def interpolated(scores: Tensor, upsampling: Upsampling) -> Tensor:
    """The plainest use of the taps: one axis, then the other."""
    rows, columns = upsampling.rows.taps(), upsampling.columns.taps()
    by_row = scores[:, :, rows.first] * torch.from_numpy(rows.first_weight)[:, None]
    by_row += scores[:, :, rows.second] * torch.from_numpy(rows.second_weight)[:, None]
    return by_row[..., columns.first] * torch.from_numpy(columns.first_weight) + by_row[
        ..., columns.second
    ] * torch.from_numpy(columns.second_weight)


def _scores(cells: tuple[int, int]) -> Tensor:
    return torch.randn(2, 3, *cells, generator=torch.Generator().manual_seed(cells[0] * 100 + cells[1]))


@settings(max_examples=60, deadline=None)
@given(SIZES, st.sampled_from([8, 16, 32]))
def test_half_pixel_is_the_last_upsampling_of_same_networks(size: tuple[int, int], stride: int) -> None:
    scores = _scores((-(-size[0] // stride), -(-size[1] // stride)))
    upsampling = Upsampling.half_pixel(scores.shape[-2:], size, stride)
    torch.testing.assert_close(interpolated(scores, upsampling), final_upsample(scores, stride, size))


@settings(max_examples=60, deadline=None)
@given(SIZES)
def test_resized_is_torchvisions_interpolation(size: tuple[int, int]) -> None:
    scores = _scores((-(-size[0] // 8), -(-size[1] // 8)))
    expected = F.interpolate(scores, size=size, mode="bilinear", align_corners=False)
    upsampling = Upsampling.resized(scores.shape[-2:], size)
    torch.testing.assert_close(interpolated(scores, upsampling), expected, rtol=1e-4, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 6), st.integers(1, 6)),
    st.sampled_from([(64, 32), (63, 32), (32, 16), (16, 8), (4, 2)]),
    st.integers(0, 40),
)
def test_transposed_is_a_bilinear_transposed_convolution_and_a_crop(
    cells: tuple[int, int], layer: tuple[int, int], crop: int
) -> None:
    kernel, stride = layer
    scores = _scores(cells)
    whole = bilinear_transposed(3, kernel, stride=stride)(scores).detach()
    expected = whole[..., crop:, crop:]
    upsampling = Upsampling.transposed(cells, tuple(expected.shape[-2:]), kernel=kernel, stride=stride, crop=crop)
    torch.testing.assert_close(interpolated(scores, upsampling), expected)


@pytest.mark.parametrize(
    ("arch", "backbone"),
    [
        ("fcn8s", "vgg16"),
        ("fcn16s", "alexnet"),
        ("fcn32s", "mobilenet_v3_large"),
        ("fcn32s_padded", None),
        ("fcn16s_padded", None),
        ("fcn8s_padded", None),
        ("fcn8s_atonce_padded", None),
        ("fcn_alexnet_padded", None),
        ("tv_fcn", "resnet50"),
        ("tv_deeplabv3", "mobilenet_v3_large"),
        ("tv_lraspp", "mobilenet_v3_large"),
    ],
)
@pytest.mark.parametrize("size", [(1, 1), (45, 83), (64, 33)])
def test_every_network_describes_its_own_last_upsampling(
    arch: str, backbone: str | None, size: tuple[int, int]
) -> None:
    model = small_net(arch, backbone=backbone)
    x = torch.randn(1, 3, *size)
    with torch.inference_mode():
        scores, logits = model.scores(x), model(x)
    assert float(scores.std()) > 0
    described = interpolated(scores, model.upsampling(size))
    torch.testing.assert_close(described, logits, rtol=1e-4, atol=1e-5 * float(scores.abs().max()))


@pytest.mark.parametrize("arch", ["fcn32s_padded", "fcn16s_padded", "fcn8s_padded", "fcn_alexnet_padded"])
@pytest.mark.parametrize("pixels", [1, 30, 123, 500])
def test_cells_inside_are_those_whose_middle_stride_pixels_are_in_the_image(arch: str, pixels: int) -> None:
    axis = small_net(arch).upsampling((pixels, 500)).rows
    stride = round(1 / axis.step)
    centres = [(cell - axis.origin) * stride for cell in range(axis.cells)]
    reaches_in = [-0.5 - stride / 2 < centre < pixels - 0.5 + stride / 2 for centre in centres]
    assert reaches_in == [cell in range(axis.cells)[axis.inside()] for cell in range(axis.cells)]


@given(st.integers(1, 2000), st.sampled_from([8, 16, 32]))
def test_without_border_all_cells_are_inside(pixels: int, stride: int) -> None:
    cells = -(-pixels // stride)
    for upsampling in (
        Upsampling.half_pixel((cells, cells), (pixels, pixels), stride),
        Upsampling.resized((cells, cells), (pixels, pixels)),
    ):
        assert upsampling.rows.inside() == slice(0, cells)


@given(st.integers(1, 50), st.integers(1, 400), st.floats(0.01, 1), st.floats(-30, 30), st.booleans(), st.data())
def test_taps_are_valid_ordered_and_the_same_for_a_part(
    cells: int, pixels: int, step: float, origin: float, clamp: bool, data: st.DataObject
) -> None:
    axis = Axis(cells, pixels, step, origin, clamp)
    taps = axis.taps()
    for index in (taps.first, taps.second):
        assert index.dtype == np.int64
        assert index.min() >= 0
        assert index.max() < cells
        assert (np.diff(index) >= 0).all()
    total = taps.first_weight + taps.second_weight
    assert (total <= 1 + 1e-6).all()
    if clamp:
        np.testing.assert_allclose(total, 1, rtol=1e-6)
    start = data.draw(st.integers(0, pixels - 1))
    stop = data.draw(st.integers(start + 1, pixels))
    part = axis.taps(start, stop)
    assert np.array_equal(part.second, taps.second[start:stop])
    assert np.array_equal(part.second_weight, taps.second_weight[start:stop])


def test_bilinear_weight_is_the_authors() -> None:
    assert bilinear_weight(1, 4)[0, 0, 1].tolist() == [0.1875, 0.5625, 0.5625, 0.1875]
    assert bilinear_weight(1, 3)[0, 0].tolist() == [[0.25, 0.5, 0.25], [0.5, 1, 0.5], [0.25, 0.5, 0.25]]
    assert not bilinear_weight(3, 4)[0, 1].any()


@settings(max_examples=40, deadline=None)
@given(SIZES, SIZES)
def test_stretched_to_another_size_is_an_upsampling_to_that_size(small: tuple[int, int], size: tuple[int, int]) -> None:
    scores = _scores((-(-small[0] // 8), -(-small[1] // 8)))
    expected = F.interpolate(scores, size=size, mode="bilinear", align_corners=False)
    upsampling = Upsampling.resized(scores.shape[-2:], small).stretched(*size)
    torch.testing.assert_close(interpolated(scores, upsampling), expected, rtol=1e-4, atol=1e-4)
