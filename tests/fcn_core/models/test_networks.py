"""Every network there is: any size in, that size out; torchvision's weights and scores; descriptions that last."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor, nn
from torchvision import models

from fcn_core.bundle import ModelBundle
from fcn_core.labels import LabelSet
from fcn_core.models.architecture import Architecture
from fcn_core.models.backbones import BACKBONES, backbone_spec
from fcn_core.models.backbones.alexnet import AlexNet
from fcn_core.models.backbones.base import Backbone
from fcn_core.models.backbones.mobilenet import MobileNetV3Large
from fcn_core.models.backbones.resnet import ResNet
from fcn_core.models.building import build
from fcn_core.models.catalogue import CATALOGUE
from fcn_core.models.fcn import FCN, final_upsample
from fcn_core.models.network import Network
from fcn_core.models.networks import ARCHS, network_spec
from fcn_core.normalization import IMAGENET
from tests.fcn_core.nets import SAME_ARCHS, small_bundle, small_net

NETWORKS = [(arch, backbone) for arch in ARCHS for backbone in network_spec(arch).backbones]

RANDOM = torch.randint(1, 3001, (10, 2), generator=torch.Generator().manual_seed(0)).tolist()
# What a side comes to is a matter of its remainder by 32, the deepest stride, and of no other side: a round of
# remainders and the end of the next, for heights and widths at once, and some sizes by chance.
SIDES = [*range(1, 34), 63, 64, 65]
SIZES = [*zip(SIDES, reversed(SIDES), strict=True), *map(tuple, RANDOM)]


def _skeleton(arch: str, backbone: str) -> Network:
    """A network on the meta device, without what changes no shape and takes time: batch norms, activations, and all
    but two of a ResNet stage's blocks.
    """
    with torch.device("meta"):
        model = build(Architecture.model_validate({"arch": arch, "backbone": backbone, "num_classes": 3})).eval()
    for layer in list(model.modules()):
        for name, child in layer.named_children():
            if isinstance(child, nn.BatchNorm2d | nn.ReLU | nn.Hardswish | nn.Hardsigmoid):
                setattr(layer, name, nn.Identity())
            elif name.startswith("layer"):
                del child[2:]
    return model


def test_resnet101_is_resnet50_with_more_blocks() -> None:
    """So what holds for any size on one holds on the other."""
    for arch in ("fcn8s", "tv_fcn"):
        skeletons = [_skeleton(arch, backbone) for backbone in ("resnet50", "resnet101")]
        first, second = (str(list(skeleton.modules())) for skeleton in skeletons)
        assert first == second


@pytest.mark.parametrize(
    ("arch", "backbone"),
    [(arch, backbone) for arch, backbone in NETWORKS if arch not in SAME_ARCHS and backbone != "resnet101"],
)
def test_padded_and_torchvisions_networks_give_the_images_size(arch: str, backbone: str) -> None:
    model = _skeleton(arch, backbone)
    with torch.inference_mode(), torch.device("meta"):
        for size in SIZES:
            assert model(torch.empty(1, 3, *size)).shape == (1, 3, *size)
        for size in SIZES[::7]:
            upsampling = model.upsampling(size)
            cells = model.scores(torch.empty(1, 3, *size)).shape[-2:]
            assert cells == (upsampling.rows.cells, upsampling.columns.cells)


@pytest.mark.parametrize("backbone", [backbone for backbone in BACKBONES if backbone != "resnet101"])
def test_same_networks_give_the_images_size(backbone: str) -> None:
    """The three networks on a backbone share its maps. Their last layer is `final_upsample`, tested below."""
    networks = [_skeleton(arch, backbone) for arch in SAME_ARCHS]
    trunk = networks[0].backbone
    with torch.inference_mode(), torch.device("meta"):
        for height, width in SIZES:
            features = trunk(torch.empty(1, 3, height, width))
            for stride, found in zip((8, 16, 32), features, strict=True):
                assert found.shape[-2:] == (-(-height // stride), -(-width // stride))
            for network in networks:
                cells = network.head(features).shape[-2:]
                upsampling = network.upsampling((height, width))
                assert cells == (upsampling.rows.cells, upsampling.columns.cells)
                assert cells == (-(-height // network.stride), -(-width // network.stride))


@pytest.mark.parametrize("stride", [8, 16, 32])
def test_last_upsampling_gives_the_images_size(stride: int) -> None:
    for height, width in SIZES:
        scores = torch.zeros(1, 1, -(-height // stride), -(-width // stride))
        assert final_upsample(scores, stride, (height, width)).shape[-2:] == (height, width)


@pytest.mark.parametrize(("arch", "backbone"), [network for network in NETWORKS if network[1] != "resnet101"])
def test_scores_are_deep_of_shallow_of_the_bordered_image_down_to_one_pixel(arch: str, backbone: str) -> None:
    model = small_net(arch, backbone=backbone)
    assert isinstance(model, Network)
    x = torch.randn(1, 3, 47, 81)
    with torch.inference_mode():
        bordered = F.pad(x, (model.border,) * 4)
        maps = model.shallow(bordered)
        height, width = bordered.shape[-2:]
        expected = [(model.cells(height, stride), model.cells(width, stride)) for stride in model.shallow_strides]
        assert [tuple(found.shape[-2:]) for found in maps] == expected
        torch.testing.assert_close(model.deep(maps), model.scores(x))
        assert model(x).shape == (1, 5, 47, 81)
        assert model(torch.randn(1, 3, 1, 1)).isfinite().all()


@pytest.mark.parametrize(("arch", "backbone"), [("fcn8s", "vgg16_bn"), ("fcn16s", "mobilenet_v3_large")])
def test_bundles_keep_batch_norm(arch: str, backbone: str) -> None:
    bundle = small_bundle(arch, backbone=backbone)
    again = ModelBundle.from_files(bundle.to_files())
    assert again.model_id == bundle.model_id
    x = torch.randn(1, 3, 40, 50)
    with torch.inference_mode():
        assert torch.equal(again.build()(x), small_net(arch, backbone=backbone)(x))


@pytest.mark.parametrize(("arch", "backbone"), [network for network in NETWORKS if network[0].startswith("tv_")])
def test_torchvisions_networks_are_its_forward(arch: str, backbone: str) -> None:
    make = getattr(models.segmentation, f"{arch.removeprefix('tv_')}_{backbone}")
    theirs = make(weights=None, weights_backbone=None, num_classes=5).eval()
    with torch.device("meta"):
        ours = build(Architecture.model_validate({"arch": arch, "backbone": backbone, "num_classes": 5})).eval()
    ours.load_state_dict(theirs.state_dict(), assign=True)
    for size in ((1, 1), (65, 97)):
        x = torch.randn(2, 3, *size)
        with torch.inference_mode():
            assert torch.equal(ours(x), theirs(x)["out"])


def test_tv_fcn_has_torchvisions_dropout() -> None:
    rates = [layer.p for layer in small_net("tv_fcn").modules() if isinstance(layer, nn.Dropout)]
    assert rates == [0.1]


@pytest.mark.parametrize(
    ("backbone", "make", "left_out"),
    [
        ("vgg16", models.vgg16, "classifier."),
        ("vgg16_bn", models.vgg16_bn, "classifier."),
        ("alexnet", models.alexnet, "classifier."),
        ("resnet50", models.resnet50, "fc."),
        ("resnet101", models.resnet101, "fc."),
        ("mobilenet_v3_large", models.mobilenet_v3_large, "classifier."),
    ],
)
def test_backbones_have_torchvisions_parameters(backbone: str, make: Callable[[], Any], left_out: str) -> None:
    with torch.device("meta"):
        ours = {name: tensor.shape for name, tensor in backbone_spec(backbone).build(1.0).state_dict().items()}
        theirs = {name: tensor.shape for name, tensor in make().state_dict().items()}
    assert ours == {name: shape for name, shape in theirs.items() if not name.startswith(left_out)}


def test_resnet_features_are_torchvisions() -> None:
    theirs, ours = models.resnet50().eval(), ResNet().eval()
    ours.load_state_dict(theirs.state_dict(), strict=False)
    x = torch.randn(1, 3, 65, 97)
    with torch.inference_mode():
        layer2 = theirs.layer2(theirs.layer1(theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))))
        layer3 = theirs.layer3(layer2)
        for found, expected in zip(ours(x), (layer2, layer3, theirs.layer4(layer3)), strict=True):
            torch.testing.assert_close(found, expected)


def test_mobilenet_features_are_torchvisions() -> None:
    theirs, ours = models.mobilenet_v3_large().eval(), MobileNetV3Large().eval()
    ours.load_state_dict(theirs.state_dict(), strict=False)
    x = torch.randn(1, 3, 65, 97)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x).stride32, theirs.features(x))


def test_alexnet_windows_are_torchvisions_shifted() -> None:
    """Away from borders, a pooled cell here is one of torchvision's on an image moved by the difference in padding."""
    theirs, ours = models.alexnet().features.eval(), AlexNet().eval()
    ours.features.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 3, 700, 700)
    moved = x[:, :, 1:, 1:]  # torchvision's cell i is centred on pixel 32i + 31 of this, ours on 32i of the image
    with torch.inference_mode():
        found, expected = ours(x).stride32, theirs(moved)
    torch.testing.assert_close(found[:, :, 8:14, 8:14], expected[:, :, 7:13, 7:13])


