"""What a network's last upsampling computes, as numbers: from class scores on a coarse grid to logits per pixel.

The one thing to know: for all networks it is the same separable, two-tap interpolation. A row of pixels depends on
two rows of cells, a column on two columns; networks differ in where pixel 0 lies among the cells, in how many cells a
pixel is wide, and in what is beyond the edge. So whoever needs logits a few rows at a time needs no layer.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Taps:
    """Of one axis: pixel i is first_weight[i] * cell[first[i]] + second_weight[i] * cell[second[i]].

    Indices are int64 [pixels], always valid and never decreasing; weights are float32 [pixels]. They add up to 1
    except beyond an edge where there is nothing ("zero").
    """

    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]
    first_weight: npt.NDArray[np.float32]
    second_weight: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Axis:
    """Of one axis: `pixels` values interpolated from `cells`. Pixel i lies at cell coordinate origin + step * i, where
    coordinate k is the centre of cell k.

    clamp: beyond the first and last centre, their value goes on; otherwise it fades to zero within one cell, as in a
    transposed convolution.
    """

    cells: int
    pixels: int
    step: float
    origin: float
    clamp: bool

    def inside(self) -> slice:
        """The cells with pixels of the image; networks with a border have others around them."""
        low = self.origin - self.step / 2
        high = low + self.step * self.pixels
        return slice(max(math.floor(low + 0.5), 0), min(math.ceil(high + 0.5), self.cells))

    def stretched(self, pixels: int) -> "Axis":
        """The same cells under another number of pixels, which cover the same length together."""
        ratio = self.pixels / pixels
        return replace(self, pixels=pixels, step=self.step * ratio, origin=self.origin + self.step * (ratio - 1) / 2)

    def taps(self, start: int = 0, stop: int | None = None) -> Taps:
        """The taps of pixels [start, stop), by default of all."""
        stop = self.pixels if stop is None else stop
        position = self.origin + self.step * np.arange(start, stop, dtype=np.float64)
        if self.clamp:
            position = position.clip(0, self.cells - 1)
        below = np.floor(position)
        first, second = below.astype(np.int64), below.astype(np.int64) + 1
        second_weight = position - below
        first_weight = 1 - second_weight
        last = self.cells - 1
        return Taps(
            first=first.clip(0, last),
            second=second.clip(0, last),
            first_weight=np.where((first >= 0) & (first <= last), first_weight, 0).astype(np.float32),
            second_weight=np.where((second >= 0) & (second <= last), second_weight, 0).astype(np.float32),
        )


@dataclass(frozen=True)
class Upsampling:
    """From scores [N, C, rows.cells, columns.cells] to logits [N, C, rows.pixels, columns.pixels]."""

    rows: Axis
    columns: Axis

    def cropped(self, height: int, width: int) -> "Upsampling":
        """The same, of which only the first so many rows and columns of pixels are wanted."""
        return Upsampling(replace(self.rows, pixels=height), replace(self.columns, pixels=width))

    def stretched(self, height: int, width: int) -> "Upsampling":
        """To a picture of another size, of which the network saw a smaller or larger version."""
        return Upsampling(self.rows.stretched(height), self.columns.stretched(width))

    @classmethod
    def half_pixel(cls, cells: tuple[int, int], size: tuple[int, int], stride: int) -> "Upsampling":
        """Bilinear, `stride` pixels a cell, cropped at bottom and right: cell k's centre is the middle of its pixels.

        F.interpolate(scale_factor=stride, align_corners=False)[..., :H, :W]: networks in "same" geometry.
        """
        rows, columns = (
            Axis(count, pixels, 1 / stride, 0.5 / stride - 0.5, clamp=True)
            for count, pixels in zip(cells, size, strict=True)
        )
        return cls(rows, columns)

    @classmethod
    def transposed(
        cls, cells: tuple[int, int], size: tuple[int, int], *, kernel: int, stride: int, crop: int
    ) -> "Upsampling":
        """A transposed convolution with `bilinear_weight`, kernel 2 * stride or one less, then cropped by `crop` at top
        and left: networks in "padded" geometry.
        """
        rows, columns = (
            Axis(count, pixels, 1 / stride, (crop - (kernel - 1) / 2) / stride, clamp=False)
            for count, pixels in zip(cells, size, strict=True)
        )
        return cls(rows, columns)

    @classmethod
    def resized(cls, cells: tuple[int, int], size: tuple[int, int]) -> "Upsampling":
        """F.interpolate(size=size, mode="bilinear", align_corners=False): torchvision's networks.

        Not `half_pixel`: where the stride does not divide the size, a cell is a little narrower than the stride.
        """
        rows, columns = (
            Axis(count, pixels, count / pixels, 0.5 * count / pixels - 0.5, clamp=True)
            for count, pixels in zip(cells, size, strict=True)
        )
        return cls(rows, columns)


def bilinear_weight(classes: int, size: int) -> Tensor:
    """Weights, float32 [classes, classes, size, size], of a transposed convolution that interpolates each class.

    Its stride is to be (size + 1) // 2. An even kernel's centre lies between two pixels, an odd one's on a pixel
    (the authors' surgery.py).
    """
    stride = (size + 1) // 2
    taps = 1 - (torch.arange(size) - (size - 1) / 2).abs() / stride
    return torch.eye(classes)[:, :, None, None] * torch.outer(taps, taps)


def bilinear_transposed(classes: int, kernel: int, *, stride: int, padding: int = 0) -> nn.ConvTranspose2d:
    """The paper's upsampling layer: a transposed convolution without bias that starts as bilinear, class by class."""
    layer = nn.ConvTranspose2d(classes, classes, kernel, stride=stride, padding=padding, bias=False)
    if not layer.weight.is_meta:  # nothing to draw, as in fcn_core.models.initialization
        with torch.no_grad():
            layer.weight.copy_(bilinear_weight(classes, kernel))
    return layer
