"""Backbones: image classifiers without their ends, which give features at strides 8, 16 and 32.

To add one, write a module with its class and a `BackboneSpec` (`base`), and give it a line in `_SPECS`. Only names are
read here: PyTorch is imported with the first spec.
"""

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from fcn_core.models.backbones.base import BackboneSpec

_SPECS = {
    "vgg16": "vgg:VGG16_SPEC",
    "vgg16_bn": "vgg:VGG16_BN_SPEC",
    "alexnet": "alexnet:SPEC",
    "resnet50": "resnet:RESNET50_SPEC",
    "resnet101": "resnet:RESNET101_SPEC",
    "mobilenet_v3_large": "mobilenet:SPEC",
}
"""Each backbone's name, and the module and name of its spec."""

BACKBONES = tuple(_SPECS)

if TYPE_CHECKING:
    BackboneName = str
else:
    BackboneName = Literal[BACKBONES]


@cache
def backbone_spec(name: BackboneName) -> "BackboneSpec":
    """The spec of a backbone, by a name in BACKBONES."""
    module, _, attribute = _SPECS[name].partition(":")
    spec: BackboneSpec = getattr(import_module(f"{__name__}.{module}"), attribute)
    return spec
