"""int8 bundles: they predict what the float model does, have an id of their own, and only OpenVINO runs them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fcn_core.bundle import ModelBundle
from fcn_core.errors import BundleError, DataError, DeviceError, ExportError, PredictionError
from fcn_core.inference.engines.openvino_engine import compile_graph
from fcn_core.inference.onnx_export import export_onnx
from fcn_core.inference.predictor import Predictor
from fcn_core.inference.quantize import _quantized, _serialize, agree, quantize
from fcn_core.inference.reporting_packages import import_openvino
from fcn_core.inference.settings import resolve_settings
from fcn_core.models.description import INT8_FILES, MODEL_FILE
from tests.fcn_core.nets import overflowing_bundle, photo, small_bundle
from tests.requires import requires

requires("nncf", install="'fcn-pipeline[quantize]'")

FLOAT = small_bundle()


@pytest.fixture(scope="module")
def int8() -> ModelBundle:
    return quantize(FLOAT, [photo(96, 128, seed) for seed in range(8)])[0]


def test_int8_agrees_with_the_float_model_and_says_how_well(int8: ModelBundle) -> None:
    notes = int8.provenance["int8"]
    assert (notes["float_model_id"], notes["calibration_images"], notes["compared_images"]) == (FLOAT.model_id, 6, 2)
    held_out = [photo(96, 128, seed) for seed in (0, 4)]
    assert agree(FLOAT, int8, held_out).equal_pixels == pytest.approx(notes["equal_pixels"])
    assert 0.9 < notes["equal_pixels"] < 1


def test_scores_of_int8_that_overflow_are_an_error_and_never_a_mask() -> None:
    openvino = import_openvino()
    graph = _quantized(FLOAT, [photo(64, 64, seed) for seed in range(3)])
    scores = graph.output(0).get_node().input_value(0)
    huge = scores
    for _ in range(2):
        huge = openvino.opset13.multiply(huge, np.float32(3e38)).output(0)
    overflowing = _serialize(openvino.Model([huge], graph.get_parameters()))
    predictor = Predictor(replace(FLOAT, int8=overflowing), resolve_settings(device="cpu", engine="openvino"))
    with pytest.raises(PredictionError, match="the scores of image 0 are not all finite"):
        predictor.predict([photo(64, 64)])


def test_a_network_whose_scores_overflow_is_not_quantized() -> None:
    with pytest.raises(PredictionError, match="not all finite"):  # OpenVINO's own RuntimeError before
        quantize(overflowing_bundle(), [photo(64, 64, seed) for seed in range(8)])


def test_a_network_that_overflows_inside_is_not_quantized() -> None:
    """Its activations would be clipped to the range of 8 bits, and come out finite."""
    weights = torch.sign(FLOAT.state["fc6.weight"]) * 3e38
    with pytest.raises(BundleError, match="is of no use"):
        quantize(replace(FLOAT, state={**FLOAT.state, "fc6.weight": weights}), [photo(64, 64)] * 8)


def test_all_convolutions_but_those_that_score_compute_in_int8(int8: ModelBundle) -> None:
    """One that does not, and the reorders around it, cost more than a tenth of the time."""
    assert int8.int8 is not None
    openvino = import_openvino()
    values = openvino.Tensor(np.frombuffer(int8.int8.values, np.uint8).copy())
    graph = openvino.Core().read_model(int8.int8.graph, values)
    runs = compile_graph(graph, resolve_settings(device="cpu", engine="openvino")).get_runtime_model()
    facts = {node.get_friendly_name(): node.get_rt_info() for node in runs.get_ops()}
    precisions = {
        name: fact["runtimePrecision"].astype(str)
        for name, fact in facts.items()
        if fact["layerType"].astype(str) == "Convolution"
    }
    assert len(precisions) == 13 + 2 + 3  # of the trunk, fc6 and fc7, scores
    in_float = {name for name, precision in precisions.items() if precision not in ("u8", "i8")}
    assert in_float == {name for name in precisions if ".score" in name}


def test_it_is_another_model_and_survives_its_files(int8: ModelBundle, tmp_path: Path) -> None:
    assert int8.model_id != FLOAT.model_id
    int8.save(tmp_path / "model")
    loaded = ModelBundle.load(tmp_path / "model")
    assert loaded.model_id == int8.model_id
    assert loaded.int8 == int8.int8
    image = photo(70, 90, 5)
    settings = resolve_settings(device="cpu", precision="float32")
    masks = [Predictor(bundle, settings).predict([image])[0].mask for bundle in (int8, loaded)]
    assert np.array_equal(*masks)


def test_a_float_bundles_files_are_as_ever() -> None:
    description = json.loads(FLOAT.to_files()[MODEL_FILE])
    assert description["format_version"] == 1
    assert "int8" not in description


def test_tiny_and_tiled_images_are_computed_in_float(int8: ModelBundle) -> None:
    settings = resolve_settings(device="cpu", precision="float32", tile_pixels=1 << 17, engine="openvino")
    ours, floats = (Predictor(bundle, settings) for bundle in (int8, FLOAT))
    for size in ((7, 9), (400, 400)):
        masks = [one.predict([photo(*size)])[0].mask for one in (ours, floats)]
        assert np.array_equal(*masks)


def test_only_openvino_runs_it(int8: ModelBundle) -> None:
    with pytest.raises(DeviceError, match="int8 graph that only OpenVINO computes, not engine torch"):
        Predictor(int8, resolve_settings(device="cpu", engine="torch"))


@pytest.mark.parametrize("name", INT8_FILES)
def test_a_damaged_or_missing_graph_is_refused(int8: ModelBundle, name: str) -> None:
    files = int8.to_files()
    with pytest.raises(BundleError, match=rf"{name} .* has SHA-256"):
        ModelBundle.from_files({**files, name: files[name][:-1]})
    with pytest.raises(BundleError, match=rf"{name} is missing"):
        ModelBundle.from_files({key: value for key, value in files.items() if key != name})


def test_what_cannot_be_quantized_or_exported_is_named(int8: ModelBundle, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="is int8 already"):
        quantize(int8, [photo(64, 64)] * 4)
    with pytest.raises(DataError, match="at least 4 images, not 3"):
        quantize(FLOAT, [photo(64, 64)] * 3)
    with pytest.raises(ExportError, match="int8 graph for OpenVINO"):
        export_onnx(int8, tmp_path / "model.onnx")
