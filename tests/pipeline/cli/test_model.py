"""`fcn model import` and `fcn model get`: what they print, and how they refuse."""

import json
from pathlib import Path

import numpy as np
import pytest

from fcn_core.bundle import ModelBundle
from fcn_core.inference.predictor import Predictor
from fcn_core.inference.settings import resolve_settings
from fcn_core.normalization import CAFFE
from pipeline.cli.app import run as fcn
from tests.commands import refused
from tests.fcn_core.nets import small_bundle, small_net
from tests.fcn_core.weights.caffe_files import model_file


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "five.json"
    path.write_text(json.dumps({"name": "five", "names": ["a", "b", "c", "d", "e"]}))
    return path


@pytest.fixture
def caffe_file(tmp_path: Path) -> Path:
    path = tmp_path / "authors.caffemodel"
    path.write_bytes(model_file(small_net("fcn8s_padded").state_dict(), legacy_biases=True))
    return path


def test_a_caffe_model_becomes_a_bundle_that_predicts(
    tmp_path: Path, caffe_file: Path, labels: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    arguments = [
        "model", "import", caffe_file, "--arch", "fcn8s_padded", "--labels", labels, "--width", 0.125, "-o", model,
    ]  # fmt: skip
    assert fcn([str(argument) for argument in arguments]) == 0
    bundle = ModelBundle.load(model)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == (
        "authors.caffemodel is a Caffe model: VGG16 with the authors' names (Caffe, pytorch-fcn), scores of 5 classes"
    )
    assert "input: BGR 0..255, less the mean (104.007, 116.669, 122.679)" in printed
    assert "matched 39, skipped 0, missing 0 tensors" in printed
    assert "  matched conv1_1: weight [8, 3, 3, 3], bias [8]" in printed
    assert printed[-1] == (
        f"{model}: fcn8s_padded on vgg16, labels five (5 classes), model_id {bundle.model_id}; complete"
    )
    assert bundle.normalization == CAFFE
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    settings = resolve_settings(device="cpu", precision="float32")
    (segmentation,) = Predictor(bundle, settings).predict([image])
    assert segmentation.mask.shape == (20, 30)


def test_new_layers_are_named_in_the_last_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small_bundle("fcn32s").save(tmp_path / "coarse")
    assert fcn(["model", "import", f"{tmp_path}/coarse", "--arch", "fcn16s", "-o", f"{tmp_path}/finer"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1].endswith("train it before use, these layers are new: score_pool4")
    assert "  missing upscore2.weight [5, 5, 4, 4]: kept as it was" in printed


def test_the_first_mismatch_is_named_and_nothing_written(
    tmp_path: Path, caffe_file: Path, labels: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    message = refused(
        capsys, "model", "import", caffe_file, "--arch", "fcn8s", "--labels", labels, "-o", tmp_path / "model"
    )
    assert "the network's backbone.features.0.weight is [64, 3, 3, 3]" in message
    assert "the file has conv1_1.weight [8, 3, 3, 3]" in message
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("name", ["evil.caffemodel", "evil.pth", "evil.safetensors"])
@pytest.mark.parametrize("content", [b"", b"cos\nsystem\n(S'touch ran'\ntR.", b"\x12\xff\xff\xff\xff\x0f"])
def test_hostile_files_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    message = refused(capsys, "model", "import", tmp_path / name, "--arch", "fcn8s", "-o", tmp_path / "model")
    assert name in message


def test_a_missing_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "model", "import", tmp_path / "no.pth", "--arch", "fcn8s", "-o", tmp_path / "model")
    assert f"there is no weight file {tmp_path / 'no.pth'}" in message


def test_the_input_can_be_given(
    tmp_path: Path, caffe_file: Path, labels: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["model", "import", str(caffe_file), "--arch", "fcn8s_padded", "--labels", str(labels), "--width", "0.125"]
    model = tmp_path / "model"
    assert fcn([*common, "-o", str(model), "--input", "caffe", "--mean", "116.19", "97.203", "92.318"]) == 0
    assert ModelBundle.load(model).normalization.mean == (116.19, 97.203, 92.318)
    assert ModelBundle.load(model).normalization.channel_order == "bgr"
    capsys.readouterr()
    assert "--mean goes with --input" in refused(capsys, *common, "-o", tmp_path / "x", "--mean", 1, 2, 3)


def test_another_model_is_not_overwritten_unasked(
    tmp_path: Path, caffe_file: Path, labels: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["model", "import", caffe_file, "--arch", "fcn8s_padded", "--labels", labels, "--width", 0.125]
    small_bundle().save(tmp_path / "model")
    assert "already holds another model" in refused(capsys, *common, "-o", tmp_path / "model")
    assert fcn([*map(str, common), "-o", str(tmp_path / "model"), "--overwrite"]) == 0


def test_unknown_label_sets_are_refused(tmp_path: Path, caffe_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ("model", "import", caffe_file, "--arch", "fcn8s_padded", "-o", tmp_path / "model", "--labels")
    assert "choose one of voc, camvid, cityscapes, or give a .json file" in refused(capsys, *common, "ade20k")
    assert "cannot read the label set" in refused(capsys, *common, tmp_path / "none.json")


def test_get_names_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = refused(capsys, "model", "get", "vgg19", "-o", tmp_path / "model")
    assert "choose one of fcn_resnet50, fcn_resnet101, " in message


def test_get_without_a_network_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    message = refused(capsys, "model", "get", "fcn_resnet50", "-o", tmp_path / "model")
    assert "is there a network?" in message
    assert f"put it at {tmp_path}/hub/checkpoints/fcn_resnet50_coco-1167a1af.pth" in message
    assert not (tmp_path / "model").exists()


def test_get_does_not_use_a_file_that_only_has_the_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "fcn_resnet50_coco-1167a1af.pth").write_bytes(b"something else")
    message = refused(capsys, "model", "get", "fcn_resnet50", "-o", tmp_path / "model")
    assert "is not the published file" in message
