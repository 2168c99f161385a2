"""BMP, PPM, WebP, JPEG 2000 and AVIF, through Pillow, whose readers of these are sound."""

import io

import numpy as np
from PIL import Image, features

from fcn_core.decoding.refusals import CUT_OFF, is_cut_webp, unsupported
from fcn_core.decoding.samples import grey, over_white, ranged, scaled
from fcn_core.decoding.stored import Pixels, Stored, check_size, exif_orientation
from fcn_core.errors import DecodeError

FORMATS = ("BMP", "PPM", "WEBP", "JPEG2000", *(("AVIF",) if features.check("avif") else ()))
_CODESTREAM = b"\xff\x4f\xff\x51"


def read(data: bytes, max_pixels: int) -> Stored:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        check_size(*image.size, max_pixels)
        if is_cut_webp(data):
            raise DecodeError("truncated", CUT_OFF)
        image.load()
        check_size(*image.size, max_pixels)  # a frame may turn out larger than its header said
        pixels = _rgb(image) if image.format != "JPEG2000" else _jpeg2000(image, data)
        return Stored(pixels, exif_orientation(image), image.size)


def _jpeg2000(image: Image.Image, data: bytes) -> Pixels:
    """Of samples below 8 bits Pillow makes the upper bits of a byte, so that white is not white."""
    depths = _jpeg2000_depths(data)
    if len(depths) > 1:
        raise unsupported(f"JPEG 2000 with components of {sorted(depths)} bits")
    bits = min(depths, default=8)
    if bits >= 8:
        return _rgb(image)
    samples = scaled(np.asarray(image) >> (8 - bits), bits)
    return _rgb(Image.fromarray(samples))


def _jpeg2000_depths(data: bytes) -> set[int]:
    """Bits a sample of the components, by the codestream's header; empty if it is not where it should be."""
    start = data.find(_CODESTREAM) + len(_CODESTREAM)
    if start < len(_CODESTREAM) or start + 38 > len(data):
        return set()
    count = int.from_bytes(data[start + 36 : start + 38], "big")
    return {(depth & 0x7F) + 1 for depth in data[start + 38 : start + 38 + 3 * count : 3]}


def _rgb(image: Image.Image) -> Pixels:
    mode = image.mode
    if mode.startswith("I;16"):
        return grey(scaled(np.asarray(image), 16))
    if mode in ("I", "F"):
        return grey(ranged(np.asarray(image)))
    if mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        layer = np.asarray(image.convert("RGBA"))
        return over_white(layer[:, :, :3], layer[:, :, 3])
    return np.asarray(image if mode == "RGB" else image.convert("RGB"))
