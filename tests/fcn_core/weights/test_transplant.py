"""Weights arrive where they belong, and the report leaves nothing out."""

import contextlib
import io
import os
import pickle
import resource
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from fcn_core.errors import WeightsError
from fcn_core.models.architecture import Architecture
from fcn_core.models.fcn import FCN
from fcn_core.weights.names import renames
from fcn_core.weights.transplant import TransplantReport, read_tensors, transplant
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


def from_vgg16_classifier(model: FCN, state: Mapping[str, torch.Tensor]) -> TransplantReport:
    return transplant(model, state, renames(state, model.state_dict(), "vgg16"))


def test_vgg16_classifier_fills_trunk_and_head_of_a_full_width_net() -> None:
    with torch.device("meta"):
        model = FCN(Architecture(num_classes=21))
    report = from_vgg16_classifier(model, _classifier_state())
    assert report.matched["fc6.weight"] == (4096, 512, 7, 7)
    assert report.matched["fc7.weight"] == (4096, 4096, 1, 1)
    assert set(report.skipped) == {"classifier.6.weight", "classifier.6.bias"}
    assert all(name.startswith(("score", "upscore")) for name in report.missing)


def test_vgg16_classifier_head_is_skipped_where_channels_differ() -> None:
    with torch.device("meta"):
        model = FCN(Architecture(num_classes=21, head_width=512))
    report = from_vgg16_classifier(model, _classifier_state())
    assert len(report.matched) == 26
    assert "classifier.0.weight" in report.skipped
    assert "fc6.weight" in report.missing


@pytest.mark.parametrize("leading", [(), (1, 1)])
def test_first_fully_connected_layer_equals_the_convolution_it_becomes(leading: tuple[int, ...]) -> None:
    """Also as Caffe wrote it before 2015, [1, 1, out, in]."""
    model = small_net()
    channels = model.backbone.channels[2]
    linear = torch.nn.Linear(channels * 49, 16)
    report = transplant(model, {"fc6.weight": linear.weight.reshape(*leading, 16, -1)})
    patch = torch.randn(1, channels, 7, 7)
    expected = patch.flatten(1) @ linear.weight.T
    torch.testing.assert_close(
        torch.nn.functional.conv2d(patch, model.fc6.weight).flatten(1), expected, atol=1e-5, rtol=1e-4
    )
    shape = [*leading, 16, channels * 49]
    assert f"matched fc6: weight [16, {channels}, 7, 7] from fc6.weight {shape}" in str(report)


def test_as_many_values_in_another_order_are_no_match() -> None:
    model = small_net()
    out, incoming = model.backbone.features[2].weight.shape[:2]
    swapped = torch.zeros(3, 3, out, incoming)
    report = transplant(model, {"backbone.features.2.weight": swapped, "fc7.bias": torch.ones(16)})
    assert set(report.skipped) == {"backbone.features.2.weight"}


def test_of_two_tensors_for_one_place_the_first_is_taken_and_the_other_said() -> None:
    report = transplant(small_net(), {"a": torch.ones(16), "b": torch.zeros(16)}, {"a": "fc7.bias", "b": "fc7.bias"})
    assert report.origins["fc7.bias"] == ("a", (16,))
    assert report.skipped["b"] == ((16,), "fc7.bias is there already, from a")


def test_values_that_are_only_claimed_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(1).expand(1 << 40)}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"w\.pt: a \[1099511627776\] has fewer values than its shape"):
        read_tensors(tmp_path / "w.pt")


def test_whole_numbers_are_no_weights() -> None:
    report = transplant(small_net(), {"fc6.bias": torch.ones(16, dtype=torch.int64), "fc7.bias": torch.ones(16)})
    assert "torch.int64" in report.skipped["fc6.bias"][1]


def test_names_that_would_play_with_the_terminal_are_shown_escaped() -> None:
    report = transplant(small_net(), {"\x1b[2J": torch.ones(1), "fc7.bias": torch.ones(16)})
    assert "\x1b" not in str(report)
    assert r"\x1b[2J" in str(report)


def test_trunk_file_matches_every_convolution() -> None:
    path = os.environ.get("FCN_VGG16_TRUNK")
    if not path:
        pytest.skip("FCN_VGG16_TRUNK names no VGG16 trunk file")
    with torch.device("meta"):
        model = FCN(Architecture(num_classes=11, head_width=512))
    assert len(from_vgg16_classifier(model, read_tensors(path)).matched) == 26


