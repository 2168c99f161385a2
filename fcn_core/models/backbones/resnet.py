"""ResNet-50 and ResNet-101, torchvision's, up to their last block.

The one thing to know: the receptive field at stride 32 is wider than most tiles, so only the first half (to stride 8)
is meant to be tiled; the other half runs once, on maps a 64th of the image's size.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from torch import Tensor, nn

from fcn_core.models.backbones.base import Backbone, BackboneSpec, Features
from fcn_core.torchvision_package import load_torchvision


class ResNet(Backbone):
    """layer2, layer3 and layer4 of a torchvision ResNet made of bottlenecks (He et al. 2016), at strides 8, 16, 32.

    Parameters are named as in torchvision (`layer1.0.conv1.weight`, ...). Strided windows are centred on the first
    pixel of a cell, and all of them round up.
    """

    stem_stride = 8

    def __init__(self, name: Literal["resnet50", "resnet101"] = "resnet50") -> None:
        load_torchvision()
        from torchvision.models import get_model  # here: only who has such a network pays for it

        super().__init__()
        classifier = get_model(name, weights=None)
        self.conv1, self.bn1, self.relu = classifier.conv1, classifier.bn1, classifier.relu
        self.maxpool = classifier.maxpool
        self.layer1, self.layer2 = classifier.layer1, classifier.layer2
        self.layer3, self.layer4 = classifier.layer3, classifier.layer4
        self.channels = (512, 1024, 2048)

    def stem(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        layer2: Tensor = self.layer2(self.layer1(x))
        return layer2

    def body(self, x: Tensor) -> Features:
        layer3 = self.layer3(x)
        return Features(x, layer3, self.layer4(layer3))

    def near_layers(self) -> Iterable[nn.Module]:
        return [self.conv1, self.maxpool, *bottleneck_layers(self.layer1), *bottleneck_layers(self.layer2)]


def bottleneck_layers(blocks: Iterable[Any]) -> list[nn.Module]:
    """The convolutions that a stage's blocks stack; what goes around them sees less."""
    return [layer for block in blocks for layer in (block.conv1, block.conv2, block.conv3)]


def _is_resnet(state: Mapping[str, Tensor]) -> bool:
    return "layer1.0.conv1.weight" in state


def _is_deep(state: Mapping[str, Tensor]) -> bool:
    return "layer3.22.conv1.weight" in state


RESNET50_SPEC = BackboneSpec(
    build=lambda width: ResNet("resnet50"),
    head_width=512,
    summary="a fifth of VGG16's cost",
    weights="ResNet50_Weights.IMAGENET1K_V2",
    is_of=lambda state: _is_resnet(state) and not _is_deep(state),
    has_widths=False,
)

RESNET101_SPEC = BackboneSpec(
    build=lambda width: ResNet("resnet101"),
    head_width=512,
    summary="deeper ResNet",
    weights="ResNet101_Weights.IMAGENET1K_V2",
    is_of=lambda state: _is_resnet(state) and _is_deep(state),
    has_widths=False,
)
