"""YCbCr in TIFF: colours that the file stores at a lower resolution, and what its tags say they mean.

In JPEG data libjpeg sees to both, with JPEG's own coefficients, as in every other reader.
"""

import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fcn_core.decoding.libraries import tifffile
from fcn_core.decoding.refusals import damaged, unsupported
from fcn_core.decoding.samples import rows_of
from fcn_core.decoding.stored import Pixels

if TYPE_CHECKING:
    from tifffile import TiffPage

_COEFFICIENTS, _REFERENCE = 529, 532
_BT601 = (0.299, 0.587, 0.114)
_FULL_RANGE = (0.0, 255.0, 128.0, 255.0, 128.0, 255.0)
_RATIONAL = 5
_FACTORS = (1, 2, 4)


def to_rgb(samples: Pixels, page: "TiffPage") -> Pixels:
    """uint8 [H, W, 3], Y, Cb and Cr, to RGB: TIFF 6.0, section 21."""
    red, green, blue = _numbers(page, _COEFFICIENTS, _BT601)
    reference = _numbers(page, _REFERENCE, _FULL_RANGE)
    spans = [white - black for black, white in zip(reference[::2], reference[1::2], strict=True)]
    if not green or not all(spans):
        raise damaged("its tags for YCbCr colours contradict one another")
    result = np.empty(samples.shape, np.uint8)
    for rows in rows_of(samples):
        wide = samples[rows].astype(np.float32)
        luma, cb, cr = (
            (wide[:, :, index] - reference[2 * index]) * (most / spans[index])
            for index, most in enumerate((255.0, 127.0, 127.0))
        )
        colors = luma + cr * (2 - 2 * red), luma, luma + cb * (2 - 2 * blue)
        colors = colors[0], (luma - red * colors[0] - blue * colors[2]) / green, colors[2]
        result[rows] = np.floor(np.stack(colors, axis=2) + 0.5).clip(0, 255)
    return result


class Subsampled:
    """The strips or tiles of a page whose colours have a lower resolution than its luma. tifffile reads none."""

    def __init__(self, page: "TiffPage", name: str) -> None:
        self._page, self._name = page, name
        across, down = page.subsampling or (2, 2)  # as TIFF says of files that do not
        if across not in _FACTORS or down not in _FACTORS:
            raise unsupported(f"{name}, colours of 1/{across} and 1/{down} of the resolution")
        if page.samplesperpixel != 3 or page.planarconfig != 1 or page.predictor != 1 or page.fillorder != 1:
            raise unsupported(f"{name}, subsampled colours in planes, with a predictor or with further bands")
        self._across, self._down = int(across), int(down)

    def segment(self, data: bytes, index: int) -> tuple[Pixels, int, int]:
        """The samples of a strip or tile, [rows, columns, 3], and its first row and column in the picture."""
        page = self._page
        if page.is_tiled:
            width, height = page.tilewidth, page.tilelength
            row, column = divmod(index, math.ceil(page.imagewidth / width))
            top, left = row * height, column * width
        else:
            width, left = page.imagewidth, 0
            top = index * page.rowsperstrip
            height = min(page.rowsperstrip, page.imagelength - top)
        across, down = math.ceil(width / self._across), math.ceil(height / self._down)
        of_luma = self._across * self._down
        size = across * down * (of_luma + 2)
        decompress = tifffile().TIFF.DECOMPRESSORS[page.compression]
        plain = data if page.compression == 1 else decompress(data, out=size)
        if len(plain) < size:
            raise ValueError(f"it has {len(plain)} of {size} bytes")
        blocks = np.frombuffer(plain, np.uint8, size).reshape(down, across, of_luma + 2)
        samples = np.empty((down, self._down, across, self._across, 3), np.uint8)
        luma = blocks[:, :, :of_luma].reshape(down, across, self._down, self._across)
        samples[..., 0] = luma.transpose(0, 2, 1, 3)
        samples[..., 1:] = blocks[:, np.newaxis, :, np.newaxis, of_luma:]
        whole = samples.reshape(down * self._down, across * self._across, 3)
        return whole[:height, :width], top, left


def _numbers(page: "TiffPage", tag: int, otherwise: tuple[float, ...]) -> tuple[float, ...]:
    entry = page.tags.get(tag)
    if entry is None:
        return otherwise
    values: npt.NDArray[np.float64] = np.asarray(entry.value, np.float64).reshape(-1)
    if int(entry.dtype) == _RATIONAL and values.size == 2 * len(otherwise):
        if not values[1::2].all():
            raise damaged(f"tag {tag} divides by nought")
        values = values[::2] / values[1::2]
    if values.size != len(otherwise) or not np.isfinite(values).all():
        raise damaged(f"tag {tag} has {values.size} values")
    return tuple(values.tolist())
