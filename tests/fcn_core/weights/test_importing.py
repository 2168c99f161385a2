"""Anyone's weights arrive: the same numbers give the same scores, whatever file and names they came in."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torchvision

from fcn_core.bundle import ModelBundle
from fcn_core.errors import WeightsError
from fcn_core.labels import LabelSet, preset
from fcn_core.models.architecture import Architecture
from fcn_core.models.backbones import BackboneName
from fcn_core.models.building import build
from fcn_core.models.network import Network
from fcn_core.models.networks import ArchName
from fcn_core.models.upsampling import bilinear_weight
from fcn_core.normalization import CAFFE, IMAGENET
from fcn_core.weights.importing import import_weights
from fcn_core.weights.names import recognize, renames
from tests.fcn_core.nets import LABELS, PADDED_ARCHS, small_bundle, small_net
from tests.fcn_core.weights.caffe_files import layer, model_file, net, raw_blob

State = Mapping[str, torch.Tensor]

THREE = LabelSet(name="three", names=("x", "y", "z"), palette=((0, 0, 0), (9, 9, 9), (99, 99, 99)))

VGG16_CHANNELS = {"conv1": 8, "conv2": 16, "conv3": 32, "conv4": 64, "conv5": 64}  # an eighth of the real ones
CONVS = ("1_1", "1_2", "2_1", "2_2", "3_1", "3_2", "3_3", "4_1", "4_2", "4_3", "5_1", "5_2", "5_3")


def authors_state(net_name: str, classes: int = 5, head: int = 16) -> dict[str, torch.Tensor]:
    """Random weights with the names of Caffe's files and pytorch-fcn, from the published tables, not from our nets."""
    generator = torch.Generator().manual_seed(7)

    def normal(*shape: int) -> torch.Tensor:
        fan_in = torch.Size(shape[1:]).numel()
        return torch.randn(shape, generator=generator).mul((2 / max(fan_in, 1)) ** 0.5)

    shapes: dict[str, tuple[int, int, int]] = {}
    incoming = 3
    for conv in CONVS:
        out = VGG16_CHANNELS[f"conv{conv[0]}"]
        shapes[f"conv{conv}"] = (out, incoming, 3)
        incoming = out
    shapes |= {"fc6": (head, 64, 7), "fc7": (head, head, 1), "score_fr": (classes, head, 1)}
    upscores = {"upscore": 64}
    if net_name != "32s":
        shapes["score_pool4"] = (classes, 64, 1)
        upscores = {"upscore2": 4, "upscore16": 32}
    if net_name == "8s":
        shapes["score_pool3"] = (classes, 32, 1)
        upscores = {"upscore2": 4, "upscore_pool4": 4, "upscore8": 16}
    state: dict[str, torch.Tensor] = {}
    for name, (out, fan, kernel) in shapes.items():
        state |= {f"{name}.weight": normal(out, fan, kernel, kernel), f"{name}.bias": normal(out) / 10}
    return state | {f"{name}.weight": bilinear_weight(classes, kernel) for name, kernel in upscores.items()}


def write(path: Path, state: State) -> Path:
    if path.suffix == ".caffemodel":
        path.write_bytes(model_file(state))
    elif path.suffix == ".safetensors":
        safetensors.torch.save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    else:
        torch.save(dict(state), path)
    return path


def scores(model: Network) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    with torch.inference_mode():
        return model.scores(torch.randn(1, 3, 9, 17, generator=generator))


def brought(path: Path, arch: ArchName, **options: Any) -> ModelBundle:
    options = {"width": 0.125, "labels": LABELS, **options}
    return import_weights(path, arch, **options).bundle


def caffe_with_inner_products(state: State) -> bytes:
    """As the classifier's files have it: fc6 and fc7 as [1, 1, out, in] and biases as [1, 1, 1, out], in V1 layers."""
    layers: dict[str, list[bytes]] = {}
    for name, tensor in state.items():
        where, part = name.rsplit(".", 1)
        if part == "bias":
            tensor = tensor.reshape(1, 1, 1, -1)
        elif where in ("fc6", "fc7"):
            tensor = tensor.reshape(1, 1, tensor.shape[0], -1)
        layers.setdefault(where, []).append(raw_blob(tensor))
    return net([layer(name, 4, blobs, "v1") for name, blobs in layers.items()])


