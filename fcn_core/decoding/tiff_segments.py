"""Strips and tiles that are image files of their own: how large they say they are, before a library believes them.

Only compressions whose output is bounded are decoded, by what is asked of them or by the check here.
"""

import io
import struct
from collections.abc import Callable

import simplejpeg
from PIL import Image

from fcn_core.decoding import jpeg
from fcn_core.decoding.refusals import damaged, unsupported

NONE, OLD_JPEG, JPEG, LERC, PNG, WEBP = 1, 6, 7, 34887, 34933, 50001
APERIO_YCBCR = 33003
JPEG_2000 = (APERIO_YCBCR, 33004, 33005, 34712)
_FAX, _LZW, _DEFLATE, _PACKBITS, _LZMA, _ZSTD = (2, 3, 4), 5, (8, 32946), 32773, 34925, 50000
KNOWN = frozenset([NONE, OLD_JPEG, JPEG, LERC, PNG, WEBP, *JPEG_2000, *_FAX, _LZW, *_DEFLATE, _PACKBITS, _LZMA, _ZSTD])


def check_segment(data: bytes, tables: bytes | None, compression: int, most_pixels: int) -> None:
    """Raises DecodeError for a strip or tile whose own header declares more than `most_pixels`, and for a JPEG that is
    damaged. `tables`: what all JPEGs of the page share, or the one header that an old-style page has.
    """
    whole = data
    if tables:
        whole = tables[:-2] + data[2:] if compression == JPEG else tables + data
    size_of = _SIZES.get(compression)
    if size_of is not None:
        width, height = size_of(whole)
        if width * height > most_pixels:
            raise damaged(f"a strip or tile of {most_pixels} pixels declares {width}x{height}")
    if compression in (JPEG, OLD_JPEG):
        jpeg.check_scans(whole, most_pixels)
        jpeg.check_strictly(whole)


def _jpeg_size(data: bytes) -> tuple[int, int]:
    try:
        height, width, _, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        raise jpeg.header_error(str(error), data) from error
    return int(width), int(height)


def _pillow_size(data: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(data), formats=("PNG", "WEBP", "JPEG2000")) as image:
        return image.size


def _lerc_size(data: bytes) -> tuple[int, int]:
    if data[:6] != b"Lerc2 " or len(data) < 22:
        raise unsupported("TIFF with LERC data that is compressed once more, or of version 1")
    version = struct.unpack_from("<i", data, 6)[0]
    rows, columns = struct.unpack_from("<ii", data, 14 if version >= 3 else 10)
    return int(columns), int(rows)


_SIZES: dict[int, Callable[[bytes], tuple[int, int]]] = {
    LERC: _lerc_size,
    **dict.fromkeys((JPEG, OLD_JPEG), _jpeg_size),
    **dict.fromkeys((PNG, WEBP, *JPEG_2000), _pillow_size),
}
