"""The networks there are: what each is, what it costs, and the scores that others published for it.

The one thing to know: published scores belong to weights, not to a network. They are those of the authors' and of
torchvision's own files, which run here unchanged; what you train yourself has scores of its own, in its bundle.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from fcn_core.models.architecture import Architecture
from fcn_core.models.backbones import BackboneName, backbone_spec
from fcn_core.models.building import build
from fcn_core.models.network_spec import Geometry, Published
from fcn_core.models.networks import ARCHS, ArchName, network_spec


@dataclass(frozen=True)
class CatalogueEntry:
    """A network on a backbone. `architecture(21)` is the description that makes one with 21 classes."""

    arch: ArchName
    backbone: BackboneName
    geometry: Geometry
    summary: str
    published: tuple[Published, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.arch}/{self.backbone}"

    def architecture(self, num_classes: int) -> Architecture:
        return Architecture(arch=self.arch, backbone=self.backbone, num_classes=num_classes)


@dataclass(frozen=True)
class NetworkCost:
    """parameters: weights in all. flops: for one image, a multiplication and an addition counted as two; only
    convolutions are counted, which are nearly all of it.
    """

    parameters: int
    flops: int


def cost(architecture: Architecture, size: tuple[int, int]) -> NetworkCost:
    """What a forward pass of an image of size (H, W) costs. Nothing is computed: tensors have shapes, no content."""
    with torch.device("meta"):
        model = build(architecture).eval()
        image = torch.empty(1, 3, *size)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(image)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return NetworkCost(parameters, counter.get_total_flops())


def _entries() -> Iterator[CatalogueEntry]:
    for arch in ARCHS:
        spec = network_spec(arch)
        for backbone in spec.backbones:
            more = f"; {backbone_spec(backbone).summary}" if spec.geometry == "same" else ""
            yield CatalogueEntry(arch, backbone, spec.geometry, spec.summary + more, spec.published.get(backbone, ()))


CATALOGUE: tuple[CatalogueEntry, ...] = tuple(_entries())
"""Every network, in the order of ARCHS and of each one's backbones."""
