"""Test-time augmentation: the mean of an image's views, laid over one another without a shift."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from fcn_core import Outputs, Predictor, PredictorSettings, resolve_settings
from fcn_core.errors import DeviceError, PredictionError
from fcn_core.inference.engines.engine import Image
from fcn_core.inference.views import Grid, Scored, averaged, resized
from fcn_core.models.upsampling import Axis, Upsampling
from fcn_core.normalization import IMAGENET
from tests.fcn_core.nets import PADDED_ARCHS, SAME_ARCHS, photo, small_bundle, small_net

Size = tuple[int, int]


def _half_pixel(size: Size) -> Upsampling:
    return Upsampling.half_pixel((-(-size[0] // 8), -(-size[1] // 8)), size, 8)


def _resized(size: Size) -> Upsampling:
    return Upsampling.resized((-(-size[0] // 8), -(-size[1] // 8)), size)


def _padded(size: Size) -> Upsampling:
    return Upsampling.transposed((size[0] // 8 + 4, size[1] // 8 + 4), size, kernel=16, stride=8, crop=14)


def _ramps(geometry: Callable[[Size], Upsampling]) -> Callable[[Sequence[Image]], Scored]:
    """A network without an opinion: its two scores are the darkest corner's ramps, exact at the centre of each cell."""

    def score(images: Sequence[Image]) -> Scored:
        size = images[0].shape[:2]
        upsampling = geometry(size)
        rows, columns = _places(upsampling.rows), _places(upsampling.columns)
        made = []
        for image in images:
            mirrored = image[0, 0, 0] > image[0, -1, 0]
            across = 1 - columns if mirrored else columns
            made.append(torch.stack(torch.broadcast_tensors(rows[:, None], across[None])))
        return Scored(torch.stack(made), Grid(upsampling, upsampling.rows.cells, upsampling.columns.cells))

    return score


def _places(axis: Axis) -> torch.Tensor:
    """Where the centres of cells lie, as shares of the image's length."""
    pixels = (np.arange(axis.cells) - axis.origin) / axis.step
    return torch.from_numpy(((pixels + 0.5) / axis.pixels).astype(np.float32))


@pytest.mark.parametrize("geometry", [_half_pixel, _resized, _padded])
@pytest.mark.parametrize("size", [(64, 96), (61, 83), (200, 47)])
@pytest.mark.parametrize("scales", [(1.0,), (0.75, 1.0), (0.5, 1.0, 1.7)])
def test_views_of_one_plane_agree_wherever_all_of_them_have_cells(
    geometry: Callable[[Size], Upsampling], size: Size, scales: tuple[float, ...]
) -> None:
    image = np.broadcast_to(np.linspace(0, 255, size[1]).astype(np.uint8)[:, None], (*size, 3))
    score = _ramps(geometry)
    mean = averaged([image], scales, True, score)
    largest = score([resized(image, max(scales))])
    assert mean.grid == largest.grid
    rows, columns = mean.grid.upsampling.rows, mean.grid.upsampling.columns
    # The outermost cells of small views are further inside than those of large ones, and have nothing beyond.
    margin = 8 / min(scales) / 2
    inner = [
        slice(*np.flatnonzero(_inner(axis, margin / length))[[0, -1]] + [0, 1])
        for axis, length in ((rows, size[0]), (columns, size[1]))
    ]
    at = (0, slice(None), *inner)
    torch.testing.assert_close(mean.scores[at], largest.scores[at], rtol=0, atol=2e-5)


def _inner(axis: Axis, margin: float) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    places = _places(axis).numpy()
    return (places > margin) & (places < 1 - margin)


def _settings(**changes: object) -> PredictorSettings:
    settings = resolve_settings(device="cpu", engine="torch", precision="float32", threads=1)
    return PredictorSettings.model_validate(settings.model_dump() | changes)


@pytest.mark.parametrize("arch", [*SAME_ARCHS, *PADDED_ARCHS])
def test_flip_is_the_mean_of_the_networks_logits_of_an_image_and_its_mirror_image(arch: str) -> None:
    image, net = photo(64, 96), small_net(arch)
    mask = Predictor(small_bundle(arch), _settings(flip=True)).predict([image])[0].mask
    pixels = torch.from_numpy(np.stack([image, image[:, ::-1]])).permute(0, 3, 1, 2)
    with torch.inference_mode():
        logits = net(IMAGENET.apply(pixels))
    mean = (logits[0] + logits[1].flip(-1)) / 2
    best = mean.topk(2, dim=0).values
    clear = (best[0] - best[1] > 1e-3 * mean.abs().max()).numpy()
    assert clear.mean() > 0.9
    # Where cells do not lie symmetrically they are interpolated once more, which moves edges a little.
    assert (mask == mean.argmax(0).numpy())[clear].mean() > (0.97 if arch in PADDED_ARCHS else 0.9999)


