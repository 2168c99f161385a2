"""The Predictor: masks are the network's argmax, whatever the size, the batch or the tiling."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from fcn_core.errors import DataError, DeviceError, PredictionError
from fcn_core.inference import settings as settings_module
from fcn_core.inference.halving import run_halving
from fcn_core.inference.predictor import Outputs, Predictor
from fcn_core.inference.settings import PredictorSettings, resolve_settings
from fcn_core.labels import indices_from_rgb
from fcn_core.render import overlay
from tests.fcn_core.nets import LABELS, overflowing_bundle, photo, small_bundle

BUDGET = 1 << 17


@pytest.fixture(autouse=True)
def _keep_threads() -> Iterator[None]:
    """A Predictor sets the process's thread count; the other tests keep theirs."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def _settings(**changes: Any) -> PredictorSettings:
    return resolve_settings(**{"device": "cpu", "precision": "float32", "engine": "torch", **changes})


needs_bfloat16 = pytest.mark.skipif(
    not settings_module.has_bfloat16("cpu"), reason="this CPU has no bfloat16 arithmetic"
)


@pytest.mark.parametrize("arch", ["fcn32s", "fcn16s", "fcn8s", "fcn8s_padded", "fcn_alexnet_padded"])
def test_mask_is_the_networks_argmax_and_areas_count_it(arch: str) -> None:
    bundle = small_bundle(arch)
    image = photo(123, 171)
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


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 80), st.integers(1, 80)), max_size=5))
def test_any_sizes_come_back_in_order(sizes: list[tuple[int, int]]) -> None:
    predictor = Predictor(small_bundle(), _settings())
    results = predictor.predict([photo(*size) for size in sizes])
    assert [result.mask.shape for result in results] == sizes
    for (height, width), result in zip(sizes, results, strict=True):
        assert result.areas.sum() == height * width
        assert 1 / 5 <= result.confidence <= 1


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=needs_bfloat16)])
def test_who_shares_the_batch_does_not_matter(precision: str) -> None:
    images = [photo(100, 130, 1), photo(70, 30, 2), photo(100, 130, 3), photo(1, 1, 4), photo(100, 130, 5)]
    predictor = Predictor(small_bundle(), _settings(precision=precision, batch_size=3))
    together = predictor.predict(images)
    for image, result in zip(images, together, strict=True):
        (alone,) = predictor.predict([image])
        assert (alone.mask == result.mask).mean() >= 0.9999


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=needs_bfloat16)])
def test_deterministic_results_do_not_depend_on_the_batch(precision: str) -> None:
    images = [photo(90, 120, seed) for seed in range(4)]
    predictor = Predictor(small_bundle(), _settings(precision=precision, deterministic=True, batch_size=4))
    together = predictor.predict(images)
    for image, result in zip(images, together, strict=True):
        (alone,) = predictor.predict([image])
        assert np.array_equal(alone.mask, result.mask)
        assert alone.confidence == result.confidence


@pytest.mark.parametrize("deterministic", [False, True])
def test_the_same_run_twice_gives_the_same_bytes(deterministic: bool) -> None:
    images = [photo(50, 60, seed) for seed in range(3)] + [photo(370, 370)]
    runs = []
    for _ in range(2):
        settings = _settings(batch_size=2, deterministic=deterministic, tile_pixels=BUDGET)
        results = Predictor(small_bundle(), settings).predict(images, Outputs(probabilities=True))
        runs.append([(r.mask.tobytes(), r.areas.tobytes(), r.confidence, r.probabilities.tobytes()) for r in results])
    assert runs[0] == runs[1]


@needs_bfloat16
def test_bfloat16_agrees_with_float32_but_for_near_ties() -> None:
    image = photo(200, 300)
    masks = [
        Predictor(small_bundle(), _settings(precision=precision)).predict([image])[0].mask
        for precision in ("float32", "bfloat16")
    ]
    assert (masks[0] == masks[1]).mean() > 0.98


@pytest.mark.parametrize("size", [(401, 533), (97, 1511)])
def test_tiled_mask_equals_the_whole_mask(size: tuple[int, int]) -> None:
    image = photo(*size)
    (whole,) = Predictor(small_bundle(), _settings()).predict([image])
    (tiled,) = Predictor(small_bundle(), _settings(tile_pixels=BUDGET)).predict([image])
    assert len(np.unique(whole.mask)) > 1
    assert (whole.mask == tiled.mask).mean() >= 0.99999
    assert tiled.confidence == pytest.approx(whole.confidence, rel=1e-5)
    assert tiled.areas.sum() == size[0] * size[1]


