"""VGG-16, with or without batch normalisation: the paper's backbone.

The one thing to know: pools round up, so that odd sizes lose nothing; the convolutions keep sizes anyway.
"""

from collections.abc import Iterable

from torch import Tensor, nn

from fcn_core.models.backbones.base import Backbone, Features, scaled
from fcn_core.models.initialization import initialize

_CONVS_PER_STAGE = (2, 2, 3, 3, 3)
_CHANNELS = (64, 128, 256, 512, 512)


class VGG16(Backbone):
    """The 13 convolutions of VGG-16 (Simonyan and Zisserman 2015, configuration D), up to pool5.

    Parameters are named as in torchvision's vgg16 and vgg16_bn (`features.0.weight`, ...). `width` multiplies the
    channels, which are rounded to multiples of 8 and at least 8.
    """

    head_kernel = 7

    def __init__(self, width: float = 1.0, *, batch_norm: bool = False) -> None:
        super().__init__()
        stages = [scaled(channels, width) for channels in _CHANNELS]
        self.channels = (stages[2], stages[3], stages[4])
        layers: list[nn.Module] = []
        taps: list[int] = []
        incoming = 3
        for convs, outgoing in zip(_CONVS_PER_STAGE, stages, strict=True):
            for _ in range(convs):
                layers.append(nn.Conv2d(incoming, outgoing, 3, padding=1))
                if batch_norm:
                    layers.append(nn.BatchNorm2d(outgoing))
                layers.append(nn.ReLU(inplace=True))
                incoming = outgoing
            layers.append(nn.MaxPool2d(2, 2, ceil_mode=True))
            taps.append(len(layers))
        self.features = nn.Sequential(*layers)
        self._taps = taps[-3:]
        initialize(self.features.named_children())

    def body(self, x: Tensor) -> Features:
        pools = []
        start = 0
        for tap in self._taps:
            x = self.features[start:tap](x)
            pools.append(x)
            start = tap
        return Features(*pools)

    def near_layers(self) -> Iterable[nn.Module]:
        return self.features
