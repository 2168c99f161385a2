"""Small networks with something to say, for the tests of this folder."""

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from fcn_core.bundle import ModelBundle
from fcn_core.labels import LabelSet
from fcn_core.models.architecture import Architecture
from fcn_core.models.building import build
from fcn_core.models.network import Network
from fcn_core.models.networks import ARCHS, network_spec

SAME_ARCHS = tuple(arch for arch in ARCHS if network_spec(arch).geometry == "same")
PADDED_ARCHS = tuple(arch for arch in ARCHS if network_spec(arch).geometry == "padded")

LABELS = LabelSet(
    name="five", names=("a", "b", "c", "d", "e"), palette=tuple((40 * i, 80, 200 - 40 * i) for i in range(5))
)


def small_net(
    arch: str = "fcn8s", upsampling: str | None = None, seed: int = 0, *, backbone: str | None = None
) -> Network:
    """A network, narrow where it can be, whose score layers are random instead of zero, so that its masks have
    structure, and whose batch norms are not the identity.
    """
    description = {"arch": arch, "num_classes": 5, "head_width": 16}
    if arch.startswith("tv_"):
        del description["head_width"]
    elif backbone not in ("resnet50", "resnet101"):
        description["width"] = 0.125
    if backbone is not None:
        description["backbone"] = backbone
    if upsampling is not None:
        description["upsampling"] = upsampling
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(Architecture.model_validate(description))
        for name, layer in model.named_modules():
            if name.startswith("score") and isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.3)
            elif isinstance(layer, nn.BatchNorm2d):
                nn.init.normal_(layer.running_mean, std=0.1)
                nn.init.uniform_(layer.running_var, 0.8, 1.2)
    return model.eval()


def small_bundle(
    arch: str = "fcn8s", upsampling: str | None = None, seed: int = 0, *, backbone: str | None = None
) -> ModelBundle:
    return ModelBundle.from_model(small_net(arch, upsampling, seed, backbone=backbone), LABELS)


def overflowing_bundle(sign: int = 1) -> ModelBundle:
    """Finite weights whose scores of class 0 are infinite, of either sign, in float32 and bfloat16."""
    model = small_net()
    with torch.no_grad():
        for name in ("score_fr", "score_pool4", "score_pool3"):
            model.get_parameter(f"{name}.bias")[0] = sign * 3e38
    return ModelBundle.from_model(model, LABELS)


def photo(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Smooth shapes with edges and some noise: more like a photo than noise alone."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    channels = [
        127 + 60 * np.sin(x / rng.uniform(9, 90) + rng.uniform(0, 6)) + 60 * np.sign(np.sin(y / rng.uniform(9, 90)))
        for _ in range(3)
    ]
    noisy = np.stack(channels, axis=-1) + rng.normal(0, 6, (height, width, 3))
    return noisy.clip(0, 255).astype(np.uint8)