def test_tiled_mask_equals_the_whole_mask_on_street_scenes() -> None:
    root = os.environ.get("FCN_CAMVID")
    if not root:
        pytest.skip("FCN_CAMVID names no CamVid folder")
    paths = sorted((Path(root) / "JPEGImages").glob("*.jpg"))[:4]
    a, b, c, d = (np.asarray(PIL.Image.open(path)) for path in paths)
    image = np.concatenate([np.concatenate([a, b], 1), np.concatenate([c, d], 1)])[:701, :941]
    (whole,) = Predictor(small_bundle(), _settings()).predict([image])
    (tiled,) = Predictor(small_bundle(), _settings(tile_pixels=BUDGET)).predict([image])
    assert (whole.mask == tiled.mask).mean() >= 0.99999


def test_passes_stay_within_the_pixel_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor(small_bundle(), _settings(batch_size=8, tile_pixels=BUDGET))
    passes: list[int] = []
    features = predictor._torch.network.features

    def watched(x: torch.Tensor) -> Any:
        passes.append(x.shape[0] * x.shape[2] * x.shape[3])
        return features(x)

    monkeypatch.setattr(predictor._torch.network, "features", watched)
    predictor.predict([photo(200, 200)] * 5 + [photo(400, 500)])
    assert max(passes) <= BUDGET
    assert passes[:2] == [3 * 200 * 200, 2 * 200 * 200]


def test_a_border_counts_as_pixels_of_the_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor(small_bundle("fcn32s_padded"), _settings(batch_size=8, tile_pixels=BUDGET))
    passes: list[int] = []
    shallow = predictor._torch.network.shallow

    def watched(x: torch.Tensor) -> Any:
        passes.append(x.shape[0] * x.shape[2] * x.shape[3])
        return shallow(x)

    monkeypatch.setattr(predictor._torch.network, "shallow", watched)
    predictor.predict([photo(20, 20)] * 3 + [photo(200, 250)])
    assert max(passes) <= BUDGET
    assert passes[:2] == [2 * 218 * 218, 218 * 218]


class _Largest(TorchDispatchMode):
    """Notes the most values that any tensor had."""

    values = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for part in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(part, torch.Tensor):
                self.values = max(self.values, part.numel())
        return result


def test_nothing_larger_than_the_image_is_ever_held() -> None:
    """Neither the image as floats nor the scores of every pixel: only tiles, strips and the mask."""
    predictor = Predictor(small_bundle(), _settings(tile_pixels=BUDGET))
    with _Largest() as largest:
        (result,) = predictor.predict([photo(901, 1003)])
    assert result.mask.shape == (901, 1003)
    # The mask itself has once as many, the image three times, the logits five times.
    assert 901 * 1003 <= largest.values < 1.5 * 901 * 1003


def test_nothing_but_the_mask_is_given_unasked() -> None:
    (result,) = Predictor(small_bundle(), _settings()).predict([photo(40, 50)])
    assert (result.probabilities, result.overlay, result.colors) == (None, None, None)


@pytest.mark.parametrize(("arch", "cells"), [("fcn8s", (5, 7)), ("fcn32s", (2, 2))])
def test_probabilities_are_the_softmax_at_the_networks_stride(arch: str, cells: tuple[int, int]) -> None:
    bundle = small_bundle(arch)
    image = photo(40, 50)
    (result,) = Predictor(bundle, _settings()).predict([image], Outputs(probabilities=True))
    with torch.inference_mode():
        scores = bundle.build().scores(bundle.normalization.apply(torch.from_numpy(image).permute(2, 0, 1)[None]))
    assert result.probabilities is not None
    assert result.probabilities.shape == (5, *cells)
    np.testing.assert_allclose(result.probabilities, scores.softmax(1)[0], atol=1e-5)
    assert result.confidence == pytest.approx(float(result.probabilities.max(0).mean()), rel=1e-5)


def test_overlay_and_colors_are_those_of_the_mask() -> None:
    image = photo(700, 800)
    (result,) = Predictor(small_bundle(), _settings()).predict([image], Outputs(overlay=True, colors=True))
    assert result.overlay is not None
    assert result.colors is not None
    assert np.array_equal(result.overlay, overlay(image, result.mask, LABELS))
    assert np.array_equal(indices_from_rgb(result.colors, LABELS), result.mask)


def _out_of_memory_above(count: int, scores: Any) -> Any:
    """Stands in for a device whose memory holds `count` images."""

    def limited(x: torch.Tensor) -> torch.Tensor:
        if x.shape[0] > count:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {x.shape[0]} GiB.\nMore lines.")
        passes.append(x.shape[0])
        result: torch.Tensor = scores(x)
        return result

    passes: list[int] = []
    limited.passes = passes  # type: ignore[attr-defined]
    return limited


