"""What every network offers to those who use one: prediction, tiling and training.

The one thing to know: a network is two halves. `shallow` looks only `reach()` pixels around a cell, so it may be
computed on tiles of an image of any size; `deep` runs once, on the small maps of the whole image.
`scores(x) == deep(shallow(x with a border of zeros))`, and the last upsampling, from scores to logits, has no weights
that matter: it is described by `upsampling`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from fcn_core.models.architecture import Architecture
from fcn_core.models.upsampling import Upsampling

GRID = 32
"""Tiles start at multiples of this many pixels, so that cells of all strides fall as in a whole pass."""


class Network(nn.Module, ABC):
    """A fully convolutional network: normalised images [N, 3, H, W] in, logits [N, num_classes, H, W] out.

    H and W are at least 1. stride: pixels per cell of `scores`. border: zeros that the network wants around the
    image, in pixels (the authors' nets do, all others have 0). shallow_strides: of the maps of `shallow`, in order.
    """

    border: int = 0
    shallow_strides: tuple[int, ...]

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.stride = architecture.stride

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, num_classes, H, W] of images x [N, 3, H, W]."""

    def scores(self, x: Tensor) -> Tensor:
        """Class scores [N, num_classes, h, w], before the last upsampling."""
        if self.border:
            x = F.pad(x, (self.border,) * 4)
        return self.deep(self.shallow(x))

    @abstractmethod
    def shallow(self, x: Tensor) -> tuple[Tensor, ...]:
        """Maps of a bordered image or tile [N, 3, H, W], each [N, C, cells(H, s), cells(W, s)], s its stride."""

    @abstractmethod
    def deep(self, maps: Sequence[Tensor]) -> Tensor:
        """Scores [N, num_classes, h, w] from the maps of a whole image."""

    def deepest(self, x: Tensor) -> Tensor:
        """The deepest map before any score, [N, C, h, w], of normalised images x without a border, at least 100
        pixels a side: what images are alike or unlike by. pool5 where there is one."""
        return self.shallow(x)[0]

    @abstractmethod
    def reach(self) -> int:
        """How many pixels beyond its own s x s a cell of `shallow` looks, to the further side."""

    def cells(self, pixels: int, stride: int) -> int:
        """How many cells a map of `shallow` has along an axis of so many pixels, border included."""
        return -(-pixels // stride)

    @abstractmethod
    def upsampling(self, size: tuple[int, int]) -> Upsampling:
        """The last upsampling for images of size (H, W): logits = upsampling of scores."""

    def fixed_state(self) -> dict[str, Tensor]:
        """Tensors of the state that must have these values, because `upsampling` describes them."""
        return {}

    @abstractmethod
    def backbone_parameters(self) -> Iterator[nn.Parameter]:
        """The weights that an image classifier has too; the others are new in segmentation."""


def crop(x: Tensor, offset: int, size: tuple[int, int]) -> Tensor:
    """The part of x [N, C, H, W] of the given size that begins `offset` from the top and the left."""
    height, width = size
    return x[..., offset : offset + height, offset : offset + width]
