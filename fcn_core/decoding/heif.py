"""HEIC and HEIF through pillow-heif, which the extra `heif` brings.

libde265, which decodes them, starts a thread per picture and does nothing without it: a process that may start none
reads no HEIC.
"""

import importlib.util

import numpy as np

from fcn_core.decoding.libraries import pillow_heif
from fcn_core.decoding.refusals import CUT_OFF, damaged, out_of_memory, unsupported
from fcn_core.decoding.samples import grey, over_white, scaled
from fcn_core.decoding.stored import Pixels, Stored, check_size
from fcn_core.errors import DecodeError

SUFFIXES = (".heic", ".heif")
EXTRA = "fcn-pipeline[heif]"

NOT_INSTALLED = f"HEIC and HEIF files are read with an extra: pip install '{EXTRA}'"

_HEVC = frozenset([b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"])
_ANY_CODEC = frozenset([b"mif1", b"msf1", b"mif2"])
_AV1 = frozenset([b"avif", b"avis"])
_BRANDS_READ = 64
_BYTES_PER_PIXEL = 4
"""What decoding takes at the least: planes of luma and colour, and RGB."""


def is_heif(data: bytes) -> bool:
    """Whether a file is HEIC, or a HEIF that does not call itself AVIF."""
    if data[4:8] != b"ftyp":
        return False
    length = min(int.from_bytes(data[:4], "big"), 16 + 4 * _BRANDS_READ)
    others = {data[at : at + 4] for at in range(16, length, 4)}
    return data[8:12] in _HEVC or (data[8:12] in _ANY_CODEC and not others & _AV1)


def is_installed() -> bool:
    """Whether this Python has what reads them."""
    return importlib.util.find_spec("pillow_heif") is not None


def read(data: bytes, max_pixels: int) -> Stored:
    """The primary picture, turned and mirrored as its container says: EXIF's orientation counts for nothing there."""
    library = pillow_heif()
    if library is None:
        raise DecodeError("extra_missing", f"{NOT_INSTALLED}.")
    try:
        file = library.open_heif(data, convert_hdr_to_8bit=False, hdr_to_16bit=False)
    except Exception as error:
        raise _refusal(error, data, 0) from error
    if not len(file):
        raise unsupported("HEIF without a still picture")
    image = file[file.primary_index]
    width, height = image.size
    check_size(width, height, max_pixels)
    try:
        samples, bits = np.asarray(image), image.info["bit_depth"]
    except Exception as error:
        raise _refusal(error, data, width * height) from error
    height, width = samples.shape[:2]
    check_size(width, height, max_pixels)
    pixels = scaled(samples, bits)
    if pixels.ndim == 2:
        return Stored(grey(pixels), 1, (width, height))
    return Stored(_opaque(pixels, premultiplied=image.premultiplied_alpha), 1, (width, height))


def exif(data: bytes) -> bytes:
    """The EXIF of the primary picture; empty where there is none, or nothing that reads it."""
    library = pillow_heif()
    if library is None:
        return b""
    file = library.open_heif(data, convert_hdr_to_8bit=False)
    return bytes(file.info.get("exif") or b"")


def _opaque(pixels: Pixels, *, premultiplied: bool) -> Pixels:
    if pixels.shape[2] == 3:
        return np.ascontiguousarray(pixels)
    return over_white(np.ascontiguousarray(pixels[:, :, :3]), pixels[:, :, 3], premultiplied=premultiplied)


def _refusal(error: Exception, data: bytes, pixels: int) -> DecodeError:
    """libheif's own words decide; pillow-heif's types of exceptions stand for several of its errors each."""
    text = str(error)
    lower = text.lower()
    if _is_cut(data):  # libheif reports an end of data for other damage, too
        return DecodeError("truncated", CUT_OFF)
    # Without memory, libheif says so, or throws, or gets nothing from libde265, which does not say why.
    if isinstance(error, MemoryError) or "memory" in lower or "c++ exception" in lower or not _has_room(pixels):
        return out_of_memory()
    if isinstance(error, SyntaxError):
        return unsupported(text)
    return damaged(text)


def _is_cut(data: bytes) -> bool:
    """Whether one of the file's outer boxes is longer than the rest of the file."""
    at = 0
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if length == 1:
            length = int.from_bytes(data[at + 8 : at + 16], "big")
        if length < 8:
            return False  # to the end of the file, or nonsense
        at += length
    return at != len(data)


def _has_room(pixels: int) -> bool:
    """Whether a picture of so many pixels could have been decoded in the memory that this process may have."""
    try:
        np.empty(pixels * _BYTES_PER_PIXEL, np.uint8)  # address space, which is what is limited; no page is touched
    except MemoryError:
        return False
    return True
