"""The authors' nets: layer by layer what the published tables say, under the authors' names."""

from collections.abc import Mapping
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fcn_core.bundle import ModelBundle
from fcn_core.errors import BundleError
from fcn_core.models.architecture import Architecture
from fcn_core.models.building import build
from fcn_core.models.network import Network
from tests.fcn_core.nets import LABELS, PADDED_ARCHS, small_bundle, small_net

VGG_CONVS = ["1_1", "1_2", "2_1", "2_2", "3_1", "3_2", "3_3", "4_1", "4_2", "4_3", "5_1", "5_2", "5_3"]


class Table(NamedTuple):
    """A row of the table of transposed convolutions and crops: the last layer, its stride, and its offset."""

    last: str
    stride: int
    offset: int
    pools: tuple[str, ...] = ()
    scales: tuple[float, ...] = ()


TABLE = {
    "fcn32s_padded": Table("upscore", 32, 19),
    "fcn16s_padded": Table("upscore16", 16, 27, ("pool4",), (1.0,)),
    "fcn8s_padded": Table("upscore8", 8, 31, ("pool4", "pool3"), (1.0, 1.0)),
    "fcn8s_atonce_padded": Table("upscore8", 8, 31, ("pool4", "pool3"), (0.01, 0.0001)),
}
FUSIONS = {"pool4": ("upscore2", 5), "pool3": ("upscore_pool4", 9)}


def vgg_from_the_table(arch: str, state: Mapping[str, Tensor], x: Tensor) -> Tensor:
    table = TABLE[arch]
    pools = {}
    size = x.shape[-2:]

    def conv(name: str, x: Tensor, padding: int = 0) -> Tensor:
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=padding)

    for index, name in enumerate(VGG_CONVS):
        x = F.relu(conv(f"conv{name}", x, padding=100 if name == "1_1" else 1))
        if name in ("1_2", "2_2", "3_3", "4_3", "5_3"):
            x = F.max_pool2d(x, 2, stride=2, ceil_mode=True)
            pools[f"pool{VGG_CONVS[index][0]}"] = x
    x = F.relu(conv("fc6", x))
    x = F.relu(conv("fc7", x))
    x = conv("score_fr", x)
    for pool, scale in zip(table.pools, table.scales, strict=True):
        upscore, offset = FUSIONS[pool]
        x = F.conv_transpose2d(x, state[f"{upscore}.weight"], stride=2)
        fine = conv(f"score_{pool}", pools[pool] * scale)
        x = x + fine[:, :, offset : offset + x.shape[2], offset : offset + x.shape[3]]
    x = F.conv_transpose2d(x, state[f"{table.last}.weight"], stride=table.stride)
    return x[:, :, table.offset : table.offset + size[0], table.offset : table.offset + size[1]]


def alexnet_from_the_table(state: Mapping[str, Tensor], x: Tensor) -> Tensor:
    size = x.shape[-2:]

    def conv(name: str, x: Tensor, stride: int = 1, padding: int = 0, groups: int = 1) -> Tensor:
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return F.conv2d(x, weight, bias, stride=stride, padding=padding, groups=groups)

    def normalize(x: Tensor) -> Tensor:
        return F.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=1)

    def pool(x: Tensor) -> Tensor:
        return F.max_pool2d(x, 3, stride=2, ceil_mode=True)

    x = normalize(pool(F.relu(conv("conv1", x, stride=4, padding=100))))
    x = normalize(pool(F.relu(conv("conv2", x, padding=2, groups=2))))
    x = F.relu(conv("conv3", x, padding=1))
    x = F.relu(conv("conv4", x, padding=1, groups=2))
    x = pool(F.relu(conv("conv5", x, padding=1, groups=2)))
    x = conv("score_fr", F.relu(conv("fc7", F.relu(conv("fc6", x)))))
    x = F.conv_transpose2d(x, state["upscore.weight"], stride=32)
    return x[:, :, 18 : 18 + size[0], 18 : 18 + size[1]]


def _random_weights(arch: str) -> Network:
    """Biases and the learnable transposed convolutions random too, so that each has a say."""
    model = small_net(arch)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.1)
            elif name in ("upscore2.weight", "upscore_pool4.weight"):
                parameter.normal_(std=0.3)
            elif name.startswith("score_pool") and "atonce" in arch:
                parameter.mul_(1000)
    return model


