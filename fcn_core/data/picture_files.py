"""An image file and a mask file as a person has them: decoded, with what their headers say."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from fcn_core.decoding import FORMATS, Decoded, decode, jpeg, png, turned, without_text_before
from fcn_core.decoding.heif import is_heif
from fcn_core.decoding.jpegxl import JPEG_XL, is_jpegxl
from fcn_core.errors import DataError, DecodeError
from fcn_core.labels import RGB, UNREADABLE

_BACK = {6: 8, 8: 6}  # the other orientations undo themselves

MASK_FILE_FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM")
"""File formats that are tried for masks. Only PNG is right; what is wrong with the others can be told."""


@dataclass(frozen=True, eq=False)
class PictureFile:
    """An image file, not turned.

    mode: Pillow's name for how the file stores it. array: of a photo the pixels that a network sees, uint8 [H, W, 3];
    of a mask what the file holds, [H, W] or [H, W, channels], of mode P the numbers, not their colours. palette: the
    RGB entries of a mask of mode P. bits: per sample, of a mask's PNG. orientation: a photo's by EXIF, 1 to 8; 1 is
    upright.
    """

    name: str
    format: str
    mode: str
    array: npt.NDArray[Any]
    palette: tuple[RGB, ...]
    bits: int | None
    orientation: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        return int(self.array.shape[0]), int(self.array.shape[1])


def read_photo(data: bytes, name: str, decode: Callable[[bytes], Decoded] = decode) -> PictureFile:
    """The picture in an image file, of any format that is segmented, as a network sees it but for its orientation.

    `name` is what messages call it; DataError if it cannot be read. `decode` is `fcn_core.decoding.decode`, here or in
    a process of its own.
    """
    try:
        decoded = decode(data)
    except DecodeError as error:
        raise DataError(
            f"{name} is no photo that can be read: {error.message} Copy it again or leave it out"
        ) from error
    orientation = decoded.orientation
    format, mode = _header(without_text_before(data))
    as_stored = turned(decoded.pixels, _BACK.get(orientation, orientation))
    return PictureFile(name, format, mode, as_stored, palette=(), bits=None, orientation=orientation)


def read_mask_file(data: bytes, name: str) -> PictureFile:
    """A mask, or what claims to be one: the numbers that its file holds, before anybody's conversion.

    `name` is what messages call it; DataError if it cannot be read.
    """
    try:
        with Image.open(io.BytesIO(data), formats=MASK_FILE_FORMATS) as image:
            if image.format == "JPEG":
                jpeg.check_scans(data, image.width * image.height)
            image.load()
            if image.format == "PNG":
                png.verify(data)  # Pillow checks the data's checksums not at all
            flat = image.getpalette("RGB") if image.mode == "P" else None
            return PictureFile(
                name=name,
                format=image.format or "",
                mode=image.mode,
                array=np.array(image),
                palette=tuple(zip(flat[::3], flat[1::3], flat[2::3], strict=True)) if flat else (),
                bits=data[24] if image.format == "PNG" else None,  # in PNG's first chunk
                orientation=1,  # readers of masks do not turn them
            )
    except UnidentifiedImageError as error:
        raise DataError(f"{name} is not an image of a known format; give {', '.join(MASK_FILE_FORMATS)}") from error
    except DecodeError as error:
        raise DataError(f"{name} is a damaged image: {error.message} Copy it again or leave it out") from error
    except (*UNREADABLE, MemoryError) as error:
        raise DataError(f"{name} is a damaged image ({error}); copy it again, or leave it out") from error


def _header(data: bytes) -> tuple[str, str]:
    """Format and Pillow's mode of a file that can be decoded, as far as Pillow knows such a file."""
    if is_heif(data):
        return "HEIF", "(none of Pillow's)"
    if is_jpegxl(data):
        return JPEG_XL, "(none of Pillow's)"
    try:
        with Image.open(io.BytesIO(data), formats=[name for name in FORMATS if name != JPEG_XL]) as image:
            return image.format or "", image.mode
    except UNREADABLE:  # variants of TIFF that Pillow does not know
        return "TIFF", "(none of Pillow's)"
