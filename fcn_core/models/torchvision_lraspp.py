"""torchvision's Lite R-ASPP (Howard et al. 2019): MobileNetV3-Large with the lightest of heads, for CPUs.

The one thing to know: its head weighs channels by an average over the whole image, as the backbone itself does, so of a
large image only the part up to stride 4 is tiled. There is no dropout.
"""

from torch import Tensor

from fcn_core.models.architecture import Architecture
from fcn_core.models.network_spec import NetworkSpec, Published
from fcn_core.models.torchvision_network import AS_IT_IS, FarSighted
from fcn_core.normalization import IMAGENET


class TorchvisionLRASPP(FarSighted):
    """torchvision's lraspp_mobilenet_v3_large."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__(architecture, "lraspp")

    def head(self, features: dict[str, Tensor]) -> Tensor:
        scores: Tensor = self.classifier(features)
        return scores


SPEC = NetworkSpec(
    build=TorchvisionLRASPP,
    stride=8,
    backbones=("mobilenet_v3_large",),
    geometry="torchvision",
    normalization=IMAGENET,
    summary="torchvision's Lite R-ASPP: for CPUs",
    defaults={"head_width": 128, "dropout": 0.0, "upsampling": "interpolate"},
    fixed={
        "width": (1.0, f"{AS_IT_IS}, of width 1"),
        "head_width": (128, f"{AS_IT_IS}, with a head of 128"),
        "dropout": (0.0, f"{AS_IT_IS}, without dropout"),
        "upsampling": ("interpolate", f"{AS_IT_IS}, which interpolates"),
    },
    published={
        "mobilenet_v3_large": (
            Published("COCO val2017, VOC classes", "torchvision, COCO_WITH_VOC_LABELS_V1", 57.9, 91.2),
        )
    },
    weights={"mobilenet_v3_large": "LRASPP_MobileNet_V3_Large_Weights.COCO_WITH_VOC_LABELS_V1"},
    weights_name="lraspp",
)
