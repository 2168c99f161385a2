"""Features: the same for an image whatever else is asked, near for like images, and without an effect on masks."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fcn_core import Architecture, LabelSet, Predictor, build, resolve_settings
from fcn_core.errors import DataError
from fcn_core.inference.features import NUMBERS
from fcn_core.inference.predictor import Outputs
from fcn_core.inference.settings import SMALLEST_TILE
from fcn_core.models.networks import ARCHS, network_spec
from fcn_core.normalization import IMAGENET
from fcn_core.weights.onnx_file import import_onnx
from tests.onnx_nets import small_onnx, written
from tests.requires import requires
from tests.samples import model, photo

SETTINGS = resolve_settings(device="cpu", precision="float32", threads=1, batch_size=4, engine="torch")
FEATURES = Outputs(features=True)


def test_features_change_no_mask_and_depend_on_no_other_image() -> None:
    predictor = Predictor(model(), SETTINGS)
    images = [photo(96, 72, seed) for seed in range(3)] + [photo(50, 201, 9)]
    plain = predictor.predict(images)
    together = predictor.predict(images, FEATURES)
    alone = [predictor.predict([image], FEATURES)[0] for image in images]
    for without, one, other in zip(plain, together, alone, strict=True):
        assert without.features is None
        assert one.features is not None
        assert one.features.dtype == np.float16
        assert one.features.shape == (NUMBERS,)
        assert (one.mask == without.mask).all()
        assert one.confidence == without.confidence
        assert (one.features == other.features).all()
        assert np.linalg.norm(one.features.astype(float)) == pytest.approx(1, abs=1e-2)


def test_tiled_images_have_the_features_of_the_whole() -> None:
    small_tiles = resolve_settings(
        device="cpu", precision="float32", threads=1, batch_size=1, engine="torch", tile_pixels=SMALLEST_TILE
    )
    image = photo(600, 400, 1)
    (whole,) = Predictor(model(), SETTINGS).predict([image], FEATURES)
    (tiled,) = Predictor(model(), small_tiles).predict([image], FEATURES)
    assert whole.features is not None
    assert tiled.features is not None
    assert (whole.features == tiled.features).all()


def test_the_same_image_in_another_size_is_nearer_than_another_image() -> None:
    predictor = Predictor(model(), SETTINGS)
    image = photo(320, 240, 1)
    found = predictor.predict([image, image[::2, ::2].copy(), photo(320, 240, 2)], FEATURES)
    first, smaller, other = (np.asarray(each.features, float) for each in found)
    assert np.linalg.norm(first - smaller) < 0.5 * np.linalg.norm(first - other)


@pytest.mark.parametrize("arch", ARCHS)
def test_every_network_has_a_map_that_is_deeper_than_its_scores(arch: str) -> None:
    backbone = network_spec(arch).backbones[0]
    with torch.inference_mode(), torch.device("meta"):
        network = build(Architecture(arch=arch, backbone=backbone, num_classes=7))
        deepest = network.eval().deepest(torch.empty(1, 3, 160, 160))
    assert deepest.shape[0] == 1
    assert min(deepest.shape[2:]) >= 1
    assert deepest.shape[1] > 100, "what a network sees, not its scores"


def test_an_imported_graph_has_none_and_says_so(tmp_path: Path) -> None:
    requires("onnx", install="'fcn-pipeline[onnx]'")
    requires("onnxruntime", install="'fcn-pipeline[onnx]'")
    labels = LabelSet(name="five", names=tuple("abcde"), palette=((0, 0, 0),) * 5)
    bundle = import_onnx(written(small_onnx(), tmp_path / "net.onnx"), labels, IMAGENET).bundle
    predictor = Predictor(bundle, resolve_settings(device="cpu", engine="onnxruntime", threads=1, kind="onnx"))
    with pytest.raises(DataError, match="gives no features"):
        predictor.predict([photo(64, 64)], FEATURES)
