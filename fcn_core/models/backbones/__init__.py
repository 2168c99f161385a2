"""Backbones: image classifiers without their ends, which give features at strides 8, 16 and 32."""

from collections.abc import Callable

from fcn_core.models.architecture import BackboneName
from fcn_core.models.backbones.alexnet import AlexNet
from fcn_core.models.backbones.base import Backbone, Features, receptive_reach
from fcn_core.models.backbones.mobilenet import MobileNetV3Large
from fcn_core.models.backbones.resnet import ResNet
from fcn_core.models.backbones.vgg import VGG16

__all__ = ["BACKBONES", "VGG16", "AlexNet", "Backbone", "Features", "MobileNetV3Large", "ResNet", "receptive_reach"]

BACKBONES: dict[BackboneName, Callable[[float], Backbone]] = {
    "vgg16": VGG16,
    "vgg16_bn": lambda width: VGG16(width, batch_norm=True),
    "alexnet": AlexNet,
    "resnet50": lambda width: ResNet("resnet50"),
    "resnet101": lambda width: ResNet("resnet101"),
    "mobilenet_v3_large": MobileNetV3Large,
}
"""By name: a backbone whose channels are multiplied by a width."""
