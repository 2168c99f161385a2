"""A picture as its file stores it, and the checks that come before any pixel is decoded."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from fcn_core.errors import DecodeError

Pixels = npt.NDArray[np.uint8]

_TEXT_BEFORE = b"\xef\xbb\xbf \t\r\n"  # a byte order mark and white space
_FIRST_OF_TEXT = frozenset(bytes([value]) for value in _TEXT_BEFORE)
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF87a", b"GIF89a")

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True, eq=False)
class Stored:
    """pixels: uint8 [H, W, 3], RGB, not turned yet. orientation: EXIF's, 1..8. size: (W, H) of the picture, of which
    `pixels` may be a smaller version.
    """

    pixels: Pixels
    orientation: int
    size: tuple[int, int]


def without_text_before(data: bytes) -> bytes:
    """The file without the blank lines that web scripts send ahead of a JPEG, PNG or GIF; any other file as it is."""
    if data[:1] not in _FIRST_OF_TEXT:
        return data
    image = data.lstrip(_TEXT_BEFORE)
    return image if image.startswith(_SIGNATURES) else data


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raises DecodeError for a picture of no pixels, or of more than `max_pixels`."""
    if width < 1 or height < 1:
        raise DecodeError("damaged", f"The file is damaged; it declares {width}x{height} pixels.")
    if width * height > max_pixels:
        raise DecodeError(
            "too_many_pixels", f"The image has {width}x{height} pixels; the limit is {max_pixels:,} in all."
        )


def exif_orientation(image: Image.Image) -> int:
    """The orientation that an open file asks for, 1 if it says nothing readable.

    Must not be asked of a PNG before its pixels are there: Pillow decodes them to find its EXIF, and an error in them
    would be lost here.
    """
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # broken EXIF does not make a broken picture; viewers ignore it too
        return 1
    return valid_orientation(value)


def turned(pixels: Pixels, orientation: int) -> Pixels:
    """uint8 [H, W, 3] or [H, W], as an EXIF orientation (1..8) asks for it to be displayed."""
    turn = _TURNS.get(orientation)
    return pixels if turn is None else np.asarray(Image.fromarray(pixels).transpose(turn))


def valid_orientation(value: object) -> int:
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
