"""`decode`: any image file to RGB pixels, turned and reduced as asked.

The bytes are not to be trusted. Only the formats listed here are tried (Pillow's EPS reader would start Ghostscript),
the size is checked before any pixel is decoded, and every exception of a decoder becomes a DecodeError with a stable
reason: empty_file, not_an_image, unsupported_format, extra_missing, truncated, damaged, too_many_pixels, out_of_memory.
What no `except` can catch (a crash, a stall) is for whoever runs this in a process of its own.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from fcn_core.decoding import gif, heif, jpeg, jpeg2000, jpegxl, others, png, tiff
from fcn_core.decoding.refusals import decode_error, out_of_memory
from fcn_core.decoding.stored import Pixels, Stored, turned, without_text_before
from fcn_core.errors import DecodeError

MAX_PIXELS = 178_956_970
"""A limit on width times height for where nobody has set one."""

FORMATS = ("JPEG", "PNG", "GIF", "TIFF", "JPEG2000", jpegxl.JPEG_XL, *others.FORMATS)


@dataclass(frozen=True, slots=True, eq=False)
class Decoded:
    """An image as it is meant to be seen.

    pixels: uint8 [H, W, 3], RGB, C-contiguous, the EXIF orientation already applied. orientation: the EXIF
    orientation (1..8) that the file asked for; 1 is "as stored". full_size: (H, W) of the picture, where `pixels` are a
    smaller version of it.
    """

    pixels: Pixels
    orientation: int
    full_size: tuple[int, int] | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the picture, and so of its mask."""
        return self.full_size or (self.pixels.shape[0], self.pixels.shape[1])


def decode(data: bytes, max_pixels: int = MAX_PIXELS, max_side: int | None = None) -> Decoded:
    """The picture in an image file as RGB: its first frame, and of a TIFF the first page of full resolution.

    - Transparent pixels are laid over white; so is what a GIF's first frame leaves uncovered.
    - Unsigned samples of other than 8 bits are scaled to 0..255 and rounded: 16 bits are divided by 257.
    - Signed integers, integers of 32 bits and floats are taken as they are when all lie in 0..255. Integers that all
      lie in 0..65535 are divided by 257, floats that all lie in 0..1 multiplied by 255. Any other range is stretched
      from its smallest and largest value to 0..255. NaN counts as the smallest, infinities as the ends of the finite
      range.
    - CMYK and LAB are converted without regard to profiles inside the file.
    - Of three or more bands without a meaning (TIFF), the first three are red, green and blue; of two, the first is
      grey.

    With `max_side`, a picture that is wider or higher is reduced until neither side has more pixels than that. A JPEG's
    decoder leaves out frequencies, which is faster, as far as that goes in powers of two; the rest, and other formats,
    are averaged (Pillow's antialiased bilinear).

    Raises DecodeError; `too_many_pixels` when width times height is over `max_pixels`.
    """
    if not data:
        raise DecodeError("empty_file", "The file is empty.")
    data = without_text_before(data)
    try:
        stored = _read(data, max_pixels, max_side)
        return _displayed(stored, max_side)
    except ImportError as error:
        if "map segment" not in str(error) and "allocate" not in str(error):
            raise  # a broken installation is no image's fault
        raise out_of_memory() from error  # libraries are loaded when an image needs them
    except Exception as error:
        raise decode_error(error, data, FORMATS) from error


def _read(data: bytes, max_pixels: int, max_side: int | None) -> Stored:
    if data.startswith(b"\xff\xd8\xff"):
        return jpeg.read(data, max_pixels, max_side)
    if data.startswith(png.SIGNATURE):
        return png.read(data, max_pixels)
    if tiff.is_tiff(data):
        return tiff.read(data, max_pixels)
    if data.startswith((b"GIF87a", b"GIF89a")):
        return gif.read(data, max_pixels)
    if jpegxl.is_jpegxl(data):
        return jpegxl.read(data, max_pixels)
    if heif.is_heif(data):
        return heif.read(data, max_pixels)
    if jpeg2000.is_jpeg2000(data):
        return jpeg2000.read(data, max_pixels)
    return others.read(data, max_pixels)


def _displayed(stored: Stored, max_side: int | None) -> Decoded:
    """Reduced and turned."""
    pixels, size = stored.pixels, stored.size
    full_size = None
    if max_side is not None and max(size) > max_side:
        full_size = size if stored.orientation >= 5 else (size[1], size[0])
        longest = max(size)
        wanted = (max(1, round(size[0] * max_side / longest)), max(1, round(size[1] * max_side / longest)))
        pixels = np.asarray(Image.fromarray(pixels).resize(wanted, Image.Resampling.BILINEAR))
    return Decoded(np.ascontiguousarray(turned(pixels, stored.orientation)), stored.orientation, full_size)