WAYS: dict[str, Callable[[Path, State], Path]] = {
    "bare": lambda folder, state: write(folder / "w.pth", state),
    "wrapped": lambda folder, state: write_raw(folder / "w.pth.tar", {"epoch": 3, "model_state_dict": dict(state)}),
    "module.": lambda folder, state: write_raw(
        folder / "w.pth", {"model_state_dict": {f"module.{name}": tensor for name, tensor in state.items()}}
    ),
    "safetensors": lambda folder, state: write(folder / "w.safetensors", state),
    "caffe": lambda folder, state: write(folder / "w.caffemodel", state),
    "caffe before 2015": lambda folder, state: write_bytes(folder / "w.caffemodel", caffe_with_inner_products(state)),
}


def write_raw(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def write_bytes(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("net_name", "tensors"), [("32s", 33), ("16s", 36), ("8s", 39)])
def test_the_same_weights_score_the_same_from_any_file(tmp_path: Path, net_name: str, tensors: int) -> None:
    state = authors_state(net_name)
    assert len(state) == tensors
    arch: ArchName = f"fcn{net_name}_padded"  # type: ignore[assignment]
    reference = small_net(arch, seed=9)
    reference.load_state_dict(state)
    expected = scores(reference)
    assert expected.std() > 0.01
    ways = WAYS if net_name == "8s" else {way: WAYS[way] for way in ("bare", "caffe")}
    for way, save in ways.items():
        folder = tmp_path / way
        folder.mkdir()
        imported = import_weights(save(folder, state), arch, width=0.125, labels=LABELS)
        assert len(imported.report.matched) == tensors, way
        assert not imported.report.skipped, way
        assert not imported.report.missing, way
        assert not imported.untrained, way
        assert imported.bundle.normalization == CAFFE, way
        assert torch.equal(scores(imported.bundle.build()), expected), way


@pytest.mark.parametrize("arch", PADDED_ARCHS)
@pytest.mark.parametrize("suffix", [".pth", ".caffemodel"])
def test_every_padded_net_comes_back_from_its_own_names(tmp_path: Path, arch: ArchName, suffix: str) -> None:
    model = small_net(arch)
    state = model.state_dict()
    if suffix == ".caffemodel" and arch == "fcn8s_atonce_padded":
        # Scale layers have a factor for each channel.
        state["scale_pool4.weight"], state["scale_pool3.weight"] = torch.full((64,), 0.01), torch.full((32,), 0.0001)
    bundle = brought(write(tmp_path / f"net{suffix}", state), arch)
    assert all(torch.equal(bundle.state[name], tensor) for name, tensor in model.state_dict().items())
    assert bundle.normalization == CAFFE


def test_what_became_of_each_tensor_is_told_with_shapes(tmp_path: Path) -> None:
    state = authors_state("8s") | {"extra.weight": torch.ones(2)}
    del state["score_pool3.bias"]
    text = str(import_weights(write(tmp_path / "a.pth", state), "fcn8s", width=0.125, labels=LABELS).report)
    assert text.splitlines()[0] == "matched 37, skipped 2, missing 1 tensors"
    assert "matched backbone.features.0: weight [8, 3, 3, 3] from conv1_1.weight, bias [8] from conv1_1.bias" in text
    assert "skipped extra.weight [2]: the network has no such tensor" in text
    assert "skipped upscore8.weight [5, 5, 16, 16]: this network's last upsampling is another, and fixed" in text
    assert "missing score_pool3.bias [5]: kept as it was" in text


def test_authors_weights_run_in_same_geometry_too(tmp_path: Path) -> None:
    state = authors_state("8s")
    model = brought(write(tmp_path / "a.caffemodel", state), "fcn8s").build()
    assert torch.equal(model.get_parameter("backbone.features.28.weight"), state["conv5_3.weight"])
    for name in ("fc6.weight", "score_pool3.bias", "upscore_pool4.weight"):
        assert torch.equal(model.get_parameter(name), state[name])


def classifier_of(model: Network, fully_connected: tuple[int, int]) -> dict[str, torch.Tensor]:
    """What torchvision's classifier would be called and shaped with this network's weights."""
    state = {}
    for name, tensor in model.state_dict().items():
        if name.startswith("backbone."):
            state[name.removeprefix("backbone.")] = tensor
    for fc, index in zip(("fc6", "fc7"), fully_connected, strict=True):
        state[f"classifier.{index}.weight"] = model.get_parameter(f"{fc}.weight").flatten(1)
        state[f"classifier.{index}.bias"] = model.get_parameter(f"{fc}.bias")
    return state | {"classifier.6.weight": torch.zeros(10, 16), "classifier.6.bias": torch.zeros(10)}


@pytest.mark.parametrize(
    ("backbone", "fully_connected"), [("vgg16", (0, 3)), ("vgg16_bn", (0, 3)), ("alexnet", (1, 4))]
)
def test_torchvision_classifiers_become_networks(
    tmp_path: Path, backbone: BackboneName, fully_connected: tuple[int, int]
) -> None:
    model = small_net("fcn16s", backbone=backbone, seed=1)
    path = write(tmp_path / "classifier.pth", classifier_of(model, fully_connected))
    imported = import_weights(path, "fcn16s", width=0.125, head_width=16)
    assert imported.bundle.architecture.backbone == backbone, "told from the names"
    assert imported.bundle.normalization == IMAGENET
    assert imported.bundle.labels == preset("voc")
    assert imported.untrained == ("score_fr", "score_pool4")
    assert set(imported.report.skipped) == {"classifier.6.weight", "classifier.6.bias"}
    expected = model.state_dict()
    for name, tensor in imported.bundle.state.items():
        if not name.startswith(("score", "upscore")):
            assert torch.equal(tensor, expected[name]), name


def test_a_torchvision_vgg16_starts_the_authors_net(tmp_path: Path) -> None:
    model = small_net("fcn32s", seed=1)
    path = write(tmp_path / "vgg16.pth", classifier_of(model, (0, 3)))
    imported = import_weights(path, "fcn32s_padded", width=0.125, head_width=16)
    assert imported.bundle.normalization == IMAGENET, "the weights decide what they take, not the network"
    assert imported.untrained == ("score_fr",)
    assert torch.equal(imported.bundle.state["conv5_3.bias"], model.get_parameter("backbone.features.28.bias"))


@pytest.mark.parametrize("name", ["vgg16", "vgg16_bn", "alexnet", "resnet50", "resnet101", "mobilenet_v3_large"])
def test_real_classifiers_have_the_names_that_are_expected(name: BackboneName) -> None:
    with torch.device("meta"):
        state = torchvision.models.get_model(name).state_dict()
        targets = build(Architecture(arch="fcn8s", backbone=name, num_classes=21)).state_dict()
    family = recognize(state)
    assert family is not None
    assert family.backbone == name
    found = renames(state, targets.keys(), name)
    heads = ("fc6", "fc7") if name in ("vgg16", "vgg16_bn", "alexnet") else ()
    assert {target for target in targets if target.startswith(("backbone.", *heads))} == set(found.values())


def test_a_backbone_without_fully_connected_layers_comes_whole(tmp_path: Path) -> None:
    state = torchvision.models.mobilenet_v3_large(weights=None).state_dict()
    imported = import_weights(write(tmp_path / "classifier.pth", state), "fcn8s", labels=LABELS)
    assert imported.untrained == ("fc6", "fc7", "score_fr", "score_pool4", "score_pool3")
    assert {name.partition(".")[0] for name in imported.report.skipped} == {"classifier"}
    assert torch.equal(imported.bundle.state["backbone.features.16.1.bias"], state["features.16.1.bias"])


@pytest.mark.parametrize(
    ("name", "backbone", "auxiliary"),
    [
        ("fcn", "resnet50", {"aux_loss": True}),
        ("deeplabv3", "resnet50", {"aux_loss": True}),
        ("deeplabv3", "mobilenet_v3_large", {"aux_loss": True}),
        ("lraspp", "mobilenet_v3_large", {}),
    ],
)
def test_torchvisions_segmentation_checkpoint_gives_torchvisions_scores(
    tmp_path: Path, name: str, backbone: str, auxiliary: dict[str, bool]
) -> None:
    make = getattr(torchvision.models.segmentation, f"{name}_{backbone}")
    original = make(weights=None, weights_backbone=None, **auxiliary).eval()
    path = write(tmp_path / f"{name}_{backbone}_coco.pth", original.state_dict())
    imported = import_weights(path, f"tv_{name}")
    assert f"torchvision's {name}_{backbone}, scores of 21 classes" in imported.notes[0]
    assert imported.bundle.architecture.backbone == backbone
    assert not imported.untrained
    assert {name.partition(".")[0] for name in imported.report.skipped} == ({"aux_classifier"} if auxiliary else set())
    image = torch.randn(1, 3, 18, 35)
    with torch.inference_mode():
        torch.testing.assert_close(imported.bundle.build()(image), original(image)["out"], atol=1e-5, rtol=1e-4)


def test_coarse_bundles_start_finer_ones(tmp_path: Path) -> None:
    bundle = small_bundle("fcn32s", seed=4)
    new_layers = {"fcn16s": "score_pool4", "fcn8s": "score_pool3"}
    archs: tuple[ArchName, ...] = ("fcn16s", "fcn8s")
    for arch in archs:
        bundle.save(tmp_path / arch)
        imported = import_weights(tmp_path / arch, arch)
        assert imported.untrained == (new_layers[arch],)
        assert imported.bundle.labels == LABELS
        assert imported.bundle.architecture.width == 0.125
        assert imported.bundle.architecture.head_width == 16
        assert imported.bundle.provenance["source_model_id"] == bundle.model_id
        assert all(torch.equal(imported.bundle.state[name], tensor) for name, tensor in bundle.state.items())
        bundle = imported.bundle


def test_bundles_cross_between_geometries(tmp_path: Path) -> None:
    padded = small_bundle("fcn8s_padded")
    padded.save(tmp_path / "padded")
    same = import_weights(tmp_path / "padded", "fcn8s")
    assert not same.untrained
    assert same.bundle.normalization == padded.normalization
    same.bundle.save(tmp_path / "same")
    back = import_weights(tmp_path / "same", "fcn8s_padded").bundle
    assert all(torch.equal(back.state[name], tensor) for name, tensor in padded.state.items())


def test_own_classes_get_new_score_layers_and_it_is_said(tmp_path: Path) -> None:
    path = write(tmp_path / "a.caffemodel", authors_state("8s"))
    imported = import_weights(path, "fcn8s_padded", labels=THREE, width=0.125)
    assert "score layers are made anew for the 3 classes of three" in imported.notes
    assert imported.untrained == ("score_fr", "score_pool4", "score_pool3")
    assert imported.report.skipped["upscore2.weight"] == ((5, 5, 4, 4), "new for the classes of three")
    assert torch.equal(imported.bundle.state["upscore2.weight"], bilinear_weight(3, 4))
    assert "fc7.weight" in imported.report.matched


def test_as_many_classes_of_other_names_are_other_classes(tmp_path: Path) -> None:
    small_bundle().save(tmp_path / "five")
    others = LABELS.model_copy(update={"name": "others", "names": ("p", "q", "r", "s", "t")})
    imported = import_weights(tmp_path / "five", "fcn8s", labels=others)
    assert imported.untrained == ("score_fr", "score_pool4", "score_pool3")


def test_scores_are_not_thrown_away_unasked(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pth", authors_state("8s"))
    with pytest.raises(WeightsError, match=r"a\.pth scores 5 classes.*give a label set"):
        import_weights(path, "fcn8s_padded", width=0.125)


def test_the_semantic_head_of_the_two_is_taken(tmp_path: Path) -> None:
    state = authors_state("32s")
    heads = {name: tensor for name, tensor in state.items() if "score" in name}
    state = {name: tensor for name, tensor in state.items() if name not in heads}
    for name, tensor in heads.items():
        where, part = name.rsplit(".", 1)
        state |= {f"{where}_sem.{part}": tensor, f"{where}_geo.{part}": torch.zeros(3, *tensor.shape[1:])}
    imported = import_weights(
        write(tmp_path / "siftflow.caffemodel", state), "fcn32s_padded", labels=LABELS, width=0.125
    )
    assert not imported.untrained
    assert torch.equal(imported.bundle.state["score_fr.weight"], heads["score_fr.weight"])
    assert {name.rsplit(".")[0] for name in imported.report.skipped} == {"score_fr_geo", "upscore_geo"}


class TestScales:
    """The at-once nets scale what score_pool4 and score_pool3 see; no other net does."""

    @pytest.fixture
    def at_once(self) -> Network:
        return small_net("fcn8s_atonce_padded")

    def file(self, folder: Path, model: Network, pool4: torch.Tensor, pool3: torch.Tensor) -> Path:
        state = model.state_dict() | {"scale_pool4.weight": pool4, "scale_pool3.weight": pool3}
        return write(folder / "atonce.caffemodel", state)

    def test_usual_factors_change_nothing(self, tmp_path: Path, at_once: Network) -> None:
        path = self.file(tmp_path, at_once, torch.full((64,), 0.01), torch.tensor(0.0001))
        imported = import_weights(path, "fcn8s_atonce_padded", labels=LABELS, width=0.125)
        assert torch.equal(imported.bundle.state["score_pool4.weight"], at_once.get_parameter("score_pool4.weight"))
        assert set(imported.report.skipped) == {"scale_pool4.weight", "scale_pool3.weight"}

    def test_other_factors_are_taken_into_the_weights(self, tmp_path: Path, at_once: Network) -> None:
        pool4 = torch.linspace(0.01, 0.02, 64)
        bundle = brought(self.file(tmp_path, at_once, pool4, torch.tensor(0.0001)), "fcn8s_atonce_padded")
        expected = at_once.get_parameter("score_pool4.weight") * (pool4 / 0.01).reshape(1, -1, 1, 1)
        torch.testing.assert_close(bundle.state["score_pool4.weight"], expected)

    def test_a_net_that_does_not_scale_scores_the_same(self, tmp_path: Path, at_once: Network) -> None:
        path = self.file(tmp_path, at_once, torch.full((64,), 0.01), torch.full((32,), 0.0001))
        imported = import_weights(path, "fcn8s_padded", labels=LABELS, width=0.125)
        assert any("score_pool4" in note and "factor" in note for note in imported.notes)
        torch.testing.assert_close(scores(imported.bundle.build()), scores(at_once), atol=1e-5, rtol=1e-5)

    def test_also_from_bundle_to_bundle(self, tmp_path: Path, at_once: Network) -> None:
        ModelBundle.from_model(at_once, LABELS, CAFFE).save(tmp_path / "atonce")
        plain = import_weights(tmp_path / "atonce", "fcn8s_padded").bundle
        torch.testing.assert_close(scores(plain.build()), scores(at_once), atol=1e-5, rtol=1e-5)
        plain.save(tmp_path / "plain")
        back = import_weights(tmp_path / "plain", "fcn8s_atonce_padded").bundle
        torch.testing.assert_close(scores(back.build()), scores(at_once), atol=1e-5, rtol=1e-5)


def learned_upsampling(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    changed = state["upscore8.weight"].clone()
    changed[0, 1] += 0.01  # what no interpolation does: class 1 gets something of class 0
    return state | {"upscore8.weight": changed}


def test_a_learned_last_upsampling_is_refused_where_it_would_be_needed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pth", learned_upsampling(authors_state("8s")))
    with pytest.raises(WeightsError, match=r"upscore8\.weight \[5, 5, 16, 16\] is not the bilinear interpolation"):
        import_weights(path, "fcn8s_padded", labels=LABELS, width=0.125)
    elsewhere = import_weights(path, "fcn8s", labels=LABELS, width=0.125)
    assert any("upscore8" in note and "masks will differ" in note for note in elsewhere.notes)
    import_weights(path, "fcn8s_padded", labels=THREE, width=0.125)  # made anew anyway


def test_rounded_bilinear_weights_are_bilinear(tmp_path: Path) -> None:
    state = {name: tensor.to(torch.float16) for name, tensor in authors_state("8s").items()}
    bundle = brought(write(tmp_path / "half.pth", state), "fcn8s_padded")
    assert torch.equal(bundle.state["upscore8.weight"], bilinear_weight(5, 16))


def test_the_first_mismatch_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pth", authors_state("8s"))
    with pytest.raises(WeightsError) as caught:
        import_weights(path, "fcn8s_padded", labels=LABELS)
    assert "network's conv1_1.weight is [64, 3, 3, 3], the file has conv1_1.weight [8, 3, 3, 3]" in str(caught.value)
    with pytest.raises(WeightsError) as caught:
        import_weights(path, "fcn8s", backbone="resnet50", labels=LABELS)
    assert "network's backbone.conv1.weight is [64, 3, 7, 7], the file has no such tensor" in str(caught.value)
    with pytest.raises(WeightsError, match=r"none of the 38 tensors fits.*conv1_1\.weight.*backbone\.conv1\.weight"):
        import_weights(path, "tv_fcn", labels=LABELS)


def test_half_a_backbone_is_refused(tmp_path: Path) -> None:
    state = authors_state("8s")
    del state["conv4_2.bias"]
    with pytest.raises(WeightsError, match=r"conv4_2\.bias is \[64\], the file has no such tensor"):
        brought(write(tmp_path / "a.caffemodel", state), "fcn8s_padded")


def test_a_file_cut_between_two_layers_does_not_pass_for_whole(tmp_path: Path) -> None:
    state = authors_state("8s")
    whole = model_file(state)
    cut = len(model_file({name: tensor for name, tensor in state.items() if not name.startswith("upscore")}))
    path = write_bytes(tmp_path / "a.caffemodel", whole[:cut])
    imported = import_weights(path, "fcn8s_padded", labels=LABELS, width=0.125)
    assert set(imported.report.missing) == {"upscore2.weight", "upscore_pool4.weight"}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    state = authors_state("8s")
    state["fc7.weight"][1, 2] = value
    with pytest.raises(WeightsError, match=r"fc7\.weight holds values that are not numbers"):
        brought(write(tmp_path / "a.caffemodel", state), "fcn8s_padded")


def test_a_wide_claim_does_not_make_a_wide_network(tmp_path: Path) -> None:
    """A head of a million channels would take terabytes; the file has them in fc6 only."""
    state = authors_state("8s") | {"fc6.weight": torch.zeros(1_000_000, 1, 1, 1)}
    imported = import_weights(write(tmp_path / "a.pth", state), "fcn8s_padded", labels=LABELS, width=0.125)
    assert imported.bundle.architecture.head_width == 16
    assert "fc6.weight" in imported.report.skipped
    assert "fc6" in imported.untrained


def test_names_of_nobody_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pth", {"encoder.0.weight": torch.ones(1)})
    with pytest.raises(WeightsError, match=r"names of no network that is known here.*encoder\.0\.weight"):
        import_weights(path, "fcn8s")


def test_networks_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.pth", authors_state("8s"))
    with pytest.raises(WeightsError, match=r"there is no such network: fcn8s_padded .*vgg16"):
        import_weights(path, "fcn8s_padded", backbone="resnet50", labels=LABELS)


def test_the_given_input_goes_before_the_guessed_one(tmp_path: Path) -> None:
    path = write(tmp_path / "vgg16_from_caffe.pth", classifier_of(small_net("fcn32s"), (0, 3)))
    assert brought(path, "fcn32s", normalization=CAFFE).normalization == CAFFE
    notes = import_weights(path, "fcn32s", width=0.125, normalization=CAFFE).notes
    assert "input: BGR 0..255, less the mean (104.007, 116.669, 122.679)" in notes


def test_importing_twice_gives_the_same_model_and_leaves_chance_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "a.caffemodel", authors_state("32s"))
    before = torch.get_rng_state()
    first, second = (brought(path, "fcn8s", labels=THREE) for _ in range(2))
    assert first.model_id == second.model_id
    assert torch.equal(torch.get_rng_state(), before)
    assert brought(path, "fcn8s", labels=THREE, seed=1, head_width=8).model_id != first.model_id


def test_an_imported_bundle_is_saved_and_loaded(tmp_path: Path) -> None:
    path = write(tmp_path / "a.caffemodel", authors_state("8s"))
    bundle = brought(path, "fcn8s_padded")
    bundle.save(tmp_path / "model")
    loaded = ModelBundle.load(tmp_path / "model")
    assert loaded.model_id == bundle.model_id
    assert loaded.provenance["imported_from"] == "a.caffemodel"
    assert len(loaded.provenance["source_sha256"]) == 64
    assert torch.equal(scores(loaded.build()), scores(bundle.build()))
