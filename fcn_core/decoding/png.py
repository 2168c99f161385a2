"""PNG through libpng, with every chunk's checksum verified first: Pillow checks those of the picture's data not at all.

libpng is shown only the chunks that make the picture, so text and colour profiles, sound or not, cannot matter.
"""

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from PIL import Image, PngImagePlugin

from fcn_core.decoding.libraries import imagecodecs
from fcn_core.decoding.refusals import CUT_OFF, damaged, unsupported
from fcn_core.decoding.samples import grey, over_white, scaled
from fcn_core.decoding.stored import Pixels, Stored, check_size, exif_orientation
from fcn_core.errors import DecodeError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PICTURE = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
LONGEST_SIDE = 1_000_000
"""As libpng is built everywhere; it calls the header of anything longer invalid."""

_INDEXED = 3  # the colour type
_WITH_EXIF = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")


def read(data: bytes, max_pixels: int) -> Stored:
    """16-bit samples are scaled and rounded; transparent pixels lie over white, whichever way the file marks them."""
    codecs = imagecodecs()
    chunks = list(_chunks(data))
    _check_order(chunks)
    width, height = struct.unpack_from(">II", chunks[0][1])
    check_size(width, height, max_pixels)
    if max(width, height) > LONGEST_SIDE:
        raise unsupported(f"PNG of {width}x{height} pixels; its decoder reads {LONGEST_SIDE:,} per side")
    picture = SIGNATURE + b"".join(_chunk(kind, content) for kind, content in chunks if kind in _PICTURE)
    try:
        samples = codecs.png_decode(picture)
    except codecs.PngError as error:
        if "Not enough image data" in str(error):
            raise DecodeError("truncated", CUT_OFF) from error
        raise damaged(str(error)) from error
    if samples.shape[:2] != (height, width):
        raise damaged("the picture is not of the size that the header says")
    return Stored(_rgb(samples), _orientation(chunks), (width, height))


def _check_order(chunks: list[tuple[bytes, memoryview]]) -> None:
    """Raises DecodeError for chunks that readers take in different ways, or must not pass over."""
    kinds = [kind for kind, _ in chunks]
    if kinds and kinds[0] == b"CgBI":
        raise unsupported("PNG as Apple's tools rewrite it for phones, CgBI")
    if not kinds or kinds[0] != b"IHDR" or len(chunks[0][1]) != 13:
        raise damaged("the first chunk is no header")
    for kind in kinds:
        if kind[:1].isupper() and kind not in _PICTURE:
            raise unsupported(f"PNG with a chunk {kind.decode('latin-1')}, without which it cannot be understood")
    first = kinds.index(b"IDAT") if b"IDAT" in kinds else len(kinds)
    count = kinds.count(b"IDAT")
    if kinds[first : first + count] != [b"IDAT"] * count:
        raise damaged("other chunks interrupt the picture's data")
    for kind in (b"IHDR", b"PLTE", b"tRNS"):
        if kinds.count(kind) > 1 or kind in kinds[first:]:
            raise damaged(f"chunk {kind.decode()} is there twice, or behind the picture's data")
    found = dict(chunks)
    if b"PLTE" in found and chunks[0][1][9] == _INDEXED and len(found.get(b"tRNS", b"")) > len(found[b"PLTE"]) // 3:
        raise damaged("it has more opacities than colours")


def verify(data: bytes) -> None:
    """Raises DecodeError unless a PNG is whole and every chunk's checksum is right; no pixel is decoded."""
    for _ in _chunks(data):
        pass


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Kind and content of every chunk up to the last, each proven by its checksum."""
    view = memoryview(data)
    position = len(SIGNATURE)
    while True:
        if position + 12 > len(data):
            raise DecodeError("truncated", CUT_OFF)
        (length,) = struct.unpack_from(">I", data, position)
        end = position + 8 + length
        kind = data[position + 4 : position + 8]
        if not kind.isalpha() or length > 0x7FFFFFFF:
            raise damaged(f"there is no chunk at byte {position}")
        if end + 4 > len(data):
            raise DecodeError("truncated", CUT_OFF)
        if zlib.crc32(view[position + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise damaged(f"the checksum of chunk {kind.decode('latin-1')} at byte {position} is wrong")
        yield kind, view[position + 8 : end]
        if kind == b"IEND":
            return
        position = end + 4


def _chunk(kind: bytes, content: bytes | memoryview) -> bytes:
    return b"".join(
        (struct.pack(">I", len(content)), kind, content, struct.pack(">I", zlib.crc32(content, zlib.crc32(kind))))
    )


def _rgb(samples: np.ndarray[tuple[int, ...], np.dtype[np.uint8 | np.uint16]]) -> Pixels:
    pixels = scaled(samples, samples.dtype.itemsize * 8)
    if pixels.ndim == 2:
        return grey(pixels)
    if pixels.shape[2] in (2, 4):
        pixels = over_white(pixels[:, :, :-1], pixels[:, :, -1])
    return grey(pixels[:, :, 0]) if pixels.shape[2] == 1 else pixels


def exif(data: bytes) -> Image.Exif:
    """The EXIF of a PNG, wherever in the file it stands; no pixel is decoded. Raises whatever Pillow makes of it."""
    with _without_picture(list(_chunks(data))) as image:
        return image.getexif()


def _orientation(chunks: list[tuple[bytes, memoryview]]) -> int:
    """As Pillow finds it, in EXIF, in text or in XMP."""
    if not any(kind in _WITH_EXIF for kind, _ in chunks):
        return 1
    try:
        with _without_picture(chunks) as image:
            return exif_orientation(image)
    except Exception:  # as of broken EXIF: the picture is none the worse for it
        return 1


def _without_picture(chunks: list[tuple[bytes, memoryview]]) -> Image.Image:
    """What may hold EXIF, before a picture of one pixel: Pillow finds what stands behind a picture by decoding it."""
    notes = [_chunk(kind, content) for kind, content in chunks if kind in _WITH_EXIF]
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    rest = _chunk(b"IDAT", zlib.compress(b"\0\0")) + _chunk(b"IEND", b"")
    return PngImagePlugin.PngImageFile(io.BytesIO(SIGNATURE + header + b"".join(notes) + rest))