@pytest.mark.parametrize("size", [(64, 96), (61, 83)])
@pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.0, 1.5)])
def test_the_mask_of_a_mirror_image_is_the_mirrored_mask(size: Size, scales: tuple[float, ...]) -> None:
    image = photo(*size)
    predictor = Predictor(small_bundle(), _settings(flip=True, scales=scales))
    mask, mirrored = (answer.mask for answer in predictor.predict([image, image[:, ::-1]]))
    assert (mask == mirrored[:, ::-1]).mean() > 0.999  # but for near-ties


def test_one_other_scale_is_the_mask_of_the_resized_image() -> None:
    image = photo(60, 90)
    larger = Predictor(small_bundle(), _settings(scales=(2,))).predict([image], Outputs(probabilities=True))[0]
    expected = Predictor(small_bundle(), _settings()).predict([resized(image, 2)], sizes=[(60, 90)])[0]
    np.testing.assert_array_equal(larger.mask, expected.mask)
    assert larger.mask.shape == (60, 90)
    assert larger.probabilities is not None
    assert larger.probabilities.shape[1:] == (15, 23)  # of cells of 8 x 8 pixels of the larger image


def test_probabilities_lead_to_the_masks_pixels() -> None:
    image = photo(60, 90)
    predictor = Predictor(small_bundle(), _settings(scales=(1, 1.5), flip=True))
    (answer,) = predictor.predict([image], Outputs(probabilities=True))
    upsampling = predictor.upsampling(60, 90)
    assert answer.probabilities is not None
    assert answer.probabilities.shape[1:] == (upsampling.rows.cells, upsampling.columns.cells)
    assert (upsampling.rows.pixels, upsampling.columns.pixels) == (60, 90)


def test_an_image_is_seen_alike_alone_among_others_and_in_tiles() -> None:
    images = [photo(60, 90, seed=1), photo(61, 90, seed=2), photo(60, 90, seed=3), photo(420, 400, seed=4)]
    together = Predictor(small_bundle(), _settings(flip=True, scales=(0.5, 1), batch_size=4)).predict(images)
    tiled = Predictor(small_bundle(), _settings(flip=True, scales=(0.5, 1), tile_pixels=1 << 17))
    for image, answer in zip(images, together, strict=True):
        alone = tiled.predict([image])[0]
        assert (alone.mask == answer.mask).mean() > 0.999
        assert alone.areas.sum() == image.shape[0] * image.shape[1]


def test_the_smallest_image_has_views_too() -> None:
    image = photo(1, 1)
    answer = Predictor(small_bundle(), _settings(flip=True, scales=(0.25, 1, 4))).predict([image])[0]
    assert answer.mask.shape == (1, 1)


def test_a_view_that_a_scale_makes_too_large_is_refused_before_it_is_made() -> None:
    image = np.broadcast_to(np.zeros(3, np.uint8), (5000, 3400, 3))  # takes no memory
    predictor = Predictor(small_bundle(), _settings(scales=(1, 4)))
    with pytest.raises(PredictionError, match=r"at scale 4 an image of 3400x5000 has 272,000,000 pixels.*max_side"):
        predictor.predict([image])


def test_scales_are_the_same_in_any_order() -> None:
    assert _settings(scales=(1.5, 1, 1)) == _settings(scales=(1.0, 1.5))


@pytest.mark.parametrize("scales", [(), (0.0,), (5.0,), (float("nan"),), tuple(1 + n / 10 for n in range(9))])
def test_odd_scales_are_refused(scales: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError):
        _settings(scales=scales)


@pytest.mark.parametrize("changes", [{"flip": True}, {"scales": (0.5, 1.0)}])
def test_an_imported_graph_has_no_views(changes: dict[str, object]) -> None:
    with pytest.raises(DeviceError, match="imported ONNX graphs"):
        resolve_settings(device="cpu", kind="onnx", **changes)  # type: ignore[arg-type]