def test_reads_safetensors_and_torch_files(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(3.0), "b": torch.ones(2, 2)}
    safetensors.torch.save_file(tensors, tmp_path / "w.safetensors")
    torch.save(tensors, tmp_path / "bare.pt")
    torch.save({"epoch": 3, "model_state_dict": {f"module.{k}": v for k, v in tensors.items()}}, tmp_path / "ck.pt")
    for name in ("w.safetensors", "bare.pt", "ck.pt"):
        read = read_tensors(tmp_path / name)
        assert read.keys() == tensors.keys()
        assert all(torch.equal(read[key], tensors[key]) for key in tensors)


def test_a_numpy_score_beside_the_tensors_does_not_keep_them_away(tmp_path: Path) -> None:
    """pytorch-fcn's trainer writes its best mean IoU, a number of numpy's, into every checkpoint."""
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    content = {"best_mean_iou": np.float64(0.5), "optim_state_dict": optimizer.state_dict(), "arch": "FCN8s"}
    for is_zip in (True, False):
        path = tmp_path / f"{is_zip}.pth.tar"
        torch.save({**content, "model_state_dict": model.state_dict()}, path, _use_new_zipfile_serialization=is_zip)
        assert torch.equal(read_tensors(path)["weight"], model.weight)


class Payload:
    """Calls a function when unpickled."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("is_zip", [True, False])
def test_code_in_a_torch_file_never_runs(tmp_path: Path, is_zip: bool, protocol: int) -> None:
    path = tmp_path / "evil.pt"
    evil = {"a": Payload(os.mkdir, str(tmp_path / "ran")), "b": torch.ones(1)}
    torch.save(evil, path, pickle_protocol=protocol, _use_new_zipfile_serialization=is_zip)
    with pytest.raises(WeightsError, match=r"evil.pt holds Python objects besides tensors"):
        read_tensors(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_in_a_bare_pickle_never_runs(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Payload(os.mkdir, str(tmp_path / "ran")), protocol=protocol))
    with pytest.raises(WeightsError, match=r"evil.pkl holds Python objects besides tensors"):
        read_tensors(tmp_path / "evil.pkl")
    assert not (tmp_path / "ran").exists()


def torch_file(*, is_zip: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save({"a": torch.arange(5.0)}, buffer, _use_new_zipfile_serialization=is_zip)
    return buffer.getvalue()


def rewritten(compression: int, storage: bytes | None = None, copies: int = 1, claim: int | None = None) -> bytes:
    """A torch file packed again, perhaps with another content for its tensor, or another claim of how large that is."""
    source = zipfile.ZipFile(io.BytesIO(torch_file(is_zip=True)))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("data/0") and storage is not None:
                content = storage
            if name.endswith("data.pkl") and claim is not None:
                content = claiming(content, claim)
            target.writestr(name, content)
        target.filelist *= copies  # the directory says so; the parts themselves are there once
    return buffer.getvalue()


def claiming(content: bytes, count: int) -> bytes:
    """A torch file whose pickle says that its tensor of 5 has `count` values."""
    for five in (b"K\x05tq\x07QK\x00K\x05\x85", b"K\x05Ntq\x07QK\x00K\x05\x85"):
        if five in content:
            return content.replace(five, five.replace(b"K\x05", b"\x8a\x06" + count.to_bytes(6, "little")))
    raise AssertionError("torch.save writes something else today")


WHOLE = {is_zip: torch_file(is_zip=is_zip) for is_zip in (True, False)}

HOSTILE = {
    "a compressed part of 50 MB": rewritten(zipfile.ZIP_DEFLATED, bytes(50 << 20)),
    "a tensor larger than its part": rewritten(zipfile.ZIP_STORED, bytes(8)),
    "parts that overlap": rewritten(zipfile.ZIP_STORED, bytes(1 << 16), copies=200),
    "a claim of petabytes": rewritten(zipfile.ZIP_STORED, claim=1 << 46),
    "an old file's claim of petabytes": claiming(torch_file(is_zip=False), 1 << 46),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_claims_of_a_torch_file_cost_no_memory(tmp_path: Path, what: str) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(HOSTILE[what])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(WeightsError, match=r"w\.pt"):
        read_tensors(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 << 10, "20 MB"


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


def test_cut_torch_files_are_refused(tmp_path: Path) -> None:
    for content in WHOLE.values():
        for end in range(0, len(content), 7):
            (tmp_path / "cut.pt").write_bytes(content[:end])
            with pytest.raises(WeightsError, match=r"cut\.pt"):
                read_tensors(tmp_path / "cut.pt")


@given(st.data())
def test_any_damage_to_a_torch_file_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(WHOLE[data.draw(st.booleans())])
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.pt"
    path.write_bytes(content)
    with contextlib.suppress(WeightsError):
        read_tensors(path)
