"""The OpenVINO engine says what PyTorch says, whatever the network and the size; and who asks for it gets it, or hears
what is missing.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fcn_core.errors import BundleError, DeviceError, PredictionError
from fcn_core.inference import openvino_runtime
from fcn_core.inference.engines.openvino_engine import compile_graph, run, to_graph
from fcn_core.inference.predictor import Outputs, Predictor
from fcn_core.inference.settings import PredictorSettings, has_bfloat16, resolve_settings
from tests.fcn_core.nets import overflowing_bundle, photo, small_bundle
from tests.processes import memory_of
from tests.requires import requires

requires("openvino", install="'fcn-pipeline[openvino]'")

SIZES = ((123, 171), (97, 301), (31, 33), (32, 32), (5, 200))


@pytest.fixture(autouse=True)
def _keep_threads() -> Iterator[None]:
    """A Predictor sets the process's thread count; the other tests keep theirs."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def _settings(engine: str, **changes: Any) -> PredictorSettings:
    return resolve_settings(**{"device": "cpu", "precision": "float32", "engine": engine, **changes})


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_scores_that_overflow_are_an_error_and_never_a_mask(precision: str) -> None:
    if precision not in openvino_runtime.precisions():
        pytest.skip("OpenVINO has no bfloat16 on this CPU")
    with pytest.raises(PredictionError, match="not all finite"):
        Predictor(overflowing_bundle(), _settings("openvino", precision=precision)).predict([photo(64, 64)])


@pytest.mark.parametrize("layer", ["backbone.features.0", "backbone.features.12", "fc6"])
def test_an_overflow_that_openvino_would_pass_over_is_an_error(layer: str) -> None:
    """inf - inf is NaN, of which its ReLU makes 0: the scores would be finite, and of another network."""
    bundle = small_bundle()
    weights = bundle.state[f"{layer}.weight"]
    changed = replace(bundle, state={**bundle.state, f"{layer}.weight": torch.sign(weights) * 3e38})
    with pytest.raises(PredictionError, match="not all finite"):
        Predictor(changed, _settings("torch")).predict([photo(64, 64)])
    with pytest.raises(BundleError, match=r"is of no use: values in its layer .* where floats end at"):
        Predictor(changed, _settings("openvino"))


@pytest.fixture(scope="module")
def fcn8s() -> Predictor:
    return Predictor(small_bundle(), _settings("openvino"))


@pytest.mark.parametrize(
    ("arch", "backbone"),
    [
        ("fcn8s", "vgg16"),
        pytest.param("fcn16s", "resnet50", marks=pytest.mark.slow),
        ("fcn8s", "mobilenet_v3_large"),
        pytest.param("fcn8s", "alexnet", marks=pytest.mark.slow),
        ("fcn8s_padded", "vgg16"),
        ("fcn_alexnet_padded", "alexnet"),
        pytest.param("tv_fcn", "resnet50", marks=pytest.mark.slow),
        ("tv_deeplabv3", "mobilenet_v3_large"),
        ("tv_lraspp", "mobilenet_v3_large"),
    ],
)
def test_both_engines_score_alike(arch: str, backbone: str) -> None:
    bundle = small_bundle(arch, backbone=backbone)
    fast, plain = (Predictor(bundle, _settings(engine)) for engine in ("openvino", "torch"))
    for seed, size in enumerate(SIZES):
        image = photo(*size, seed)
        ours, theirs = (one.predict([image], Outputs(probabilities=True))[0] for one in (fast, plain))
        assert np.allclose(ours.probabilities, theirs.probabilities, atol=1e-3)
        assert (ours.mask == theirs.mask).mean() >= 0.999
        assert ours.mask.shape == size


@pytest.mark.skipif(not has_bfloat16("cpu"), reason="this CPU has no bfloat16 arithmetic")
def test_bfloat16_agrees_with_float32_but_for_near_ties(fcn8s: Predictor) -> None:
    image = photo(200, 300)
    rough = Predictor(small_bundle(), _settings("openvino", precision="bfloat16"))
    masks = [one.predict([image])[0].mask for one in (fcn8s, rough)]
    assert (masks[0] == masks[1]).mean() > 0.98


def test_batches_and_single_images_give_the_same_masks(fcn8s: Predictor) -> None:
    images = [photo(90, 120, seed) for seed in range(5)]
    batched = Predictor(small_bundle(), _settings("openvino", batch_size=3)).predict(images)
    for image, result in zip(images, batched, strict=True):
        assert (result.mask == fcn8s.predict([image])[0].mask).mean() >= 0.9999


def test_two_predictors_give_the_same_bytes() -> None:
    images = [photo(90, 120, seed) for seed in range(3)] + [photo(60, 80, 9)]
    runs = []
    for _ in range(2):
        predictor = Predictor(small_bundle(), _settings("openvino", deterministic=True, batch_size=2))
        results = predictor.predict(images, Outputs(probabilities=True))
        runs.append([(r.mask.tobytes(), r.areas.tobytes(), r.confidence, r.probabilities.tobytes()) for r in results])
    assert runs[0] == runs[1]


