"""Void where unsure: a pixel whose largest softmax probability is high enough has its class, others have 255, whatever
makes the mask.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fcn_core.errors import DeviceError
from fcn_core.inference import argmax
from fcn_core.inference.argmax import label_pixels, logit_strips
from fcn_core.inference.predictor import Outputs, Predictor, Segmentation
from fcn_core.inference.settings import PredictorSettings, resolve_settings
from fcn_core.labels import VOID
from fcn_core.models.upsampling import Upsampling
from fcn_core.normalization import IMAGENET
from fcn_core.weights.onnx_file import import_onnx
from tests.fcn_core.nets import LABELS, photo, small_bundle
from tests.onnx_nets import small_onnx, written
from tests.requires import requires


@pytest.fixture(autouse=True)
def _keep_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def _settings(**changes: Any) -> PredictorSettings:
    return resolve_settings(**{"device": "cpu", "precision": "float32", "engine": "torch", "threads": 1, **changes})


def _wrong(mask: Tensor, scores: Tensor, upsampling: Upsampling, below: float) -> int:
    """Pixels that are neither what all logits and all probabilities say, nor a near-tie."""
    logits = torch.cat([part for _, _, part in logit_strips(scores, upsampling)]).double()
    probability, label = logits.softmax(-1).max(-1)
    expected = torch.where(probability < below, VOID, label)
    best = logits.topk(min(2, logits.shape[-1]), dim=-1).values
    near = ((probability - below).abs() < 1e-5) | (best[..., 0] - best[..., -1] < 1e-4)
    if logits.shape[-1] == 1:
        near = torch.zeros_like(near)
    return int(((mask != expected) & ~near).sum())


def _scores(classes: int, rows: int, columns: int, seed: int, scale: float) -> Tensor:
    """Regions that are sure of themselves, unsure ones and noise."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, classes, 3, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (rows, columns), mode="bicubic")[0]
    return scale * smooth + 0.3 * torch.randn(classes, rows, columns, generator=generator)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(1, 90),
    st.integers(1, 90),
    st.sampled_from((1, 8, 16, 32)),
    st.integers(0, 99),
    st.sampled_from((0.5, 3.0, 20.0)),
    st.floats(0.01, 0.999),
)
def test_masks_are_void_exactly_where_the_softmax_of_all_logits_says_so(
    classes: int, height: int, width: int, stride: int, seed: int, scale: float, below: float
) -> None:
    cells = (-(-height // stride), -(-width // stride))
    scores = _scores(classes, *cells, seed, scale)
    for upsampling in (
        Upsampling.half_pixel(cells, (height, width), stride),
        Upsampling.resized(cells, (height, width)),
    ):
        masks, areas = label_pixels(scores[None], upsampling, below)
        assert _wrong(masks[0], scores, upsampling, below) == 0
        assert areas[0].tolist() == [int((masks == index).sum()) for index in range(classes)]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 60),
    st.integers(1, 60),
    st.sampled_from(((16, 8, 31), (64, 32, 19), (4, 2, 0))),
    st.integers(0, 99),
    st.floats(0.01, 0.999),
)
def test_what_fades_beyond_the_last_cell_is_unsure(
    height: int, width: int, last: tuple[int, int, int], seed: int, below: float
) -> None:
    kernel, stride, crop = last
    cells = (max(1, (height + crop) // stride), max(1, (width + crop) // stride))
    upsampling = Upsampling.transposed(cells, (height, width), kernel=kernel, stride=stride, crop=crop)
    scores = _scores(4, *cells, seed, 20.0)
    assert _wrong(label_pixels(scores[None], upsampling, below)[0][0], scores, upsampling, below) == 0


def test_other_devices_strips_are_void_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device without the kernel of CUDA goes strip by strip, here played by a CPU whose patches are strips."""
    upsampling = Upsampling.half_pixel((9, 11), (70, 85), 8)
    scores = _scores(5, 9, 11, 1, 3.0)

    def strips(scores: Tensor, upsampling: Upsampling, below: float) -> Any:
        parts = [
            argmax.void_where_unsure(logits.argmax(-1), logits, below).to(torch.uint8)
            for _, _, logits in logit_strips(scores, upsampling)
        ]
        return torch.cat(parts).numpy()

    patches = label_pixels(scores[None], upsampling, 0.6)[0]
    monkeypatch.setattr(argmax, "label_patches", strips)
    assert (label_pixels(scores[None], upsampling, 0.6)[0] == patches).float().mean() > 0.999


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sure_regions_need_no_logits(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    interpolated = []
    real = torch.Tensor.argmax
    monkeypatch.setattr(torch.Tensor, "argmax", lambda self, dim: interpolated.append(self.numel()) or real(self, dim))
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(1, 11, 4, 5, generator=generator)
    scores = 30 * torch.nn.functional.interpolate(coarse, (45, 60), mode="bicubic")[0]
    label_pixels(scores[None].to(dtype), Upsampling.half_pixel((45, 60), (360, 480), 8), 0.6)
    assert sum(interpolated) < 0.5 * 11 * 360 * 480


def _expected(found: Segmentation, upsampling: Upsampling, below: float) -> tuple[Tensor, Tensor]:
    """The mask from an image's own probabilities: their logarithms are its logits, but for a number at each cell that
    all classes share. With it, the pixels that are no near-tie."""
    assert found.probabilities is not None
    logits = torch.from_numpy(found.probabilities).double().log()
    pixels = torch.cat([part for _, _, part in logit_strips(logits, upsampling)])
    probability, label = pixels.softmax(-1).max(-1)
    best = pixels.topk(2, dim=-1).values
    clear = ((probability - below).abs() > 1e-3) & (best[..., 0] - best[..., 1] > 1e-3)
    return torch.where(probability < below, VOID, label), clear


@pytest.mark.parametrize("engine", ["torch", "openvino"])
@pytest.mark.parametrize(("size", "tile_pixels"), [((75, 50), 1 << 22), ((420, 380), 1 << 17)], ids=["whole", "tiled"])
def test_predictors_leave_void_what_their_probabilities_say(
    engine: str, size: tuple[int, int], tile_pixels: int
) -> None:
    if engine == "openvino":
        requires("openvino", install="'fcn-pipeline[openvino]'")
    bundle = small_bundle()
    options = {"engine": engine, "tile_pixels": tile_pixels}
    sure = Predictor(bundle, _settings(**options)).predict([photo(*size)], Outputs(probabilities=True))[0]
    assert sure.probabilities is not None
    assert sure.void == 0
    below = float(np.median(sure.probabilities.max(0)))
    predictor = Predictor(bundle, _settings(**options, void_below=below))
    expected, clear = _expected(sure, predictor.upsampling(*size), below)
    (found,) = predictor.predict([photo(*size)], Outputs(overlay=True, colors=True))
    assert ((torch.from_numpy(found.mask) == expected) | ~clear).all()
    assert 0.2 < found.void / found.mask.size < 0.8, "or this tries nothing"
    assert found.void == (found.mask == VOID).sum()
    assert found.areas.sum() + found.void == found.mask.size
    assert found.confidence == sure.confidence
    assert found.overlay is not None
    assert found.colors is not None
    inner = found.mask == VOID
    inner[:-1] &= inner[1:]
    inner[:, :-1] &= inner[:, 1:]
    assert (found.overlay[inner] == photo(*size)[inner]).all(), "the photo shows through"
    assert (found.colors[found.mask == VOID] == LABELS.ignore_color).all()


def test_masks_of_another_size_are_void_alike() -> None:
    predictor = Predictor(small_bundle(), _settings(void_below=0.4))
    (small,) = predictor.predict([photo(64, 96)])
    (large,) = predictor.predict([photo(64, 96)], sizes=[(128, 192)])
    assert large.mask.shape == (128, 192)
    assert abs(large.void / large.mask.size - small.void / small.mask.size) < 0.02


@pytest.fixture
def onnx_folder(tmp_path: Path) -> Path:
    pytest.importorskip("onnx", reason="onnx is not installed: pip install 'fcn-pipeline[onnx]'")
    requires("onnxruntime", install="'fcn-pipeline[onnx]'")
    return tmp_path


@pytest.mark.parametrize("window", [0, 64])
@pytest.mark.parametrize("end", ["logits", "softmax"])
def test_imported_graphs_and_their_windows_are_void_alike(onnx_folder: Path, end: str, window: int) -> None:
    bundle = import_onnx(written(small_onnx(end), onnx_folder / "net.onnx"), LABELS, IMAGENET).bundle
    options = {"engine": "onnxruntime", "kind": "onnx", "window": window}
    size = (128, 160)
    sure = Predictor(bundle, _settings(**options)).predict([photo(*size)], Outputs(probabilities=True))[0]
    assert sure.probabilities is not None
    below = float(np.median(sure.probabilities.max(0)))
    (found,) = Predictor(bundle, _settings(**options, void_below=below)).predict([photo(*size)])
    upsampling = Upsampling.resized((sure.probabilities.shape[1], sure.probabilities.shape[2]), size)
    expected, clear = _expected(sure, upsampling, below)
    assert ((torch.from_numpy(found.mask) == expected) | ~clear).all()
    assert 0.1 < found.void / found.mask.size < 0.9


def test_a_graph_that_gives_classes_alone_cannot_be_unsure(onnx_folder: Path) -> None:
    bundle = import_onnx(written(small_onnx("classes"), onnx_folder / "net.onnx"), LABELS, IMAGENET).bundle
    with pytest.raises(DeviceError, match=r"void_below 0\.6 cannot be; use 0"):
        Predictor(bundle, _settings(engine="onnxruntime", kind="onnx", void_below=0.6))


@pytest.mark.parametrize("value", [1.0, -0.1, 60.0, float("nan")])
def test_a_threshold_is_a_probability_below_1(value: float) -> None:
    with pytest.raises(ValueError, match="void_below"):
        _settings(void_below=value)


def test_void_is_255_whatever_the_data_set_of_the_model_has_for_it() -> None:
    bundle = small_bundle()
    other = type(bundle)(**{**bundle.__dict__, "labels": LABELS.model_copy(update={"ignore_index": 11})})
    predictor = Predictor(other, _settings(void_below=0.5))
    (found,) = predictor.predict([photo(40, 50)])
    assert found.void
    assert set(np.unique(found.mask)) <= {0, 1, 2, 3, 4, VOID}
    assert predictor.labels.ignore_index == VOID
