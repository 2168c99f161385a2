"""MobileNetV3-Large, torchvision's: the light backbone, for fleets of CPUs.

The one thing to know: from stride 8 on, its blocks weigh their channels by an average over the whole image
(squeeze-and-excitation), so a cell sees everything. Only the part before that, to stride 4, can be tiled.
"""

from collections.abc import Iterable

from torch import Tensor, nn

from fcn_core.models.backbones.base import Backbone, BackboneSpec, Features
from fcn_core.torchvision_package import load_torchvision


class MobileNetV3Large(Backbone):
    """The features of torchvision's mobilenet_v3_large (Howard et al. 2019), with its last 1x1 convolution.

    The three maps are the last of each resolution: features.6, .12 and .16. Parameters are named as in torchvision
    (`features.0.0.weight`, ...). `width` multiplies the channels as torchvision's width_mult does.
    """

    stem_stride = 4

    def __init__(self, width: float = 1.0) -> None:
        load_torchvision()
        from torchvision.models import mobilenet_v3_large  # here, as in ResNet

        super().__init__()
        self.features: nn.Sequential = mobilenet_v3_large(weights=None, width_mult=width).features
        stride8, stride16, stride32 = (self.features[index].out_channels for index in (6, 12, 16))
        self.channels = (stride8, stride16, stride32)

    def stem(self, x: Tensor) -> Tensor:
        stride4: Tensor = self.features[:4](x)
        return stride4

    def body(self, x: Tensor) -> Features:
        stride8 = self.features[4:7](x)
        stride16 = self.features[7:13](stride8)
        return Features(stride8, stride16, self.features[13:](stride16))

    def near_layers(self) -> Iterable[nn.Module]:
        return self.features[:4].modules()


SPEC = BackboneSpec(
    build=MobileNetV3Large,
    head_width=240,
    summary="light: for fleets of CPUs",
    weights="MobileNet_V3_Large_Weights.IMAGENET1K_V2",
    is_of=lambda state: "features.0.0.weight" in state,
)
