"""What a backbone offers: an image in, features at strides 8, 16 and 32 out.

The one thing to know: every map has ceil(size / stride) cells, whatever the size. Strided layers round up, so cell i
of a stride-s map stands for pixels s*i to s*i + s - 1 and no image is too small.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor, nn


class Features(NamedTuple):
    """What a backbone sees: [N, C_s, ceil(H/s), ceil(W/s)] for s = 8, 16, 32 (the paper's pool3, 4 and 5)."""

    stride8: Tensor
    stride16: Tensor
    stride32: Tensor


class Backbone(nn.Module, ABC):
    """A classifier without its end; parameters are named as in torchvision, so that its weights load.

    channels: of the three maps. head_kernel: how wide fc6 is, in cells: what the classifier's first fully connected
    layer saw, or 3 where the classifier ends in an average. stem_stride: where a cell of the three maps looks far
    (hundreds of pixels, or at the whole image), the stride of the one map up to which it does not; otherwise None.
    """

    channels: tuple[int, int, int]
    head_kernel: int = 3
    stem_stride: int | None = None

    def forward(self, x: Tensor) -> Features:
        """x: normalised images [N, 3, H, W], H and W at least 1."""
        return self.body(self.stem(x))

    def stem(self, x: Tensor) -> Tensor:
        """Images to the map at `stem_stride`; the image itself if that is None."""
        return x

    @abstractmethod
    def body(self, x: Tensor) -> Features:
        """The three maps, from what `stem` gives."""

    @abstractmethod
    def near_layers(self) -> Iterable[nn.Module]:
        """The layers on the longest way through what may be tiled: the stem, or everything if there is none."""

    def reach(self) -> int:
        """How many pixels beyond its own s x s a cell looks, to the further side: one of stride 32, or of the stem.

        Outside that distance nothing changes the cell, so a tile with so wide a margin has exact features inside.
        """
        return receptive_reach(self.near_layers())


@dataclass(frozen=True)
class BackboneSpec:
    """Everything that is particular to one backbone.

    build: makes it, with fresh weights, from a width that multiplies its channels. has_widths: whether it has other
    widths than 1. head_width: default channels of fc6 and fc7: those of the classifier's fully connected layers, and
    where it has none, a quarter of the backbone's channels, as torchvision's FCN head has. summary: a few words for the
    list of networks.

    weights: torchvision's published weights of the classifier, such as "VGG16_Weights.IMAGENET1K_V1". is_of: whether
    tensors with torchvision's names, less a "backbone." prefix, are of this backbone. fully_connected: torchvision's
    layers that become fc6 and fc7.

    authors_name, authors_tensors: what a file with the FCN authors' names is called, and the tensors that it is known
    by; none where the authors have no such network. authors_layers: their names of layers of torchvision's `features`,
    by index, where the parameters are the same.
    """

    build: Callable[[float], Backbone]
    head_width: int
    summary: str
    weights: str
    is_of: Callable[[Mapping[str, Tensor]], bool]
    has_widths: bool = True
    fully_connected: Mapping[str, str] = field(default_factory=dict)
    authors_name: str = ""
    authors_tensors: tuple[str, ...] = ()
    authors_layers: Mapping[str, int] = field(default_factory=dict)


def scaled(channels: int, width: float) -> int:
    """`channels` times `width`, rounded to a multiple of 8 and at least 8."""
    return max(8, 8 * round(width * channels / 8))


def receptive_reach(layers: Iterable[nn.Module]) -> int:
    """How many pixels beyond its own a cell after `layers` looks, to the further side.

    The last layer's cell 0 is walked back to the span of pixels [first, last] it is computed from; its own are 0 to
    stride - 1. Layers without a window (ReLU, batch norm) change nothing.
    """
    first = last = 0
    stride = 1
    for layer in reversed(list(layers)):
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            kernel, step, pad = (_square(layer.kernel_size), _square(layer.stride), _square(layer.padding))
            first = first * step - pad
            last = last * step - pad + _square(layer.dilation) * (kernel - 1)
            stride *= step
    return max(-first, last - (stride - 1))


def _square(size: int | str | tuple[int, ...]) -> int:
    """The one number of a window that is as high as wide."""
    if isinstance(size, int):
        return size
    if isinstance(size, str) or len(set(size)) != 1:
        raise ValueError(f"expected a square window, found {size}")
    return size[0]
