"""torchvision's DeepLabV3 (Chen et al. 2017) on ResNet-50, ResNet-101 and MobileNetV3-Large.

The one thing to know: its head looks at the whole image (an average is one of its five branches), so of a large image
only the backbone's first half is tiled. The ResNets are dilated to stride 8, MobileNetV3 to stride 16.
"""

from torch import Tensor

from fcn_core.models.architecture import Architecture
from fcn_core.models.network_spec import NetworkSpec, Published
from fcn_core.models.torchvision_network import AS_IT_IS, FarSighted
from fcn_core.normalization import IMAGENET


class TorchvisionDeepLab(FarSighted):
    """torchvision's deeplabv3_BACKBONE without its auxiliary classifier."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture, "deeplabv3")

    def head(self, features: dict[str, Tensor]) -> Tensor:
        scores: Tensor = self.classifier(features["out"])
        return scores


_DATA = "COCO val2017, VOC classes"
_SOURCE = "torchvision, COCO_WITH_VOC_LABELS_V1"

SPEC = NetworkSpec(
    build=TorchvisionDeepLab,
    stride=8,
    strides={"mobilenet_v3_large": 16},
    backbones=("resnet50", "resnet101", "mobilenet_v3_large"),
    geometry="torchvision",
    normalization=IMAGENET,
    summary="torchvision's DeepLabV3: dilated, sees the whole image",
    defaults={"head_width": 256, "upsampling": "interpolate"},
    fixed={
        "width": (1.0, f"{AS_IT_IS}, of width 1"),
        "head_width": (256, f"{AS_IT_IS}, with a head of 256"),
        "upsampling": ("interpolate", f"{AS_IT_IS}, which interpolates"),
    },
    published={
        "resnet50": (Published(_DATA, _SOURCE, 66.4, 92.4),),
        "resnet101": (Published(_DATA, _SOURCE, 67.4, 92.4),),
        "mobilenet_v3_large": (Published(_DATA, _SOURCE, 60.3, 91.2),),
    },
    weights={
        "resnet50": "DeepLabV3_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1",
        "resnet101": "DeepLabV3_ResNet101_Weights.COCO_WITH_VOC_LABELS_V1",
        "mobilenet_v3_large": "DeepLabV3_MobileNet_V3_Large_Weights.COCO_WITH_VOC_LABELS_V1",
    },
    weights_name="deeplabv3",
)
