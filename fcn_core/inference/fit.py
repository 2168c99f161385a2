"""Images in the sizes that a model takes, and where its scores lie over their pixels.

The one thing to know: an image that is padded is padded at the right and the bottom, by repeating its edge; one that is
resized is seen whole, and its scores are stretched back.
"""

import math
from typing import Protocol

import numpy as np
from PIL import Image as PillowImage

from fcn_core.inference.engines.engine import Image
from fcn_core.models.network import Network
from fcn_core.models.onnx_graph.architecture import OnnxArchitecture
from fcn_core.models.upsampling import Upsampling

ALIGNED = 32
"""Windows start at multiples of so many pixels, so that cells of all usual strides fall on one grid."""

Size = tuple[int, int]
"""Height and width, or rows and columns of cells."""


class Fit(Protocol):
    """border: pixels that the model looks at beyond each side of an image."""

    border: int

    def seen(self, size: Size) -> Size:
        """In which size an engine gets an image of that size."""

    def image(self, image: Image, seen: Size) -> Image:
        """The image in the size that is seen."""

    def upsampling(self, size: Size, seen: Size, cells: Size) -> Upsampling:
        """From scores, of so many cells, to the pixels of an image of that size."""

    def own_cells(self, size: Size, seen: Size, cells: Size) -> Size:
        """How many of the cells are the image's, and not its padding's."""


class NetworkFit:
    """A network of ours takes any size; `snap` pads to multiples of so many pixels, up to `most_pixels`."""

    def __init__(self, network: Network, snap: int, most_pixels: int) -> None:
        self.border = network.border
        self._network = network
        self._snap = snap
        self._most_pixels = most_pixels

    def seen(self, size: Size) -> Size:
        padded = snapped(size[0], self._snap), snapped(size[1], self._snap)
        fits = math.prod(side + 2 * self.border for side in padded) <= self._most_pixels
        return padded if fits else size

    def image(self, image: Image, seen: Size) -> Image:
        return pad(image, seen)

    def upsampling(self, size: Size, seen: Size, cells: Size) -> Upsampling:
        return self._network.upsampling(seen).cropped(*size)

    def own_cells(self, size: Size, seen: Size, cells: Size) -> Size:
        own = self._network.upsampling(size)
        return own.rows.cells, own.columns.cells


class OnnxFit:
    """An imported graph takes one size, or multiples of something."""

    border = 0

    def __init__(self, architecture: OnnxArchitecture, snap: int) -> None:
        self._size = architecture.size
        self._multiple = math.lcm(architecture.multiple_of, snap)
        self.aligned = math.lcm(ALIGNED, self._multiple)
        """Windows start at multiples of so many pixels."""

    def seen(self, size: Size) -> Size:
        return self._size or (snapped(size[0], self._multiple), snapped(size[1], self._multiple))

    def window(self, size: Size, wanted: int, most_pixels: int) -> Size | None:
        """(height, width) of the windows through which an image is seen; None where it is seen whole.

        wanted: side of a window, or 0 for windows only of images over most_pixels. A graph of one size has windows of
        that size, where there are to be any.
        """
        if self._size is not None:
            window = self._size if wanted else size
        else:
            if not wanted and math.prod(size) <= most_pixels:
                return None
            side = snapped(wanted or math.isqrt(most_pixels), self.aligned)
            window = min(side, snapped(size[0], self.aligned)), min(side, snapped(size[1], self.aligned))
        return window if size[0] > window[0] or size[1] > window[1] else None

    def image(self, image: Image, seen: Size) -> Image:
        if self._size is None:
            return pad(image, seen)
        if image.shape[:2] == seen:
            return image
        # As the image processors of transformers and torchvision do it, smoothing what becomes smaller.
        resized = PillowImage.fromarray(image).resize((seen[1], seen[0]), PillowImage.Resampling.BILINEAR)
        return np.asarray(resized)

    def upsampling(self, size: Size, seen: Size, cells: Size) -> Upsampling:
        if self._size is not None:
            return Upsampling.resized(cells, size)
        return Upsampling.resized(cells, seen).cropped(*size)

    def own_cells(self, size: Size, seen: Size, cells: Size) -> Size:
        if self._size is not None:
            return cells
        rows, columns = (-(-count * side // whole) for count, side, whole in zip(cells, size, seen, strict=True))
        return rows, columns


def snapped(size: int, snap: int) -> int:
    """A height or width, in pixels, rounded up to a multiple of `snap`."""
    return -(-size // snap) * snap


def pad(image: Image, size: Size) -> Image:
    """The image with its last row and column repeated until it has that size."""
    height, width = image.shape[:2]
    if (height, width) == size:
        return image
    return np.pad(image, ((0, size[0] - height), (0, size[1] - width), (0, 0)), mode="edge")
