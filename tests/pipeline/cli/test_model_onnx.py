"""`fcn model import NET.onnx`: what it says, what it refuses, and that everything then takes such a bundle."""

import json
from pathlib import Path

import pytest

from fcn_core.bundle import ModelBundle
from pipeline.cli.app import run as fcn
from tests.commands import refused
from tests.onnx_nets import small_onnx, written
from tests.requires import requires

requires("onnx", install="'fcn-pipeline[onnx]'")
requires("onnxruntime", install="'fcn-pipeline[onnx]'")

IMAGENET = ["--mean", "0.485", "0.456", "0.406", "--std", "0.229", "0.224", "0.225"]


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    path = tmp_path / "five.json"
    path.write_text(json.dumps({"name": "five", "names": ["a", "b", "c", "d", "e"]}))
    return path


def _import(net: Path, *more: object) -> list[str]:
    return [str(argument) for argument in ("model", "import", net, *more)]


def test_an_onnx_file_becomes_a_bundle_and_what_was_found_is_said(
    tmp_path: Path, labels: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net, model = written(small_onnx("argmax"), tmp_path / "net.onnx"), tmp_path / "model"
    numbers = ["--mean", "123.675", "116.28", "103.53", "--std", "58.395", "57.12", "57.375"]
    assert fcn(_import(net, "--labels", labels, *numbers, "--channel-order", "bgr", "-o", model)) == 0
    bundle = ModelBundle.load(model)
    assert capsys.readouterr().out.splitlines() == [
        "net.onnx is an ONNX graph of 6 operators, opset 17",
        "output y is the largest class of scores, which is taken instead: it has confidences",
        "input: BGR 0..255, less the mean (123.675, 116.28, 103.53), divided by (58.395, 57.12, 57.375)",
        "output scores: logits, one cell for 4 pixels",
        f"{model}: an ONNX graph, logits of images of any size, labels five (5 classes), model_id {bundle.model_id};"
        " complete",
    ]
    assert fcn(["model", "show", str(model), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["architecture"]["arch"] == "onnx"
    assert shown["provenance"]["source"] == "an ONNX graph of 6 operators, opset 17"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (IMAGENET, "give --labels"),
        (["--labels", "LABELS"], "give --mean and --std"),
        ([*IMAGENET, "--labels", "LABELS", "--arch", "fcn8s"], "leave out --arch"),
        ([*IMAGENET, "--labels", "LABELS", "--size", "big"], "--size is width x height"),
        ([*IMAGENET[:-1], "0", "--labels", "LABELS"], "--std is three positive numbers"),
        ([*IMAGENET, "--labels", "voc"], "scores 5 classes, where the label set has 21"),
    ],
)
def test_what_an_onnx_file_needs_is_asked_for_in_one_sentence(
    options: list[str], sentence: str, tmp_path: Path, labels: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = written(small_onnx(), tmp_path / "net.onnx")
    given = [str(labels) if option == "LABELS" else option for option in options]
    assert sentence in refused(capsys, *_import(net, *given, "-o", tmp_path / "model"))
    assert not (tmp_path / "model").exists()


def test_options_of_onnx_files_and_of_weights_are_not_mixed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = tmp_path / "weights.pth"
    assert "--size goes with an .onnx file alone" in refused(
        capsys, *_import(weights, "--arch", "fcn8s", "--size", "64x64", "-o", tmp_path / "model")
    )
    assert "give --arch" in refused(capsys, *_import(weights, "-o", tmp_path / "model"))
