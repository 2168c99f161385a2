"""torchvision's fcn_resnet50 and fcn_resnet101 as they are, so that its published weights run unchanged.

The one thing to know: the last two stages are dilated instead of strided, so there is one map, at stride 8, and nothing
to fuse. That costs five times the FCN-8s on the same ResNet (`fcn model list` has the figures).
"""

from collections.abc import Sequence

from torch import Tensor

from fcn_core.models.architecture import Architecture
from fcn_core.models.backbones.base import receptive_reach
from fcn_core.models.backbones.resnet import bottleneck_layers
from fcn_core.models.network_spec import NetworkSpec, Published
from fcn_core.models.torchvision_network import AS_IT_IS, TorchvisionNetwork
from fcn_core.normalization import IMAGENET


class TorchvisionFCN(TorchvisionNetwork):
    """torchvision's fcn_BACKBONE without its auxiliary classifier."""

    shallow_strides = (8,)

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture, "fcn")

    def shallow(self, x: Tensor) -> tuple[Tensor, ...]:
        """The scores: all layers look less far than a large tile is wide, and their maps are too large to keep."""
        return (self.classifier(self.backbone(x)["out"]),)

    def deep(self, maps: Sequence[Tensor]) -> Tensor:
        return maps[0]

    def reach(self) -> int:
        backbone = self.backbone
        stages = (backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4)
        blocks = [layer for stage in stages for layer in bottleneck_layers(stage)]
        return receptive_reach([backbone.conv1, backbone.maxpool, *blocks, *self.classifier])


_DATA = "COCO val2017, VOC classes"
_SOURCE = "torchvision, COCO_WITH_VOC_LABELS_V1"

SPEC = NetworkSpec(
    build=TorchvisionFCN,
    stride=8,
    backbones=("resnet50", "resnet101"),
    geometry="torchvision",
    normalization=IMAGENET,
    summary="torchvision's FCN: dilated, stride 8, nothing fused",
    defaults={"dropout": 0.1, "upsampling": "interpolate"},
    fixed={
        "head_width": (512, f"{AS_IT_IS}, with a head of 512"),
        "upsampling": ("interpolate", f"{AS_IT_IS}, which interpolates"),
    },
    published={
        "resnet50": (Published(_DATA, _SOURCE, 60.5, 91.4),),
        "resnet101": (Published(_DATA, _SOURCE, 63.7, 91.9),),
    },
    weights={
        "resnet50": "FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1",
        "resnet101": "FCN_ResNet101_Weights.COCO_WITH_VOC_LABELS_V1",
    },
)
