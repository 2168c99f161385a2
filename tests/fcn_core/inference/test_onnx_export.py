"""An exported model gives the same mask in ONNX Runtime, at any size, and cannot be written if it does not."""

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn

from fcn_core.bundle import ModelBundle
from fcn_core.errors import ExportError
from fcn_core.inference import onnx_export
from fcn_core.inference.onnx_export import compare, export_onnx
from fcn_core.inference.predictor import Predictor
from fcn_core.inference.reporting_packages import import_onnxruntime
from fcn_core.inference.settings import resolve_settings
from fcn_core.normalization import CAFFE, IMAGENET
from tests.fcn_core.nets import LABELS, small_bundle, small_net
from tests.requires import requires

requires("onnx", install="'fcn-pipeline[onnx]'")
onnxruntime = import_onnxruntime()


@pytest.fixture(scope="module", params=["fcn8s", pytest.param("fcn8s_padded", marks=pytest.mark.slow)])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelBundle, Path]:
    normalization = CAFFE if request.param == "fcn8s_padded" else IMAGENET
    bundle = ModelBundle.from_model(small_net(request.param), LABELS, normalization)
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    report = export_onnx(bundle, path)
    assert report.size == path.stat().st_size
    assert report.worst < 1e-4
    return bundle, path


@pytest.fixture(autouse=True)
def _keep_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def _images(*shape: int) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(sum(shape)).integers(0, 256, (*shape, 3), dtype=np.uint8)


@pytest.mark.slow
def test_the_mask_is_the_predictors_at_sizes_that_were_never_traced(exported: tuple[ModelBundle, Path]) -> None:
    bundle, path = exported
    session = onnxruntime.InferenceSession(path)
    predictor = Predictor(bundle, resolve_settings(device="cpu", precision="float32"))
    for shape in [(1, 1, 1), (1, 2, 3), (4, 31, 33), (1, 160, 160), (2, 7, 222), (1, 113, 64)]:
        images = _images(*shape)
        logits, masks = session.run(None, {"image": images})
        assert masks.dtype == np.uint8
        assert logits.shape == (shape[0], 5, *shape[1:])
        expected = np.stack([result.mask for result in predictor.predict(list(images))])
        assert (masks == expected).mean() >= 0.9999
        assert np.array_equal(logits.argmax(1), masks)


def test_batch_height_and_width_are_free_and_named(exported: tuple[ModelBundle, Path]) -> None:
    session = onnxruntime.InferenceSession(exported[1])
    (image,) = session.get_inputs()
    logits, mask = session.get_outputs()
    assert (image.name, image.type, image.shape) == ("image", "tensor(uint8)", ["batch", "height", "width", 3])
    assert (logits.name, logits.type) == ("logits", "tensor(float)")
    assert logits.shape == ["batch", 5, "height", "width"]
    assert (mask.name, mask.type, mask.shape) == ("mask", "tensor(uint8)", ["batch", "height", "width"])


def test_labels_and_normalization_travel_in_the_file_and_beside_it(exported: tuple[ModelBundle, Path]) -> None:
    bundle, path = exported
    metadata = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    beside = json.loads(path.with_name("model.onnx.json").read_text())
    assert metadata["model_id"] == beside["model_id"] == bundle.model_id
    for name in ("architecture", "labels", "normalization"):
        assert json.loads(metadata[name]) == beside[name] == getattr(bundle, name).model_dump(mode="json")
    assert beside["labels"]["names"] == list(LABELS.names)
    assert beside["onnx_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert sorted(file.name for file in path.parent.iterdir()) == ["model.onnx", "model.onnx.json"]


def test_the_documented_example_runs(
    exported: tuple[ModelBundle, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = Path(__file__).parents[3] / "docs" / "predictor.md"
    snippets = [part.split("```")[0] for part in page.read_text().split("```python\n")[1:]]
    (example,) = [snippet for snippet in snippets if "onnxruntime" in snippet]
    monkeypatch.chdir(exported[1].parent)
    exec(compile(example, str(page), "exec"), {})
    assert capsys.readouterr().out.strip() in LABELS.names


class _Shifted(nn.Module):
    """What was exported, with class 0 raised by `offset` of the largest logit."""

    def __init__(self, bundle: ModelBundle, offset: float) -> None:
        super().__init__()
        self.network, self.normalization, self.offset = bundle.build(), bundle.normalization, offset

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.network(self.normalization.apply(image.permute(0, 3, 1, 2)))
        logits = torch.cat([logits[:, :1] + self.offset * logits.abs().max(), logits[:, 1:]], dim=1)
        return logits, logits.argmax(1).to(torch.uint8)


def test_a_graph_that_differs_from_its_network_is_found(exported: tuple[ModelBundle, Path]) -> None:
    bundle, path = exported
    content = path.read_bytes()
    assert compare(content, _Shifted(bundle, 0))[0] < 1e-4
    with pytest.raises(ExportError, match="differs from the network at batch 1, 64x64: logits by"):
        compare(content, _Shifted(bundle, 0.01))


def test_what_differs_is_not_written(
    exported: tuple[ModelBundle, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = exported[1].read_bytes()
    monkeypatch.setattr(onnx_export, "_trace", lambda module, description: other)
    with pytest.raises(ExportError, match=r"differs from the network.*nothing was written"):
        export_onnx(small_bundle(seed=1), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_missing_packages_are_named_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])  # nothing can be found
    monkeypatch.setattr(sys, "meta_path", [])
    for name in ("onnx", "onnxscript"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(ExportError, match=r"onnx, onnxscript cannot be found.*pip install 'fcn-pipeline\[onnx\]'"):
        export_onnx(small_bundle(), tmp_path / "model.onnx")


def test_a_missing_folder_is_named_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="nowhere is not a folder"):
        export_onnx(small_bundle(), tmp_path / "nowhere" / "model.onnx")
