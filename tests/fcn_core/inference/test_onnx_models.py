"""Imported ONNX graphs: masks are the graph's own forward, resize and arg-max; harmful files are one sentence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fcn_core.bundle import ModelBundle
from fcn_core.errors import BundleError, DeviceError, ExportError
from fcn_core.inference.predictor import Outputs, Predictor
from fcn_core.inference.reporting_packages import import_onnxruntime
from fcn_core.inference.settings import resolve_settings
from fcn_core.models.description import MODEL_FILE, ONNX_FILE
from fcn_core.normalization import IMAGENET
from fcn_core.weights.onnx_file import import_onnx
from tests.fcn_core.nets import LABELS, photo
from tests.onnx_nets import small_onnx, written
from tests.requires import requires

onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'fcn-pipeline[onnx]'")
requires("onnxruntime", install="'fcn-pipeline[onnx]'")

SIZES = [(64, 96), (57, 83), (131, 70)]


def _bundle(model: Any, folder: Path, **options: object) -> ModelBundle:
    return import_onnx(written(model, folder / "net.onnx"), LABELS, IMAGENET, **options).bundle  # type: ignore[arg-type]


def _forward(model: Any, image: torch.Tensor) -> torch.Tensor:
    """What the graph gives by itself."""
    session = import_onnxruntime().InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"x": image.numpy()})[0])


def _input(image: np.ndarray) -> torch.Tensor:
    return IMAGENET.apply(torch.from_numpy(image.copy()).permute(2, 0, 1)[None]).contiguous()


@pytest.mark.parametrize("end", ["logits", "softmax", "argmax"])
def test_masks_are_the_graphs_own_forward_resized_and_arg_max(end: str, tmp_path: Path) -> None:
    bundle = _bundle(small_onnx(end), tmp_path)
    predictor = Predictor(bundle, resolve_settings(device="cpu", engine="onnxruntime", kind="onnx", threads=2))
    for size in SIZES:
        image = photo(*size)
        found = predictor.predict([image], Outputs(probabilities=True))[0]
        scores = _forward(small_onnx(), _input(image))
        logits = F.interpolate(scores, size=size, mode="bilinear", align_corners=False)
        assert (found.mask == logits.argmax(1)[0].numpy()).mean() >= 0.999
        assert found.probabilities is not None
        assert np.allclose(found.probabilities, scores.softmax(1)[0].numpy(), atol=1e-5)
        assert found.areas.sum() == found.mask.size


def test_openvino_and_onnx_runtime_score_alike(tmp_path: Path) -> None:
    requires("openvino", install="'fcn-pipeline[openvino]'")
    bundle = _bundle(small_onnx(), tmp_path)
    results = []
    for engine in ("openvino", "onnxruntime"):
        settings = resolve_settings(
            device="cpu",
            precision="float32",
            engine=engine,
            kind="onnx",
            threads=2,
            batch_size=2,  # type: ignore[arg-type]
        )
        results.append(Predictor(bundle, settings).predict([photo(57, 83), photo(57, 83, 1)]))
    for ours, theirs in zip(*results, strict=True):
        assert (ours.mask == theirs.mask).mean() >= 0.999
        assert ours.confidence == pytest.approx(theirs.confidence, abs=1e-4)
    assert resolve_settings(device="cpu", kind="onnx").engine == "openvino"


def test_a_graph_of_one_size_sees_every_image_in_it_and_its_scores_are_stretched_back(tmp_path: Path) -> None:
    model = small_onnx(shape=(1, 3, 64, 96))
    bundle = _bundle(model, tmp_path)
    assert bundle.architecture.size == (64, 96)  # type: ignore[union-attr]
    predictor = Predictor(bundle, resolve_settings(device="cpu", engine="onnxruntime", kind="onnx", threads=2))
    images = [photo(64, 96), photo(131, 177)]
    masks = [found.mask for found in predictor.predict(images)]
    logits = F.interpolate(_forward(model, _input(images[0])), size=(64, 96), mode="bilinear", align_corners=False)
    assert (masks[0] == logits.argmax(1)[0].numpy()).mean() >= 0.999
    assert masks[1].shape == (131, 177)


def test_a_graph_that_wants_multiples_gets_padding_and_its_masks_none(tmp_path: Path) -> None:
    model = small_onnx()
    # Halves and doubles, and adds: odd sizes do not fit together.
    nodes = [
        onnx.helper.make_node("MaxPool", ["y"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        onnx.helper.make_node("Resize", ["p", "", "twice"], ["q"], mode="nearest"),
        onnx.helper.make_node("Add", ["y", "q"], ["z"]),
    ]
    model.graph.node.extend(nodes)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "twice"))
    model.graph.output[0].name = "z"
    with pytest.raises(BundleError, match=r"runs on images of 128x96 but not of 97x163 .*give --multiple-of 32"):
        _bundle(model, tmp_path)
    bundle = _bundle(model, tmp_path, multiple_of=8)
    predictor = Predictor(bundle, resolve_settings(device="cpu", engine="onnxruntime", kind="onnx", threads=2))
    image = photo(57, 83)
    found = predictor.predict([image], Outputs(probabilities=True))[0]
    padded = np.pad(image, ((0, 7), (0, 5), (0, 0)), mode="edge")
    logits = F.interpolate(_forward(model, _input(padded)), size=(64, 88), mode="bilinear", align_corners=False)
    assert (found.mask == logits.argmax(1)[0, :57, :83].numpy()).mean() >= 0.999
    assert found.probabilities is not None
    assert found.probabilities.shape == (5, 15, 21)


def test_large_images_are_seen_through_windows_and_others_whole(tmp_path: Path) -> None:
    bundle = _bundle(small_onnx(), tmp_path)
    whole, windowed = (
        Predictor(bundle, resolve_settings("cpu", engine="onnxruntime", kind="onnx", threads=2, window=window))
        for window in (0, 128)
    )
    small, large = photo(120, 128), photo(300, 416)
    assert np.array_equal(whole.predict([small])[0].mask, windowed.predict([small])[0].mask)
    masks = [each.predict([large], sizes=[(600, 832)])[0].mask for each in (whole, windowed)]
    assert masks[0].shape == masks[1].shape == (600, 832)
    # The network looks 3 pixels beyond a cell: only cells at a window's edge differ, and count least.
    assert (masks[0] == masks[1]).mean() >= 0.97
    with pytest.raises(DeviceError, match="networks of this library are tiled"):
        resolve_settings("cpu", window=128)
    fixed = _bundle(small_onnx(shape=(1, 3, 64, 64)), tmp_path)
    with pytest.raises(DeviceError, match=r"takes images of 64x64 alone, .*use window 64"):
        Predictor(fixed, resolve_settings("cpu", engine="onnxruntime", kind="onnx", window=128))
    through = Predictor(fixed, resolve_settings("cpu", engine="onnxruntime", kind="onnx", window=64))
    assert (through.predict([large])[0].mask == whole.predict([large])[0].mask).mean() >= 0.95


def test_a_class_map_is_its_mask_and_has_confidence_1(tmp_path: Path) -> None:
    bundle = _bundle(small_onnx("classes"), tmp_path)
    image = photo(64, 96)
    found = Predictor(bundle, resolve_settings(device="cpu", engine="onnxruntime", kind="onnx", threads=2)).predict(
        [image]
    )
    classes = _forward(small_onnx("classes"), _input(image))[0].numpy()
    assert np.array_equal(found[0].mask[2::4, 2::4], classes), "in the middle of a cell there is nothing to interpolate"
    assert found[0].confidence == 1.0


def test_a_bundle_of_a_graph_comes_back_the_same_and_says_what_it_is_not(tmp_path: Path) -> None:
    bundle = _bundle(small_onnx(), tmp_path)
    bundle.save(tmp_path / "model")
    assert {path.name for path in (tmp_path / "model").iterdir()} == {MODEL_FILE, ONNX_FILE}
    again = ModelBundle.load(tmp_path / "model")
    assert (again.model_id, again.onnx, again.architecture) == (bundle.model_id, bundle.onnx, bundle.architecture)
    assert _bundle(small_onnx(seed=1), tmp_path).model_id != bundle.model_id
    with pytest.raises(BundleError, match="is an imported ONNX graph, which predicts and nothing else"):
        again.build()
    with pytest.raises(
        DeviceError, match=r"engine torch does not compute imported ONNX graphs; use engine openvino or"
    ):
        Predictor(again, resolve_settings(device="cpu", engine="torch", precision="float32"))
    values = json.loads((tmp_path / "model" / MODEL_FILE).read_text())
    assert values["format_version"] == 3
    broken = {**again.to_files(), ONNX_FILE: (again.onnx or b"")[:-1]}
    with pytest.raises(BundleError, match=r"model.onnx .* has SHA-256"):
        ModelBundle.from_files(broken)


def test_constants_in_a_file_beside_the_model_come_into_the_bundle(tmp_path: Path) -> None:
    model = small_onnx()
    onnx.save(
        small_onnx(), tmp_path / "net.onnx", save_as_external_data=True, location="net.onnx.data", size_threshold=0
    )
    bundle = import_onnx(tmp_path / "net.onnx", LABELS, IMAGENET).bundle
    (tmp_path / "net.onnx.data").unlink()
    settings = resolve_settings(device="cpu", engine="onnxruntime", kind="onnx", threads=2)
    same = _bundle(model, tmp_path)
    image = photo(64, 96)
    masks = [Predictor(each, settings).predict([image])[0].mask for each in (bundle, same)]
    assert np.array_equal(*masks)


def _external(location: str) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", location

    return change


def _huge(model: Any) -> None:
    model.graph.initializer[0].dims[0] = 1 << 40


def _huge_made(model: Any) -> None:
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1 << 36], np.int64), "length"))
    model.graph.node.append(onnx.helper.make_node("ConstantOfShape", ["length"], ["long"]))
    model.graph.node.append(onnx.helper.make_node("ReduceSum", ["long"], ["sum"], keepdims=0))
    model.graph.node.append(onnx.helper.make_node("Add", ["y", "sum"], ["z"]))
    model.graph.output[0].name = "z"


def _control_flow(model: Any) -> None:
    branch = onnx.helper.make_graph([], "branch", [], [])
    model.graph.node.append(onnx.helper.make_node("If", ["y"], ["z"], then_branch=branch, else_branch=branch))


def _custom(model: Any) -> None:
    model.graph.node[1].domain = "com.example"
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))


def _no_space(model: Any) -> None:
    model.graph.node.append(onnx.helper.make_node("GlobalAveragePool", ["y"], ["pooled"]))
    model.graph.node.append(onnx.helper.make_node("Flatten", ["pooled"], ["z"]))
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("z", onnx.TensorProto.FLOAT, ["n", 5]))


def _two_outputs(model: Any) -> None:
    model.graph.output.append(onnx.helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, ["n", 8, "i", "j"]))


def _nan(model: Any) -> None:
    values = onnx.numpy_helper.to_array(model.graph.initializer[0]).copy()
    values[0] = np.nan
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(values, "w1"))


HOSTILE = {
    "external data outside": (_external("../secret"), r"refers to the file '../secret'; constants may only be in"),
    "external data by an absolute name": (_external("/etc/passwd"), r"refers to the file '/etc/passwd'"),
    "external data that is not there": (_external("gone"), r"needs the file 'gone' beside it, which cannot be read"),
    "a huge constant": (_huge, r"has a constant 'w1' of \d+ bytes by its shape and 864 in fact"),
    "a constant made huge": (_huge_made, r"the ONNX graph does not run on images of 128x96 "),
    "control flow": (_control_flow, r"has the operator If, which is not run here: control flow"),
    "a custom operator": (_custom, r"has the custom operator com.example.Relu; only ONNX's own are run"),
    "no masks": (_no_space, r"gives float32 of shape \[1, 5\], not scores \[N, classes, h, w\]"),
    "two outputs": (_two_outputs, r"has 2 outputs; choose one with --output-name: y, a"),
    "not a number": (_nan, r"has a constant 'w1' with values that are not numbers"),
}


@pytest.mark.parametrize(("change", "sentence"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_graph_is_one_sentence(change: Callable[[Any], None], sentence: str, tmp_path: Path) -> None:
    model = small_onnx()
    change(model)
    with pytest.raises(BundleError, match=sentence) as refusal:
        _bundle(model, tmp_path)
    assert str(refusal.value).isprintable()


def test_files_of_other_shapes_classes_opsets_and_ends_are_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    whole = small_onnx().SerializeToString()
    cases: dict[bytes, str] = {
        b"": "is empty: the file is no ONNX model",
        whole[: len(whole) // 2]: "cannot be read|is empty|is not",
        small_onnx(opset=99).SerializeToString(): r"is of opset 99, where 9 to \d+ are read",
        small_onnx(classes=300).SerializeToString(): "scores 300 classes, where the label set has 5",
        small_onnx(
            shape=("n", "h", "w", 3)
        ).SerializeToString(): r"takes values of shape \[\?, \?, \?, 3\].*channels first",
        small_onnx(shape=(4, 3, "h", "w")).SerializeToString(): "takes 4 images at once",
    }
    for content, sentence in cases.items():
        path.write_bytes(content)
        with pytest.raises(BundleError, match=sentence):
            import_onnx(path, LABELS, IMAGENET)
    with pytest.raises(BundleError, match=r"cannot read .*gone\.onnx"):
        import_onnx(tmp_path / "gone.onnx", LABELS, IMAGENET)


def test_a_bundle_with_another_graph_than_was_imported_is_refused_before_it_runs(tmp_path: Path) -> None:
    bundle = _bundle(small_onnx(), tmp_path)
    hostile = small_onnx()
    _custom(hostile)
    forged = ModelBundle(bundle.architecture, LABELS, IMAGENET, {}, onnx=hostile.SerializeToString())
    files = forged.to_files()
    with pytest.raises(BundleError, match="has the custom operator"):
        Predictor(ModelBundle.from_files(files), resolve_settings(device="cpu", kind="onnx"))


def test_what_only_networks_do_is_refused_with_a_sentence(tmp_path: Path) -> None:
    from fcn_core.inference.onnx_export import export_onnx

    bundle = _bundle(small_onnx(), tmp_path)
    with pytest.raises(ExportError, match="is an ONNX graph already"):
        export_onnx(bundle, tmp_path / "again.onnx")


def test_int8_of_a_graph_is_a_graph_with_an_id_of_its_own_that_agrees(tmp_path: Path) -> None:
    requires("nncf", install="'fcn-pipeline[quantize]'")
    from fcn_core.inference.quantize import quantize

    bundle = _bundle(small_onnx(), tmp_path)
    made, agreement = quantize(bundle, [photo(64 + seed, 96, seed) for seed in range(8)])
    assert (made.kind, made.architecture) == ("onnx", bundle.architecture)
    assert made.model_id != bundle.model_id
    assert made.provenance["int8"] | {"tool": ""} == {
        "float_model_id": bundle.model_id, "calibration_images": 6, "compared_images": 2,
        "equal_pixels": agreement.equal_pixels, "tool": "",
    }  # fmt: skip
    assert 0.9 < agreement.equal_pixels < 1
    assert ModelBundle.from_files(made.to_files()).model_id == made.model_id
    nodes = onnx.load_model_from_string(made.onnx).graph.node
    rounded = {name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output}
    convolutions = [node for node in nodes if node.op_type == "Conv"]
    in_float = [node for node in convolutions if not rounded & {*node.input[:2]}]
    assert [node.output[0] for node in in_float] == ["y"]  # the layer that scores
    assert len(convolutions) == 3
    settings = [
        resolve_settings(device="cpu", precision="float32", engine=engine, kind="onnx")  # type: ignore[arg-type]
        for engine in ("openvino", "onnxruntime")
    ]
    openvino, onnxruntime = (Predictor(made, each).predict([photo(57, 83)])[0].mask for each in settings)
    assert (openvino == onnxruntime).mean() > 0.9
    with pytest.raises(ExportError, match="is int8 already"):
        quantize(made, [photo(64, 96)] * 4)


def test_a_graph_of_an_opset_without_scales_of_channels_is_not_quantized(tmp_path: Path) -> None:
    requires("nncf", install="'fcn-pipeline[quantize]'")
    from fcn_core.inference.quantize import quantize

    with pytest.raises(ExportError, match="of opset 12, and int8 needs 13 or newer; export it anew"):
        quantize(_bundle(small_onnx(opset=12), tmp_path), [photo(64, 96)] * 4)