def _walk(backbone: Backbone, x: Tensor) -> tuple[Tensor, int]:
    if backbone.stem_stride is None:
        return backbone(x).stride32, 32
    return backbone.stem(x), backbone.stem_stride


@pytest.mark.parametrize("backbone", BACKBONES)
def test_reach_is_where_influence_ends(backbone: str) -> None:
    """A cell in the middle of a wide strip has gradients up to its reach, and no further."""
    trunk = small_net("fcn32s", backbone=backbone).backbone.double()
    x = torch.randn(1, 3, 64, 512, dtype=torch.double, requires_grad=True)
    found, stride = _walk(trunk, x)
    found[0, :, 0, 256 // stride].sum().backward()
    assert x.grad is not None
    touched = x.grad.abs().sum((0, 1, 2)).nonzero().flatten()
    low, high = 256 - int(touched.min()), int(touched.max()) - (256 + stride - 1)
    assert max(low, high) <= trunk.reach()
    assert max(low, high) >= trunk.reach() - stride  # a max pool may favour a nearer pixel


def test_reach_of_torchvisions_network() -> None:
    with torch.device("meta"):
        networks = [
            build(Architecture(arch="tv_fcn", backbone=backbone, num_classes=2))
            for backbone in network_spec("tv_fcn").backbones
        ]
    reaches = [network.reach() for network in networks]
    assert reaches == [221, 493]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_networks_on_every_backbone_train(backbone: str) -> None:
    model = small_net("fcn8s", backbone=backbone).train()
    loss = F.cross_entropy(model(torch.randn(2, 3, 70, 70)), torch.randint(0, 5, (2, 70, 70)))
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    ours = {id(parameter) for parameter in model.backbone_parameters()}
    names = {name.split(".")[0] for name, parameter in model.named_parameters() if id(parameter) not in ours}
    assert names == {"fc6", "fc7", "score_fr", "score_pool4", "score_pool3", "upscore2", "upscore_pool4"}


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.name)
def test_a_description_says_everything_and_comes_back_the_same(entry: Any) -> None:
    architecture = entry.architecture(9)
    text = architecture.model_dump_json()
    assert Architecture.model_validate_json(text) == architecture
    fields = {"arch", "backbone", "num_classes", "width", "head_width", "dropout", "upsampling"}
    assert json.loads(text).keys() == fields


