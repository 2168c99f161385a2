"""The networks by name.

To add one, write a module with its class and a `NetworkSpec`, and give it a line in `_SPECS`. Only names are read here:
PyTorch is imported with the first spec.
"""

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from fcn_core.models.network_spec import NetworkSpec

_SPECS = {
    "fcn32s": "fcn:FCN32S",
    "fcn16s": "fcn:FCN16S",
    "fcn8s": "fcn:FCN8S",
    "fcn32s_padded": "padded_vgg:FCN32S_PADDED",
    "fcn16s_padded": "padded_vgg:FCN16S_PADDED",
    "fcn8s_padded": "padded_vgg:FCN8S_PADDED",
    "fcn8s_atonce_padded": "padded_vgg:FCN8S_ATONCE_PADDED",
    "fcn_alexnet_padded": "padded_alexnet:SPEC",
    "tv_fcn": "torchvision_fcn:SPEC",
    "tv_deeplabv3": "torchvision_deeplab:SPEC",
    "tv_lraspp": "torchvision_lraspp:SPEC",
}
"""Each network's name, and the module and name of its spec."""

ARCHS = tuple(_SPECS)

if TYPE_CHECKING:
    ArchName = str
else:
    ArchName = Literal[ARCHS]


@cache
def network_spec(arch: ArchName) -> "NetworkSpec":
    """The spec of a network, by a name in ARCHS."""
    module, _, attribute = _SPECS[arch].partition(":")
    spec: NetworkSpec = getattr(import_module(f"fcn_core.models.{module}"), attribute)
    return spec
