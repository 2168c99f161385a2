"""The catalogue is complete, and its figures are those of the networks it lists."""

import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fcn_core.models import catalogue
from fcn_core.models.architecture import Architecture
from fcn_core.models.catalogue import CATALOGUE, NetworkCost
from fcn_core.models.networks import ARCHS, network_spec
from pipeline.cli.app import run


def _entry(arch: str, backbone: str):  # type: ignore[no-untyped-def]
    (entry,) = (entry for entry in CATALOGUE if (entry.arch, entry.backbone) == (arch, backbone))
    return entry


@pytest.fixture(scope="module", autouse=True)
def each_counted_once() -> Iterator[None]:
    """A network takes half a second to count, and its figures are asked for three times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue, "cost", functools.cache(catalogue.cost))
        yield


def cost(architecture: Architecture, size: tuple[int, int]) -> NetworkCost:
    return catalogue.cost(architecture, size)


def test_every_network_is_listed_once() -> None:
    listed = [(entry.arch, entry.backbone) for entry in CATALOGUE]
    assert listed == [(arch, backbone) for arch in ARCHS for backbone in network_spec(arch).backbones]
    assert all(entry.architecture(7).num_classes == 7 for entry in CATALOGUE)


@pytest.mark.parametrize(
    ("arch", "backbone", "gflops"),
    [("fcn8s", "vgg16", 161.7), ("fcn8s_padded", "vgg16", 293.6)],
)
def test_cost_of_a_500x375_image(arch: str, backbone: str, gflops: float) -> None:
    price = cost(_entry(arch, backbone).architecture(21), (375, 500))
    assert price.flops / 1e9 == pytest.approx(gflops, abs=0.05)


@pytest.mark.parametrize(("backbone", "parameters"), [("resnet50", 35_322_218), ("resnet101", 54_314_346)])
def test_torchvisions_networks_have_its_parameters_less_the_auxiliary_classifier(
    backbone: str, parameters: int
) -> None:
    auxiliary = 3 * 3 * 1024 * 256 + 2 * 256 + 256 * 21 + 21
    assert cost(_entry("tv_fcn", backbone).architecture(21), (32, 32)).parameters == parameters - auxiliary


def test_cost_follows_the_architecture() -> None:
    narrow = cost(Architecture(num_classes=21, head_width=512), (375, 500))
    assert narrow.flops < cost(Architecture(num_classes=21), (375, 500)).flops
    assert narrow.flops < cost(Architecture(num_classes=21, head_width=512), (480, 640)).flops


def test_published_scores_are_there_for_weights_that_run_unchanged() -> None:
    scored = {entry.arch for entry in CATALOGUE if entry.published}
    assert scored == {arch for arch in ARCHS if arch.endswith("_padded") or arch.startswith("tv_")}
    assert _entry("fcn8s_padded", "vgg16").published[0].mean_iou == 65.51
    for entry in CATALOGUE:
        for scores in entry.published:
            assert scores.data
            assert scores.source
            for value in (scores.mean_iou, scores.pixel_accuracy, scores.mean_accuracy, scores.frequency_weighted_iou):
                assert value is None or 30 < value < 95


def test_the_page_on_models_has_these_figures() -> None:
    page = (Path(__file__).parents[3] / "docs" / "models.md").read_text()
    rows = re.findall(r"^\| (\w+) \| (\w+) \| ([\d.]+) M \| ([\d.]+) \|", page, re.MULTILINE)
    assert len(rows) == 9
    for arch, backbone, parameters, gflops in rows:
        price = cost(_entry(arch, backbone).architecture(21), (375, 500))
        assert (f"{price.parameters / 1e6:.1f}", f"{price.flops / 1e9:.1f}") == (parameters, gflops)
    for entry in CATALOGUE:
        for scores in entry.published:
            assert str(scores.mean_iou) in page


def test_model_list_prints_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["model", "list", "--size", "500x375"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [tuple(line.split()[:2]) for line in lines[1 : 1 + len(CATALOGUE)]] == [
        (entry.arch, entry.backbone) for entry in CATALOGUE
    ]
    (line,) = (line for line in lines if line.startswith("fcn8s_padded"))
    assert line.split()[:6] == ["fcn8s_padded", "vgg16", "134.5", "M", "293.6", "65.5"]


def test_model_list_as_json_has_all_scores(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "CATALOGUE", tuple(each for each in CATALOGUE if each.arch == "fcn16s_padded"))
    assert run(["model", "list", "--size", "64x48", "--classes", "11", "--json"]) == 0
    (network,) = json.loads(capsys.readouterr().out)
    assert (network["width"], network["height"], network["classes"]) == (64, 48, 11)
    assert [scores["mean_iou"] for scores in network["published"]] == [65.01, 62.4]


@pytest.mark.parametrize("size", ["500", "0x10", "500x375x3", "-1x5"])
def test_impossible_sizes_are_bad_input(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["model", "list", f"--size={size}"]) == 2
    assert "500x375" in capsys.readouterr().err
