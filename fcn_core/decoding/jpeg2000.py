"""JPEG 2000, decoded by Pillow: what OpenJPEG objects to is an error.

Samples of more than 8 bits and signed ones are read again with imagecodecs: Pillow cuts them to their upper 8 bits, and
takes an opacity of 16 bits for transparency.
"""

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fcn_core.decoding import others
from fcn_core.decoding.libraries import imagecodecs
from fcn_core.decoding.refusals import damaged, unsupported
from fcn_core.decoding.samples import grey, over_white, ranged, scaled
from fcn_core.decoding.stored import Pixels, Stored, check_size, exif_orientation

_FILE = b"\0\0\0\x0cjP  \r\n\x87\n"
_CODESTREAM = b"\xff\x4f\xff\x51"
_COMPONENTS_AT = 40  # from the codestream's first byte
_SIGN = 0x80
_MOST_COMPONENTS = 4
_MOST_BITS = 25  # beyond which OpenJPEG returns other values than were written
_ENUMERATED = 1
_BILEVEL, _CMYK, _ALSO_BILEVEL, _SRGB, _GREY, _SYCC = 0, 12, 15, 16, 17, 18
_KNOWN_SPACES = frozenset([_BILEVEL, _CMYK, _ALSO_BILEVEL, _SRGB, _GREY, _SYCC])
_PLAIN_SPACES = frozenset([None, _SRGB, _GREY])


@dataclass(frozen=True, slots=True)
class _Kind:
    """What the headers say of the samples. `space`: the number of the colour space, None if there is none."""

    components: int
    bits: int
    is_signed: bool
    is_subsampled: bool
    space: int | None


def is_jpeg2000(data: bytes) -> bool:
    return data.startswith((_FILE, _CODESTREAM))


def read(data: bytes, max_pixels: int) -> Stored:
    kind = _kind(data)
    with Image.open(io.BytesIO(data), formats=("JPEG2000",)) as image:
        check_size(*image.size, max_pixels)
        image.load()
        return Stored(_rgb(image, kind, data), exif_orientation(image), image.size)


def _rgb(image: Image.Image, kind: _Kind, data: bytes) -> Pixels:
    if kind.bits <= 8 and not kind.is_signed:
        if kind.bits == 8:
            return others.rgb(image)
        # Pillow makes the upper bits of a byte of them, so that white is not white.
        return others.rgb(Image.fromarray(scaled(np.asarray(image) >> (8 - kind.bits), kind.bits)))
    if kind.is_subsampled or kind.space not in _PLAIN_SPACES or image.mode in ("P", "PA"):
        raise unsupported(f"JPEG 2000 of {kind.bits} bits that is not plain RGB or grey")
    samples: npt.NDArray[Any] = imagecodecs().jpeg2k_decode(data)
    samples = samples.reshape(*samples.shape[:2], -1)
    if samples.shape != (image.height, image.width, kind.components):
        raise damaged("its components are not of the size that the header says")
    colors = 3 if kind.components >= 3 else 1
    pixels = ranged(samples[:, :, :colors]) if kind.is_signed else scaled(samples, kind.bits)
    if kind.components > colors:
        if kind.is_signed:
            raise unsupported("JPEG 2000 with an opacity that has a sign")
        pixels = over_white(pixels[:, :, :colors], pixels[:, :, colors])
    return grey(pixels[:, :, 0]) if colors == 1 else pixels


def _kind(data: bytes) -> _Kind:
    """Raises DecodeError for components and colours that are not read, or if there is no codestream."""
    start = data.find(_CODESTREAM)
    count = int.from_bytes(data[start + _COMPONENTS_AT : start + _COMPONENTS_AT + 2], "big")
    parts = data[start + _COMPONENTS_AT + 2 : start + _COMPONENTS_AT + 2 + 3 * count]
    if start < 0 or not count or len(parts) < 3 * count:
        raise damaged("there is no codestream in it")
    if count > _MOST_COMPONENTS:
        raise unsupported(f"JPEG 2000 of {count} components")
    depths = set(parts[::3])
    bits = (parts[0] & ~_SIGN) + 1
    if len(depths) > 1:
        raise unsupported(f"JPEG 2000 with components of {sorted((depth & ~_SIGN) + 1 for depth in depths)} bits")
    if bits > _MOST_BITS:
        raise unsupported(f"JPEG 2000 of {bits} bits a sample")
    at = data.find(b"colr", 0, start)
    space = int.from_bytes(data[at + 7 : at + 11], "big") if at >= 0 and data[at + 4] == _ENUMERATED else None
    if space is not None and space not in _KNOWN_SPACES:
        raise unsupported(f"JPEG 2000 in colour space {space}")
    return _Kind(count, bits, bool(parts[0] & _SIGN), set(parts[1::3]) | set(parts[2::3]) != {1}, space)
