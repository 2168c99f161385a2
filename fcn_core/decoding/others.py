"""BMP, PBM, PGM, PPM, PFM, WebP and AVIF, through Pillow, whose readers of these are sound."""

import io

import numpy as np
from PIL import Image, ImageFile, features

from fcn_core.decoding.refusals import CUT_OFF, damaged, is_cut_webp
from fcn_core.decoding.samples import grey, over_white, ranged, scaled, scaled_from
from fcn_core.decoding.stored import Pixels, Stored, check_size, exif_orientation
from fcn_core.errors import DecodeError

FORMATS = ("BMP", "PPM", "WEBP", *(("AVIF",) if features.check("avif") else ()))
_SIXTEEN_BITS = "I;16B"


def read(data: bytes, max_pixels: int) -> Stored:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        check_size(*image.size, max_pixels)
        if is_cut_webp(data):
            raise DecodeError("truncated", CUT_OFF)
        if image.format == "PPM" and (pixels := _deep_netpbm(image, data)) is not None:
            return Stored(pixels, 1, image.size)
        image.load()
        check_size(*image.size, max_pixels)  # a frame may turn out larger than its header said
        return Stored(rgb(image), exif_orientation(image), image.size)


def _deep_netpbm(image: ImageFile.ImageFile, data: bytes) -> Pixels | None:
    """A binary PGM or PPM whose white is not 255; None for any other file.

    The file says what white is. Pillow knows, scales to 16 bits, value by value in Python, and does not say so.
    """
    codec, _, start, arguments = image.tile[0]
    if codec == "ppm" and isinstance(arguments, tuple):
        most = int(arguments[1])
    elif codec == "raw" and arguments == _SIXTEEN_BITS:
        most = 65535
    else:
        return None
    bands = 3 if image.mode == "RGB" else 1
    kind = np.dtype(">u2" if most > 255 else "u1")
    count = image.width * image.height * bands
    if start + count * kind.itemsize > len(data):
        raise DecodeError("truncated", CUT_OFF)
    samples = np.frombuffer(data, kind, count, start).reshape(image.height, image.width, bands)
    if int(samples.max()) > most:
        raise damaged(f"it has samples of {int(samples.max())}, and declares {most} as the most")
    pixels = scaled_from(samples, most)
    return grey(pixels[:, :, 0]) if bands == 1 else pixels


def rgb(image: Image.Image) -> Pixels:
    """The pixels of an image that Pillow has loaded, whatever its mode."""
    mode = image.mode
    if mode.startswith("I;16"):
        return grey(scaled(np.asarray(image), 16))
    if mode == "I" and image.format == "PPM":  # as text, scaled to 16 bits by Pillow
        return grey(scaled(np.asarray(image), 16))
    if mode in ("I", "F"):
        return grey(ranged(np.asarray(image)))
    if mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        layer = np.asarray(image.convert("RGBA"))
        return over_white(layer[:, :, :3], layer[:, :, 3])
    return np.asarray(image if mode == "RGB" else image.convert("RGB"))
