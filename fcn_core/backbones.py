"""Convolutional trunks: an image in, features at strides 8, 16 and 32 out.

The one thing to know: every map has ceil(size / stride) cells, whatever the size. Convolutions keep it, pools
round up, so cell i of a stride-s map covers pixels s*i to s*i + s - 1 and no image is too small.
"""

from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor, nn

_CONVS_PER_STAGE = (2, 2, 3, 3, 3)
_CHANNELS = (64, 128, 256, 512, 512)


class Features(NamedTuple):
    """What a backbone sees: [N, C_s, ceil(H/s), ceil(W/s)] for s = 8, 16, 32 (the paper's pool3, 4 and 5)."""

    stride8: Tensor
    stride16: Tensor
    stride32: Tensor


class VGG16(nn.Module):
    """The 13 convolutions of VGG-16 (Simonyan and Zisserman 2015, configuration D), up to pool5.

    Parameters are named as in torchvision (`features.0.weight`, ...). `width` multiplies the channels, which
    are rounded to multiples of 8 and at least 8. `channels` are those of the three maps that come out.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        stages = [max(8, 8 * round(width * channels / 8)) for channels in _CHANNELS]
        self.channels = (stages[2], stages[3], stages[4])
        layers: list[nn.Module] = []
        taps: list[int] = []
        incoming = 3
        for convs, outgoing in zip(_CONVS_PER_STAGE, stages, strict=True):
            for _ in range(convs):
                layers += [nn.Conv2d(incoming, outgoing, 3, padding=1), nn.ReLU(inplace=True)]
                incoming = outgoing
            layers.append(nn.MaxPool2d(2, 2, ceil_mode=True))
            taps.append(len(layers))
        self.features = nn.Sequential(*layers)
        self._taps = taps[-3:]
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # these convolutions all have one

    def forward(self, x: Tensor) -> Features:
        """x: normalised images [N, 3, H, W], H and W at least 1."""
        pools = []
        start = 0
        for tap in self._taps:
            x = self.features[start:tap](x)
            pools.append(x)
            start = tap
        return Features(*pools)

    def reach(self) -> int:
        """How many pixels beyond its own 32 a stride-32 cell looks, to the further side.

        Outside that distance nothing changes the cell, so a tile with so wide a margin has exact features
        inside.
        """
        return receptive_reach(self.features)


def receptive_reach(layers: Iterable[nn.Module]) -> int:
    """How many pixels beyond its own a cell after `layers` looks, to the further side.

    The last layer's cell 0 is walked back to the span of pixels [first, last] it is computed from; its own
    are 0 to stride - 1. Layers without a window (ReLU) change nothing.
    """
    first = last = 0
    stride = 1
    for layer in reversed(list(layers)):
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            kernel, step, pad = (_square(layer.kernel_size), _square(layer.stride), _square(layer.padding))
            first = first * step - pad
            last = last * step - pad + kernel - 1
            stride *= step
    return max(-first, last - (stride - 1))


def _square(size: int | str | tuple[int, ...]) -> int:
    """The one number of a window that is as high as wide."""
    if isinstance(size, int):
        return size
    if isinstance(size, str) or len(set(size)) != 1:
        raise ValueError(f"expected a square window, found {size}")
    return size[0]


BACKBONES = {"vgg16": VGG16}
