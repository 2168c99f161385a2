"""The Predictor: masks are the network's argmax, whatever the size, the batch or the tiling."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fcn_core import predict as predict_module
from fcn_core import upsample
from fcn_core.errors import DataError, DeviceError
from fcn_core.fcn import final_upsample
from fcn_core.predict import Predictor, PredictorSettings, resolve_settings
from fcn_core.upsample import label_pixels
from tests.fcn_core.nets import small_bundle

BUDGET = 1 << 17


@pytest.fixture(autouse=True)
def _keep_threads() -> Iterator[None]:
    """A Predictor sets the process's thread count; the other tests keep theirs."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def _settings(**changes: Any) -> PredictorSettings:
    return resolve_settings(**{"device": "cpu", "precision": "float32", **changes})


def _photo(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Smooth shapes with edges and some noise: more like a photo than noise alone."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    channels = [
        127 + 60 * np.sin(x / rng.uniform(9, 90) + rng.uniform(0, 6)) + 60 * np.sign(np.sin(y / rng.uniform(9, 90)))
        for _ in range(3)
    ]
    noisy = np.stack(channels, axis=-1) + rng.normal(0, 6, (height, width, 3))
    return noisy.clip(0, 255).astype(np.uint8)


needs_bfloat16 = pytest.mark.skipif(
    not predict_module._has_bfloat16("cpu"), reason="this CPU has no bfloat16 arithmetic"
)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 150),
    st.integers(1, 150),
    st.integers(1, 3),
    st.integers(1, 6),
    st.sampled_from([8, 16, 32]),
)
def test_strips_give_the_argmax_of_the_whole(height: int, width: int, count: int, classes: int, stride: int) -> None:
    generator = torch.Generator().manual_seed(height * 151 + width)
    scores = torch.randn(count, classes, -(-height // stride), -(-width // stride), generator=generator)
    expected = final_upsample(scores, stride, (height, width)).argmax(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upsample, "_STRIP_VALUES", 1)  # one row of cells at a time
        narrow, areas = label_pixels(scores, stride, (height, width))
    wide, _ = label_pixels(scores, stride, (height, width))
    assert torch.equal(narrow, wide)
    assert torch.equal(narrow.long(), expected)
    assert areas.sum(1).tolist() == [height * width] * count


def test_ties_go_to_the_lowest_class() -> None:
    masks, areas = label_pixels(torch.ones(1, 4, 2, 2), 8, (9, 16))
    assert not masks.any()
    assert areas.tolist() == [[144, 0, 0, 0]]


@pytest.mark.parametrize("arch", ["fcn32s", "fcn16s", "fcn8s"])
def test_mask_is_the_networks_argmax_and_areas_count_it(arch: str) -> None:
    bundle = small_bundle(arch)
    image = _photo(123, 171)
    (result,) = Predictor(bundle, _settings()).predict([image])
    x = bundle.normalization.apply(torch.from_numpy(image).permute(2, 0, 1)[None])
    with torch.inference_mode():
        model = bundle.build()
        expected = model(x).argmax(1)[0].numpy()
        confidence = model.scores(x).softmax(1).amax(1).mean().item()
    assert result.mask.dtype == np.uint8
    assert (result.mask == expected).mean() > 0.9999
    assert len(np.unique(expected)) > 1
    assert result.areas.dtype == np.int64
    assert result.areas.tolist() == np.bincount(result.mask.ravel(), minlength=5).tolist()
    assert result.confidence == pytest.approx(confidence, rel=1e-4)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 80), st.integers(1, 80)), max_size=5))
def test_any_sizes_come_back_in_order(sizes: list[tuple[int, int]]) -> None:
    predictor = Predictor(small_bundle(), _settings())
    results = predictor.predict([_photo(*size) for size in sizes])
    assert [result.mask.shape for result in results] == sizes
    for (height, width), result in zip(sizes, results, strict=True):
        assert result.areas.sum() == height * width
        assert 1 / 5 <= result.confidence <= 1


def test_mixed_sizes_keep_their_own_results() -> None:
    images = [_photo(40, 60, 1), _photo(70, 30, 2), _photo(40, 60, 3), _photo(1, 1, 4), _photo(40, 60, 5)]
    predictor = Predictor(small_bundle(), _settings(batch_size=2))
    together = predictor.predict(images)
    for image, result in zip(images, together, strict=True):
        (alone,) = predictor.predict([image])
        assert (alone.mask == result.mask).mean() > 0.999


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=needs_bfloat16)])
def test_deterministic_results_do_not_depend_on_the_batch(precision: str) -> None:
    images = [_photo(90, 120, seed) for seed in range(4)]
    predictor = Predictor(small_bundle(), _settings(precision=precision, deterministic=True, batch_size=4))
    together = predictor.predict(images)
    for image, result in zip(images, together, strict=True):
        (alone,) = predictor.predict([image])
        assert np.array_equal(alone.mask, result.mask)
        assert alone.confidence == result.confidence


@needs_bfloat16
def test_bfloat16_agrees_with_float32_but_for_near_ties() -> None:
    image = _photo(200, 300)
    masks = [
        Predictor(small_bundle(), _settings(precision=precision)).predict([image])[0].mask
        for precision in ("float32", "bfloat16")
    ]
    assert (masks[0] == masks[1]).mean() > 0.98