def test_a_tiled_mask_equals_the_whole_mask(fcn8s: Predictor) -> None:
    image = photo(401, 533)
    (tiled,) = Predictor(small_bundle(), _settings("openvino", tile_pixels=1 << 17)).predict([image])
    (whole,) = fcn8s.predict([image])
    assert (tiled.mask == whole.mask).mean() >= 0.9999


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_snapping_changes_only_what_is_near_the_padding(engine: str) -> None:
    plain, snapping = (Predictor(small_bundle(), _settings(engine, snap=snap, batch_size=4)) for snap in (1, 64))
    images = [photo(120, 170, 1), photo(125, 180, 2), photo(128, 192, 3)]
    for image, a, b in zip(images, plain.predict(images), snapping.predict(images), strict=True):
        assert b.mask.shape == image.shape[:2]
        assert b.areas.sum() == b.mask.size
        assert b.areas.tolist() == np.bincount(b.mask.ravel(), minlength=5).tolist()
        assert (a.mask == b.mask).mean() > 0.8
    assert np.array_equal(a.mask, b.mask)  # the last one's size is a multiple already
    assert a.confidence == pytest.approx(b.confidence, rel=1e-5)


def test_snapped_images_of_different_sizes_share_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor(small_bundle(), _settings("torch", snap=64, batch_size=4))
    batches: list[tuple[int, ...]] = []
    monkeypatch.setattr(predictor._engine, "scores", _recording(predictor._engine.scores, batches))
    predictor.predict([photo(120, 170, 1), photo(125, 180, 2), photo(128, 192, 3)])
    assert batches == [(3, 128, 192, 3)]


def _recording(scores: Any, batches: list[tuple[int, ...]]) -> Any:
    def record(images: Any) -> Any:
        batches.append(np.stack(images).shape)
        return scores(images)

    return record


def test_many_sizes_do_not_pile_up(fcn8s: Predictor) -> None:
    sizes = np.random.default_rng(0).integers(32, 300, (260, 2))
    for size in sizes[:100]:
        fcn8s.predict([np.zeros((*size, 3), np.uint8)])
    before = memory_of(os.getpid())
    for size in sizes[100:]:
        fcn8s.predict([np.zeros((*size, 3), np.uint8)])
    # Unbounded, 160 more sizes of this small network took 490 MiB.
    assert memory_of(os.getpid()) - before < 200 << 20


def test_auto_takes_openvino_on_a_cpu_and_torch_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_settings(device="cpu").engine == "openvino"
    monkeypatch.setattr(openvino_runtime, "is_installed", lambda: False)
    assert resolve_settings(device="cpu").engine == "torch"
    with pytest.raises(DeviceError, match=r"pip install 'fcn-pipeline\[openvino\]'"):
        _settings("openvino")


def test_a_predictor_that_cannot_comply_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = _settings("openvino")
    monkeypatch.setattr(openvino_runtime, "is_installed", lambda: False)
    with pytest.raises(DeviceError, match="not installed here"):
        Predictor(small_bundle(), settings)
    monkeypatch.undo()
    monkeypatch.setattr(openvino_runtime, "precisions", lambda: frozenset({"float32"}))
    with pytest.raises(DeviceError, match="does not compute in"):
        Predictor(small_bundle(), settings.model_copy(update={"precision": "bfloat16"}))


def test_settings_of_before_there_were_engines_mean_torch() -> None:
    old = (
        '{"device":"cpu","precision":"float32","batch_size":1,"tile_pixels":4194304,"threads":2,"deterministic":false}'
    )
    settings = PredictorSettings.model_validate_json(old)
    assert (settings.engine, settings.snap) == ("torch", 1)


def test_a_process_that_dropped_its_predictors_survives_a_signal() -> None:
    """On a processor with AMX, OpenVINO meddles with the stack that signal handlers run on."""
    code = """
import faulthandler, os, signal
from fcn_core.inference.predictor import Predictor
from fcn_core.inference.settings import resolve_settings
from tests.fcn_core.nets import small_bundle
faulthandler.enable()  # its handlers want a stack of their own, as Ray's do
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
settings = resolve_settings(device="cpu", engine="openvino")
first, second = Predictor(small_bundle(), settings), Predictor(small_bundle(), settings)
del first
del second
others = [bytearray(20_000) for _ in range(50)]  # memory that was given back is used again
os.kill(os.getpid(), signal.SIGUSR1)
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


def test_layers_have_names_where_they_are_wanted_and_score_the_same() -> None:
    bundle, settings = small_bundle(backbone="mobilenet_v3_large"), _settings("openvino")
    pixels = photo(75, 97)[None]
    plain, named = (to_graph(bundle, named=named) for named in (False, True))
    assert not any("score" in node.get_friendly_name() for node in plain.get_ops())
    assert any("score_pool3" in node.get_friendly_name() for node in named.get_ops())
    scores = [run(compile_graph(graph, settings).create_infer_request(), pixels) for graph in (plain, named)]
    assert np.array_equal(*scores)
    assert scores[0].std() > 0
