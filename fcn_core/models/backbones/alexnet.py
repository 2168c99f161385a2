"""torchvision's AlexNet with its maps at strides 8, 16 and 32.

The one thing to know: its weights are torchvision's, its padding is not. torchvision pads conv1 by 2 and pools not
at all, so that maps are smaller than the image divided by the stride, and images below 63 pixels are refused. Here
conv1 is padded by 5 and the 3x3 pools by 1: ceil(size / stride) cells for any size. A window is applied to the same
neighbourhoods as there, but its centre is the first pixel of a cell instead of the last.
The authors' FCN-AlexNet uses another AlexNet: see fcn_core.models.padded_alexnet.
"""

from collections.abc import Iterable

from torch import Tensor, nn

from fcn_core.models.backbones.base import Backbone, BackboneSpec, Features, scaled
from fcn_core.models.initialization import initialize


class AlexNet(Backbone):
    """The five convolutions of torchvision's alexnet (Krizhevsky 2014: one column, 64 channels first, no LRN).

    The three maps are its three pools. Parameters are named as in torchvision (`features.0.weight`, ...). `width`
    multiplies the channels, which are rounded to multiples of 8 and at least 8.
    """

    head_kernel = 6

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        c1, c2, c3, c4, c5 = (scaled(channels, width) for channels in (64, 192, 384, 256, 256))
        self.channels = (c1, c2, c5)
        self.features = nn.Sequential(
            nn.Conv2d(3, c1, 11, stride=4, padding=5),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, padding=1),
            nn.Conv2d(c1, c2, 5, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, padding=1),
            nn.Conv2d(c2, c3, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(c3, c4, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(c4, c5, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, padding=1),
        )
        initialize(self.features.named_children())

    def body(self, x: Tensor) -> Features:
        pool1 = self.features[:3](x)
        pool2 = self.features[3:6](pool1)
        pool5 = self.features[6:](pool2)
        return Features(pool1, pool2, pool5)

    def near_layers(self) -> Iterable[nn.Module]:
        return self.features


SPEC = BackboneSpec(
    build=AlexNet,
    head_width=4096,
    summary="torchvision's AlexNet: small and fast, coarse",
    weights="AlexNet_Weights.IMAGENET1K_V1",
    is_of=lambda state: "features.0.weight" in state and tuple(state["features.0.weight"].shape[2:]) == (11, 11),
    fully_connected={"classifier.1": "fc6", "classifier.4": "fc7"},
    authors_name="AlexNet with the authors' names (Caffe)",
    authors_tensors=("conv1.weight", "conv5.weight"),
)