@pytest.mark.parametrize("size", [(601, 733), (97, 2111), (1501, 101)])
def test_tiled_mask_equals_the_whole_mask(size: tuple[int, int]) -> None:
    image = _photo(*size)
    (whole,) = Predictor(small_bundle(), _settings()).predict([image])
    (tiled,) = Predictor(small_bundle(), _settings(tile_pixels=BUDGET)).predict([image])
    assert len(np.unique(whole.mask)) > 1
    assert (whole.mask == tiled.mask).mean() >= 0.99999
    assert tiled.confidence == pytest.approx(whole.confidence, rel=1e-5)
    assert tiled.areas.sum() == size[0] * size[1]


def test_tiled_mask_equals_the_whole_mask_on_street_scenes() -> None:
    from PIL import Image

    root = os.environ.get("FCN_CAMVID")
    if not root:
        pytest.skip("FCN_CAMVID names no CamVid folder")
    paths = sorted((Path(root) / "JPEGImages").glob("*.jpg"))[:4]
    a, b, c, d = (np.asarray(Image.open(path)) for path in paths)
    image = np.concatenate([np.concatenate([a, b], 1), np.concatenate([c, d], 1)])[:701, :941]
    (whole,) = Predictor(small_bundle(), _settings()).predict([image])
    (tiled,) = Predictor(small_bundle(), _settings(tile_pixels=BUDGET)).predict([image])
    assert (whole.mask == tiled.mask).mean() >= 0.99999


def test_passes_stay_within_the_pixel_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor(small_bundle(), _settings(batch_size=8, tile_pixels=BUDGET))
    passes: list[int] = []
    features = predictor._model.features

    def watched(x: torch.Tensor) -> Any:
        passes.append(x.shape[0] * x.shape[2] * x.shape[3])
        return features(x)

    monkeypatch.setattr(predictor._model, "features", watched)
    predictor.predict([_photo(200, 200)] * 5 + [_photo(400, 500)])
    assert max(passes) <= BUDGET
    assert passes[:2] == [3 * 200 * 200, 2 * 200 * 200]


def test_read_only_and_strided_images_are_taken() -> None:
    image = _photo(50, 60)
    frozen = image.copy()
    frozen.flags.writeable = False
    flipped = image[:, ::-1].copy()[:, ::-1]
    first, second, third = Predictor(small_bundle(), _settings()).predict([image, frozen, flipped])
    assert np.array_equal(first.mask, second.mask)
    assert np.array_equal(first.mask, third.mask)


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (np.zeros((4, 4, 3)), r"float64 \[4, 4, 3\]"),
        (np.zeros((4, 4), np.uint8), r"uint8 \[4, 4\]"),
        (np.zeros((4, 4, 4), np.uint8), r"uint8 \[4, 4, 4\]"),
        (np.zeros((0, 4, 3), np.uint8), r"uint8 \[0, 4, 3\]"),
        ("photo.jpg", "str"),
    ],
)
def test_what_is_no_rgb_image_is_refused_by_index(image: Any, found: str) -> None:
    predictor = Predictor(small_bundle(), _settings())
    with pytest.raises(DataError, match=f"image 1 must be an RGB array.*not {found}"):
        predictor.predict([_photo(4, 4), image])


def test_no_images_give_no_results() -> None:
    assert Predictor(small_bundle(), _settings()).predict([]) == []


def test_predictor_sets_the_threads_it_was_told() -> None:
    Predictor(small_bundle(), _settings(threads=1))
    assert torch.get_num_threads() == 1


def test_settings_are_resolved_to_what_is_here() -> None:
    resolved = resolve_settings()
    assert resolved.device == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolved.threads == len(os.sched_getaffinity(0))
    assert PredictorSettings.model_validate_json(resolved.model_dump_json()) == resolved


def test_default_batch_follows_the_precision() -> None:
    assert _settings(precision="float32").batch_size == 1
    assert _settings(precision="float32", batch_size=7).batch_size == 7


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_absent_device_is_an_error_in_both_places() -> None:
    with pytest.raises(DeviceError, match="'cuda' was asked for, but PyTorch sees no CUDA device"):
        resolve_settings(device="cuda")
    elsewhere = _settings().model_copy(update={"device": "cuda:0"})
    with pytest.raises(DeviceError, match="'cuda:0' was asked for"):
        Predictor(small_bundle(), elsewhere)


def test_unknown_device_is_an_error() -> None:
    with pytest.raises(DeviceError, match="no device 'tpu'; use 'cpu', 'cuda' or 'cuda:N'"):
        resolve_settings(device="tpu")


def test_bfloat16_is_refused_where_it_would_be_emulated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predict_module, "_cpu_flags", lambda: {"avx2", "avx512f"})
    assert resolve_settings(device="cpu").precision == "float32"
    with pytest.raises(DeviceError, match="bfloat16 was asked for, but the cpu here does not compute in it"):
        resolve_settings(device="cpu", precision="bfloat16")


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"threads": 0}, {"tile_pixels": 100}, {"precision": "int8"}])
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        _settings(**wrong)
