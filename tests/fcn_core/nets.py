"""Small networks with something to say, for the tests of this folder."""

import torch
from torch import nn

from fcn_core.bundle import ModelBundle
from fcn_core.fcn import FCN, Architecture, build
from fcn_core.labels import LabelSet

LABELS = LabelSet(
    name="five", names=("a", "b", "c", "d", "e"), palette=tuple((40 * i, 80, 200 - 40 * i) for i in range(5))
)


def small_net(arch: str = "fcn8s", upsampling: str = "transposed", seed: int = 0) -> FCN:
    """A narrow network whose score layers are random instead of zero, so that its masks have structure."""
    architecture = Architecture.model_validate(
        {"arch": arch, "num_classes": 5, "width": 0.125, "head_width": 16, "upsampling": upsampling}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(architecture)
        for name, layer in model.named_children():
            if name.startswith("score") and isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.3)
    return model.eval()


def small_bundle(arch: str = "fcn8s", upsampling: str = "transposed", seed: int = 0) -> ModelBundle:
    return ModelBundle.from_model(small_net(arch, upsampling, seed), LABELS)