def test_descriptions_of_the_first_release_are_still_the_same_model() -> None:
    text = (
        '{"arch":"fcn8s","backbone":"vgg16","num_classes":2,"width":0.125,"head_width":8,"dropout":0.5,'
        '"upsampling":"transposed"}'
    )
    architecture = Architecture.model_validate_json(text)
    assert architecture.model_dump_json() == text
    labels = LabelSet(name="two", names=("a", "b"), palette=((0, 0, 0), (1, 2, 3)))
    state = {name: torch.zeros_like(tensor) for name, tensor in FCN(architecture).state_dict().items()}
    assert ModelBundle(architecture, labels, IMAGENET, state).model_id == "003ef3aaaeeed32b"


def test_what_is_left_out_is_what_the_network_usually_has() -> None:
    assert Architecture(num_classes=5) == Architecture(
        arch="fcn8s", backbone="vgg16", num_classes=5, head_width=4096, dropout=0.5, upsampling="transposed"
    )
    assert Architecture(arch="fcn16s", backbone="resnet50", num_classes=5).head_width == 512
    torchvisions = Architecture(arch="tv_fcn", num_classes=5)
    assert (torchvisions.backbone, torchvisions.dropout, torchvisions.upsampling) == ("resnet50", 0.1, "interpolate")
    assert Architecture(arch="fcn_alexnet_padded", num_classes=5).backbone == "alexnet"


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"arch": "fcn8s_padded", "backbone": "resnet50"}, "backbone"),
        ({"arch": "tv_fcn", "backbone": "vgg16"}, "backbone"),
        ({"arch": "fcn_alexnet_padded", "backbone": "vgg16"}, "backbone"),
        ({"backbone": "resnet50", "width": 0.5}, "width"),
        ({"arch": "tv_fcn", "head_width": 256}, "head_width"),
        ({"arch": "tv_fcn", "upsampling": "transposed"}, "upsampling"),
        ({"arch": "tv_deeplabv3", "head_width": 512}, "head_width"),
        ({"arch": "tv_deeplabv3", "backbone": "mobilenet_v3_large", "width": 0.5}, "width"),
        ({"arch": "tv_lraspp", "backbone": "resnet50"}, "backbone"),
        ({"arch": "tv_lraspp", "dropout": 0.5}, "dropout"),
        ({"arch": "fcn8s_padded", "upsampling": "interpolate"}, "upsampling"),
        ({"arch": "fcn4s"}, "arch"),
        ({"backbone": "vgg19"}, "backbone"),
    ],
)
def test_networks_that_do_not_exist_are_refused_by_field(wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        Architecture.model_validate({"num_classes": 5, **wrong})
    assert refusal.value.errors()[0]["loc"] == (field,)
