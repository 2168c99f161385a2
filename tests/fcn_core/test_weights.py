"""Weights arrive where they belong, and the report leaves nothing out."""

import os
from pathlib import Path

import pytest
import safetensors.torch
import torch

from fcn_core.errors import WeightsError
from fcn_core.fcn import FCN, Architecture
from fcn_core.weights import load_vgg16_classifier, read_tensors, transplant
from tests.fcn_core.nets import small_net


def test_coarse_net_starts_a_finer_one() -> None:
    coarse, fine = small_net("fcn32s", seed=1), small_net("fcn16s", seed=2)
    report = transplant(fine, coarse.state_dict())
    assert torch.equal(fine.fc6.weight, coarse.fc6.weight)
    assert set(report.missing) == {"score_pool4.weight", "score_pool4.bias", "upscore2.weight"}
    assert not report.skipped


def test_wrong_shapes_and_strangers_are_skipped_and_said() -> None:
    model = small_net()
    before = model.fc7.weight.clone()
    state = {"fc7.weight": torch.zeros(3, 3), "extra": torch.zeros(2), "fc7.bias": torch.ones(16)}
    report = transplant(model, state)
    assert torch.equal(model.fc7.weight, before)
    assert bool((model.fc7.bias == 1).all())
    assert report.matched == {"fc7.bias": (16,)}
    text = str(report)
    assert text.startswith("matched 1, skipped 2, missing ")
    assert "skipped fc7.weight [3, 3]: the network's fc7.weight is [16, 16, 1, 1]" in text
    assert "skipped extra [2]: the network has no such tensor" in text
    assert "missing fc6.bias [16]" in text


def test_nothing_in_common_is_an_error() -> None:
    with pytest.raises(WeightsError, match=r"none of the 1 tensors fits.*\['conv1'\].*backbone"):
        transplant(small_net(), {"conv1": torch.zeros(1)})


def _classifier_state() -> dict[str, torch.Tensor]:
    from torchvision.models import vgg16

    with torch.device("meta"):
        return dict(vgg16().state_dict())


def test_vgg16_classifier_fills_trunk_and_head_of_a_full_width_net() -> None:
    with torch.device("meta"):
        model = FCN(Architecture(num_classes=21))
    report = load_vgg16_classifier(model, _classifier_state())
    assert report.matched["fc6.weight"] == (4096, 512, 7, 7)
    assert report.matched["fc7.weight"] == (4096, 4096, 1, 1)
    assert set(report.skipped) == {"classifier.6.weight", "classifier.6.bias"}
    assert all(name.startswith(("score", "upscore")) for name in report.missing)


def test_vgg16_classifier_head_is_skipped_where_channels_differ() -> None:
    with torch.device("meta"):
        model = FCN(Architecture(num_classes=21, head_width=512))
    report = load_vgg16_classifier(model, _classifier_state())
    assert len(report.matched) == 26
    assert "classifier.0.weight" in report.skipped
    assert "fc6.weight" in report.missing


def test_first_fully_connected_layer_equals_the_convolution_it_becomes() -> None:
    model = small_net()
    channels = model.backbone.channels[2]
    linear = torch.nn.Linear(channels * 49, 16)
    transplant(model, {"classifier.0.weight": linear.weight}, {"classifier.0.weight": "fc6.weight"})
    patch = torch.randn(1, channels, 7, 7)
    expected = patch.flatten(1) @ linear.weight.T
    torch.testing.assert_close(
        torch.nn.functional.conv2d(patch, model.fc6.weight).flatten(1), expected, atol=1e-5, rtol=1e-4
    )


def test_trunk_file_matches_every_convolution() -> None:
    path = os.environ.get("FCN_VGG16_TRUNK")
    if not path:
        pytest.skip("FCN_VGG16_TRUNK names no VGG16 trunk file")
    with torch.device("meta"):
        model = FCN(Architecture(num_classes=11, head_width=512))
    assert len(load_vgg16_classifier(model, read_tensors(path)).matched) == 26


def test_reads_safetensors_and_torch_files(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(3.0), "b": torch.ones(2, 2)}
    safetensors.torch.save_file(tensors, tmp_path / "w.safetensors")
    torch.save(tensors, tmp_path / "bare.pt")
    torch.save({"epoch": 3, "model_state_dict": {f"module.{k}": v for k, v in tensors.items()}}, tmp_path / "ck.pt")
    for name in ("w.safetensors", "bare.pt", "ck.pt"):
        read = read_tensors(tmp_path / name)
        assert read.keys() == tensors.keys()
        assert all(torch.equal(read[key], tensors[key]) for key in tensors)


class Payload:
    """Creates a file when unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


def test_code_in_a_torch_file_never_runs(tmp_path: Path) -> None:
    torch.save({"a": Payload(tmp_path / "ran")}, tmp_path / "evil.pt")
    with pytest.raises(WeightsError, match=r"evil.pt.*Python objects besides tensors"):
        read_tensors(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04 cut off"])
def test_damaged_files_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=name):
        read_tensors(tmp_path / name)


def test_files_without_tensors_are_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "none.pt")
    torch.save([torch.ones(1)], tmp_path / "list.pt")
    with pytest.raises(WeightsError, match=r"holds no tensors.*epoch"):
        read_tensors(tmp_path / "none.pt")
    with pytest.raises(WeightsError, match="holds a list"):
        read_tensors(tmp_path / "list.pt")
    with pytest.raises(WeightsError, match="there is no weight file"):
        read_tensors(tmp_path / "absent.pt")
