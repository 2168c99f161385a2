"""imagecodecs and tifffile, loaded when an image needs them: that takes a while, and most images are JPEGs. A process
that gives up opening files loads everything before it does.

Both log what they think of a file, and go on. What matters is an error here; the rest is not for a user's terminal.
"""

import contextlib
import functools
import importlib
import logging
from types import ModuleType

_PLUGINS = ("Avif", "Bmp", "Gif", "Jpeg", "Jpeg2K", "Mpo", "Png", "Ppm", "Tiff", "WebP")
"""Pillow's readers of the formats that are decoded."""

_HELPERS = ("PIL.ImageCms", "PIL.ImagePalette", "encodings.cp1252", "encodings.utf_16", "encodings.utf_16_le")
"""What those readers, and tifffile, import on the way: for LAB colours, palettes, and texts beside the picture."""

_CODECS = (
    *("bitorder", "ccittfax3", "ccittfax4", "ccittrle", "deflate", "delta", "floatpred", "gif", "jpeg2k", "jpeg8"),
    *("jpegxl", "lerc", "lzma", "lzw", "packbits", "packints", "png", "webp", "zlib", "zstd"),
)
"""imagecodecs' decoders that a GIF, PNG or TIFF may need; each is a library of its own, loaded when first used."""


@functools.cache
def imagecodecs() -> ModuleType:
    import imagecodecs

    logging.getLogger("imagecodecs").setLevel(logging.CRITICAL + 1)
    return imagecodecs


@functools.cache
def tifffile() -> ModuleType:
    import tifffile

    logging.getLogger("tifffile").setLevel(logging.CRITICAL + 1)
    return tifffile


@functools.cache
def pillow_heif() -> ModuleType | None:
    """None where the extra `heif` is not installed."""
    try:
        import pillow_heif
    except ImportError:
        return None
    # The picture alone, decoded in the thread that asks for it.
    pillow_heif.options.THUMBNAILS = pillow_heif.options.DEPTH_IMAGES = pillow_heif.options.AUX_IMAGES = False
    pillow_heif.options.DECODE_THREADS = 0
    return pillow_heif


def load_all(*, heif: bool = False) -> None:
    """Load everything that decoding any image may need; what reads HEIC only with `heif`.

    A codec that imagecodecs was built without is passed over. Raises ImportError where an installation is broken.
    """
    for name in (*(f"PIL.{name}ImagePlugin" for name in _PLUGINS), *_HELPERS):
        importlib.import_module(name)
    codecs = imagecodecs()
    for name in _CODECS:
        with contextlib.suppress(ImportError, AttributeError):
            getattr(codecs, f"{name}_decode")
    tifffile()
    if heif:
        pillow_heif()
