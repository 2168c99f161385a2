"""JPEG XL through imagecodecs. The size is read from the file's first bits, so that it is known before any pixel is.

Source: ISO/IEC 18181-1 (SizeHeader) and 18181-2 (the container's boxes).
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from fcn_core.decoding.libraries import imagecodecs
from fcn_core.decoding.refusals import CUT_OFF, damaged, unsupported
from fcn_core.decoding.samples import grey, over_white, ranged, scaled
from fcn_core.decoding.stored import Pixels, Stored, check_size
from fcn_core.errors import DecodeError

JPEG_XL = "JPEG XL"
"""The format's name. Pillow has none for it."""

_BARE = b"\xff\x0a"
_CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"
_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}


def is_jpegxl(data: bytes) -> bool:
    """Whether a file is JPEG XL, in a container or bare."""
    return data.startswith((_BARE, _CONTAINER))


def read(data: bytes, max_pixels: int) -> Stored:
    """The first frame, turned as the file says."""
    check_size(*_size(data), max_pixels)
    try:
        pixels = imagecodecs().jpegxl_decode(data, index=0, numthreads=1)
    except (ImportError, AttributeError) as error:
        raise unsupported("JPEG XL; imagecodecs was built without it here") from error
    except (RuntimeError, ValueError) as error:
        if "NEED_MORE_INPUT" in str(error).upper():
            raise DecodeError("truncated", CUT_OFF) from error
        raise damaged(str(error)) from error
    height, width = pixels.shape[:2]
    check_size(width, height, max_pixels)
    return Stored(_rgb(pixels), 1, (width, height))


def _rgb(pixels: npt.NDArray[Any]) -> Pixels:
    bands = pixels.reshape(*pixels.shape[:2], -1)
    if bands.dtype == np.uint16:
        bands = scaled(bands, 16)
    elif bands.dtype != np.uint8:
        bands = ranged(bands)
    count = bands.shape[2]
    colour = bands[:, :, :3] if count >= 3 else np.repeat(bands[:, :, :1], 3, axis=2)
    if count in (2, 4):
        return over_white(colour, bands[:, :, -1])
    return np.ascontiguousarray(colour) if count >= 3 else grey(bands[:, :, 0])


def _size(data: bytes) -> tuple[int, int]:
    """(width, height) that the codestream declares."""
    bits = _Bits(_codestream(data)[len(_BARE) :])
    small = bits.take(1)
    height = 8 * (bits.take(5) + 1) if small else 1 + bits.take((9, 13, 18, 30)[bits.take(2)])
    ratio = bits.take(3)
    if ratio:
        over, under = _RATIOS[ratio]
        return height * over // under, height
    return (8 * (bits.take(5) + 1) if small else 1 + bits.take((9, 13, 18, 30)[bits.take(2)])), height


def _codestream(data: bytes) -> bytes:
    """The beginning of the codestream, out of its container."""
    if data.startswith(_BARE):
        return data[:32]
    at = 0
    while at + 8 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        head = 16 if length == 1 else 8
        length = int.from_bytes(data[at + 8 : at + 16], "big") if length == 1 else length or len(data) - at
        content = data[at + head : at + head + 36]
        content = content[4:] if kind == b"jxlp" else content  # its first four bytes number it
        if kind in (b"jxlc", b"jxlp") and content.startswith(_BARE):
            return content
        if length < head:
            raise damaged("a box of the container has no length")
        at += length
    raise DecodeError("truncated", CUT_OFF)


class _Bits:
    """Bits of a codestream, the lowest of each byte first."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "little")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        if count > self._left:
            raise DecodeError("truncated", CUT_OFF)
        taken = self._value & ((1 << count) - 1)
        self._value >>= count
        self._left -= count
        return taken