def test_out_of_memory_halves_the_batch_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [photo(20, 30, seed) for seed in range(16)]
    predictor = Predictor(small_bundle(), _settings(batch_size=8))
    expected = predictor.predict(images)
    small = _out_of_memory_above(3, predictor._torch.network.scores)
    monkeypatch.setattr(predictor._torch.network, "scores", small)
    results = predictor.predict(images)
    assert small.passes == [2] * 8  # the second eight are not tried at once again
    assert all((a.mask == b.mask).mean() >= 0.9999 for a, b in zip(results, expected, strict=True))


def test_one_image_that_does_not_fit_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor(small_bundle(), _settings())
    monkeypatch.setattr(predictor._torch.network, "scores", _out_of_memory_above(0, predictor._torch.network.scores))
    with pytest.raises(DeviceError, match=r"lower tile_pixels.*Tried to allocate 1 GiB\.\)$"):
        predictor.predict([photo(40, 50)])


@settings(deadline=None)
@given(st.lists(st.integers(), max_size=40), st.integers(1, 50))
def test_halving_does_every_item_once_in_order(items: list[int], fits: int) -> None:
    refused: list[int] = []

    def run(batch: list[int]) -> list[int]:
        if len(batch) > fits:
            raise torch.OutOfMemoryError("full")
        return [-item for item in batch]

    assert run_halving(run, items, lambda batch: refused.append(len(batch))) == [-item for item in items]
    assert all(size > fits for size in refused)


def test_what_was_launched_may_be_waited_for_later_elsewhere_and_in_any_order() -> None:
    predictor = Predictor(small_bundle(), _settings())
    batches = [[photo(60, 80, 1), photo(50, 40, 2)], [photo(60, 80, 3)]]
    launched = [predictor.launch(batch, Outputs(probabilities=True, overlay=True)) for batch in batches]
    with ThreadPoolExecutor(1) as thread:
        found = [thread.submit(one.result).result() for one in reversed(launched)]
    for results, batch in zip(reversed(found), batches, strict=True):
        for result, expected in zip(results, predictor.predict(batch, Outputs(True, True)), strict=True):
            np.testing.assert_equal(vars(result), vars(expected))


def test_read_only_and_strided_images_are_taken() -> None:
    image = photo(50, 60)
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
        predictor.predict([photo(4, 4), image])


def test_the_documented_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = Path(__file__).parents[3] / "docs" / "predictor.md"
    example = page.read_text().split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    small_bundle().save("model")
    PIL.Image.fromarray(photo(40, 50)).save("photo.jpg")
    exec(compile(example, str(page), "exec"), {})
    assert "(40, 50)" in capsys.readouterr().out
    assert PIL.Image.open("overlay.png").size == (50, 40)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=needs_bfloat16)])
def test_scores_that_overflow_are_an_error_and_never_a_mask(precision: str, sign: int) -> None:
    """Each weight is finite; the sum of the streams is not. Of -inf the softmax would still be a number."""
    predictor = Predictor(overflowing_bundle(sign), _settings(precision=precision, batch_size=2))
    launched = predictor.launch([photo(40, 48), photo(40, 48)])
    with pytest.raises(PredictionError, match="the scores of image 0 are not all finite"):
        launched.result()
    with pytest.raises(PredictionError):
        predictor.predict([photo(700, 520)])  # in tiles


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
    monkeypatch.setattr(settings_module, "_cpu_flags", lambda: {"avx2", "avx512f"})
    assert resolve_settings(device="cpu").precision == "float32"
    with pytest.raises(DeviceError, match="bfloat16 was asked for, but the cpu here does not compute in it"):
        resolve_settings(device="cpu", precision="bfloat16")


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"threads": 0}, {"tile_pixels": 100}, {"precision": "int8"}])
def test_impossible_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"batch_size|threads|tile_pixels|precision"):
        _settings(**wrong)


def test_masks_of_another_size_are_the_scores_upsampled_to_it() -> None:
    bundle, image = small_bundle(), photo(64, 96)
    predictor = Predictor(bundle, _settings(engine="torch"))
    (result,) = predictor.predict([image], sizes=[(257, 385)])
    with torch.inference_mode():
        scores = bundle.build().scores(bundle.normalization.apply(torch.from_numpy(image).permute(2, 0, 1)[None]))
        logits = torch.nn.functional.interpolate(scores, size=(257, 385), mode="bilinear", align_corners=False)
    assert result.mask.shape == (257, 385)
    assert (result.mask == logits.argmax(1)[0].numpy()).mean() > 0.999
    assert result.areas.sum() == result.mask.size
    own = predictor.predict([image], sizes=[(64, 96)])[0]
    assert np.array_equal(own.mask, predictor.predict([image])[0].mask)


def test_an_overlay_of_another_size_is_refused() -> None:
    with pytest.raises(DataError, match="full size"):
        Predictor(small_bundle(), _settings()).predict([photo(20, 20)], Outputs(overlay=True), sizes=[(40, 40)])