@pytest.mark.parametrize("size", [(1, 1), (97, 130), (224, 65)])
@pytest.mark.parametrize("arch", PADDED_ARCHS)
def test_scores_are_those_of_an_implementation_from_the_table_alone(arch: str, size: tuple[int, int]) -> None:
    model = _random_weights(arch)
    state = model.state_dict()
    x = 50 * torch.randn(2, 3, *size)
    with torch.inference_mode():
        expected = alexnet_from_the_table(state, x) if "alexnet" in arch else vgg_from_the_table(arch, state, x)
        found = model(x)
    assert float(expected.std()) > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("arch", "parameters", "trainable"),
    [
        ("fcn32s_padded", 136_152_917, 136_152_917 - 21 * 21 * 64 * 64),
        ("fcn16s_padded", 134_815_994, 134_815_994 - 21 * 21 * (32 * 32 + 4 * 4)),
        ("fcn8s_padded", 134_489_759, 134_362_751),
        ("fcn8s_atonce_padded", 134_489_759, 134_362_751),
    ],
)
def test_parameter_counts_are_the_published_ones(arch: str, parameters: int, trainable: int) -> None:
    with torch.device("meta"):
        model = build(Architecture.model_validate({"arch": arch, "num_classes": 21}))
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad) == trainable


@pytest.mark.parametrize(
    ("arch", "upsampling", "count"),
    [
        ("fcn32s_padded", {"upscore": 64}, 33),
        ("fcn16s_padded", {"upscore2": 4, "upscore16": 32}, 36),
        ("fcn8s_padded", {"upscore2": 4, "upscore_pool4": 4, "upscore8": 16}, 39),
    ],
)
def test_tensors_have_the_names_and_shapes_of_the_authors_files(
    arch: str, upsampling: dict[str, int], count: int
) -> None:
    with torch.device("meta"):
        model = build(Architecture.model_validate({"arch": arch, "num_classes": 21}))
    state = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    layers = [f"conv{name}" for name in VGG_CONVS] + ["fc6", "fc7", "score_fr"]
    layers += ["score_pool4", "score_pool3"][: len(upsampling) - 1]
    expected = {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    assert set(state) == expected | {f"{name}.weight" for name in upsampling}
    assert len(state) == count
    assert state["fc6.weight"] == [4096, 512, 7, 7]
    for name, kernel in upsampling.items():
        assert state[f"{name}.weight"] == [21, 21, kernel, kernel]


def test_alexnet_has_the_authors_shapes() -> None:
    with torch.device("meta"):
        state = build(Architecture.model_validate({"arch": "fcn_alexnet_padded", "num_classes": 21})).state_dict()
    shapes = {name.removesuffix(".weight"): list(t.shape) for name, t in state.items() if name.endswith("weight")}
    assert shapes == {
        "conv1": [96, 3, 11, 11],
        "conv2": [256, 48, 5, 5],
        "conv3": [384, 256, 3, 3],
        "conv4": [384, 192, 3, 3],
        "conv5": [256, 192, 3, 3],
        "fc6": [4096, 256, 6, 6],
        "fc7": [4096, 4096, 1, 1],
        "score_fr": [21, 4096, 1, 1],
        "upscore": [21, 21, 63, 63],
    }


@pytest.mark.parametrize("arch", PADDED_ARCHS)
def test_last_upsampling_must_stay_bilinear(arch: str) -> None:
    bundle = small_bundle(arch)
    (name,) = bundle.build().fixed_state()
    state = dict(bundle.state)
    ModelBundle(bundle.architecture, LABELS, bundle.normalization, {**state, name: state[name].bfloat16()})
    changed = state[name].clone()
    changed[0, 0, 1, 1] += 0.1
    with pytest.raises(BundleError, match=f"{name} is not the bilinear interpolation"):
        ModelBundle(bundle.architecture, LABELS, bundle.normalization, {**state, name: changed})


def test_padded_networks_compute_in_bfloat16() -> None:
    for arch in PADDED_ARCHS:
        model = small_net(arch)
        x = 50 * torch.randn(1, 3, 40, 50)
        with torch.inference_mode():
            exact = model(x)
            rounded = model.bfloat16()(x.bfloat16()).float()
        assert float((rounded - exact).abs().max()) < 0.1 * float(exact.abs().max())


@pytest.mark.parametrize("arch", PADDED_ARCHS)
def test_upsampling_is_not_trained(arch: str) -> None:
    model = small_net(arch).train()
    F.cross_entropy(model(torch.randn(1, 3, 20, 30)), torch.randint(0, 5, (1, 20, 30))).backward()
    for layer in model.modules():
        for parameter in layer.parameters(recurse=False):
            assert (parameter.grad is None) == isinstance(layer, nn.ConvTranspose2d)


@pytest.mark.parametrize("arch", PADDED_ARCHS)
def test_reach_covers_the_influence_on_shallow_cells(arch: str) -> None:
    model = small_net(arch).double()
    reach = model.reach()
    x = torch.randn(1, 3, 224, 512, dtype=torch.double, requires_grad=True)
    model.shallow(x)[0][0, :, 0, 7].sum().backward()  # the cell of pixels 224..255
    assert x.grad is not None
    touched = x.grad.abs().sum((0, 1, 2)).nonzero().flatten()
    assert 224 - reach <= touched.min()
    assert touched.max() <= 255 + reach
