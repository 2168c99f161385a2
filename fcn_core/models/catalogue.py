"""The networks there are: what each is, what it costs, and the scores that others published for it.

The one thing to know: published scores belong to weights, not to a network. They are those of the authors' and of
torchvision's own files, which run here unchanged; what you train yourself has scores of its own, in its bundle.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch.utils.flop_counter import FlopCounterMode

from fcn_core.models.architecture import BACKBONES_OF, SAME_ARCHS, Architecture, ArchName, BackboneName
from fcn_core.models.fcn import build

Geometry = Literal["same", "padded", "torchvision"]


@dataclass(frozen=True)
class Published:
    """Scores in percent, as published; None where the source gives none. `source` says whose, and for which weights."""

    data: str
    source: str
    mean_iu: float
    pixel_accuracy: float | None = None
    mean_accuracy: float | None = None
    frequency_weighted_iu: float | None = None


@dataclass(frozen=True)
class Entry:
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
class Cost:
    """parameters: weights in all. flops: for one image, a multiplication and an addition counted as two; only
    convolutions are counted, which are nearly all of it.
    """

    parameters: int
    flops: int


def cost(architecture: Architecture, size: tuple[int, int]) -> Cost:
    """What a forward pass of an image of size (H, W) costs. Nothing is computed: tensors have shapes, no content."""
    with torch.device("meta"):
        model = build(architecture).eval()
        image = torch.empty(1, 3, *size)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(image)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Cost(parameters, counter.get_total_flops())


_PAPER = "CVPR 2015, table 2"
_AUTHORS = "shelhamer/fcn.berkeleyvision.org"
_PAPER_DATA = "PASCAL VOC 2011 val subset"
_AUTHORS_DATA = "PASCAL VOC seg11valid (736 images)"
_COCO_DATA = "COCO val2017, VOC classes"

_PUBLISHED: dict[tuple[ArchName, BackboneName], tuple[Published, ...]] = {
    ("fcn32s_padded", "vgg16"): (
        Published(_AUTHORS_DATA, _AUTHORS, 63.63, 90.48, 76.48, 83.46),
        Published(_PAPER_DATA, _PAPER, 59.4, 89.1, 73.3, 81.4),
    ),
    ("fcn16s_padded", "vgg16"): (
        Published(_AUTHORS_DATA, _AUTHORS, 65.01, 91.00, 78.07, 84.26),
        Published(_PAPER_DATA, _PAPER, 62.4, 90.0, 75.7, 83.0),
    ),
    ("fcn8s_padded", "vgg16"): (
        Published(_AUTHORS_DATA, _AUTHORS, 65.51, 91.22, 77.61, 84.54),
        Published(_PAPER_DATA, _PAPER, 62.7, 90.3, 75.9, 83.2),
    ),
    ("fcn8s_atonce_padded", "vgg16"): (Published(_AUTHORS_DATA, _AUTHORS, 65.40, 91.13, 78.50, 84.43),),
    ("fcn_alexnet_padded", "alexnet"): (Published(_AUTHORS_DATA, _AUTHORS, 48.0),),
    ("tv_fcn", "resnet50"): (Published(_COCO_DATA, "torchvision, COCO_WITH_VOC_LABELS_V1", 60.5, 91.4),),
    ("tv_fcn", "resnet101"): (Published(_COCO_DATA, "torchvision, COCO_WITH_VOC_LABELS_V1", 63.7, 91.9),),
}

_STREAMS = {32: "one stream", 16: "two streams, pool4 fused", 8: "three streams, pool4 and pool3 fused"}

_ON = {
    "vgg16": "the paper's backbone",
    "vgg16_bn": "VGG16 with batch norm: easier to train",
    "alexnet": "torchvision's AlexNet: small and fast, coarse",
    "resnet50": "a fifth of VGG16's cost",
    "resnet101": "deeper ResNet",
    "mobilenet_v3_large": "light: for fleets of CPUs",
}

_OTHERS: dict[ArchName, str] = {
    "fcn32s_padded": "the authors' FCN-32s",
    "fcn16s_padded": "the authors' FCN-16s",
    "fcn8s_padded": "the authors' FCN-8s",
    "fcn8s_atonce_padded": "the authors' FCN-8s trained in one go, pools scaled by fixed factors",
    "fcn_alexnet_padded": "the authors' FCN-AlexNet (96 channels, groups, LRN)",
    "tv_fcn": "torchvision's FCN: dilated, stride 8, nothing fused",
}


def _entries() -> Iterator[Entry]:
    for arch, backbones in BACKBONES_OF.items():
        for backbone in backbones:
            published = _PUBLISHED.get((arch, backbone), ())
            if arch in SAME_ARCHS:
                streams = _STREAMS[Architecture(arch=arch, num_classes=1).stride]
                yield Entry(arch, backbone, "same", f"{streams}; {_ON[backbone]}", published)
            else:
                geometry: Geometry = "torchvision" if arch == "tv_fcn" else "padded"
                yield Entry(arch, backbone, geometry, _OTHERS[arch], published)


CATALOGUE: tuple[Entry, ...] = tuple(_entries())
"""Every network, grouped as ARCHS and BACKBONES are."""
