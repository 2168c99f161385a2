"""Small sound image files of every format that the decoder takes, to be damaged by whoever needs damaged ones."""

import functools
import io
from typing import Any

import imagecodecs
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from fcn_core.decoding import FORMATS
from fcn_core.decoding.jpegxl import JPEG_XL

KINDS = [*FORMATS, "MPO"]
SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "WEBP": {"lossless": True},
    "MPO": {"save_all": True},
}


def photo(height: int = 23, width: int = 31) -> npt.NDArray[np.uint8]:
    """Smooth, with no symmetry: every turn and mirror image of it looks different."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 200 // width, y * 200 // height, (x + 2 * y) * 60 // (width + height)], 2).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """`image` as a file; an MPO gets its negative as the second picture."""
    if kind == JPEG_XL:
        return bytes(imagecodecs.jpegxl_encode(np.asarray(image), lossless=True))
    buffer = io.BytesIO()
    extra = {"append_images": [ImageOps.invert(image)]} if kind == "MPO" else {}
    image.save(buffer, kind, **SAVE_OPTIONS.get(kind, {}), **extra, **options)
    return buffer.getvalue()


@functools.cache
def sample(kind: str, height: int = 23, width: int = 31) -> bytes:
    """`photo` as a file of that kind."""
    return encoded(Image.fromarray(photo(height, width)), kind)
