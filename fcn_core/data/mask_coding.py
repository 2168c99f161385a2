"""Mask files as people have them - class numbers, colours, grey - read as class indices.

The one thing to know: nothing is guessed. Where a file could be read in two ways ("auto" would have to choose), it is
refused with a sentence that says which coding to ask for.
"""

import io
from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin
from PIL.TiffImagePlugin import TiffImageFile

from fcn_core.data.coding_names import MaskCoding
from fcn_core.data.matfile import MAGIC, read_sbd_mask
from fcn_core.decoding import png
from fcn_core.errors import DecodeError, LabelError
from fcn_core.labels import RGB, UNREADABLE, VOID, LabelSet, Mask, indices_from_rgb, preset, why_unreadable

MaskFault = Literal["unreadable", "colors_for_indices", "unknown_colors", "black_and_white", "other_palette"]

_COLOR_MODES = ("RGB", "RGBA")
_LOSSLESS = frozenset([1, 5, 8, 32946, 32773])  # TIFF: none, LZW, Deflate under two numbers, PackBits
_WHITE_IS_ZERO = 0
_BIT_DEPTH_AT = 24  # the byte of a PNG's first chunk that holds bits per sample


class MaskError(LabelError):
    """A mask file that cannot be read as asked. `fault` is a stable code to group by."""

    def __init__(self, fault: MaskFault, message: str) -> None:
        super().__init__(message)
        self.fault = fault


def read_mask(
    data: bytes, labels: LabelSet, coding: MaskCoding = "auto", recode: Mapping[int, int] | None = None
) -> Mask:
    """The class indices of a mask file, uint8 [H, W]. PNG, TIFF or BMP, or a MATLAB file of the SBD data set.

    `recode` gives stored indices another meaning, such as {11: 255}; indices it does not name stay as they are. Whether
    all of them fit the label set is for the caller to check. Raises MaskError.
    """
    mask = _indices(data, labels, coding)
    if recode:
        table = np.arange(256, dtype=np.uint8)
        table[list(recode)] = list(recode.values())
        mask = table[mask]
    return mask


def _indices(data: bytes, labels: LabelSet, coding: MaskCoding) -> Mask:
    if data.startswith(MAGIC):
        try:
            return read_sbd_mask(data)
        except LabelError as error:
            raise MaskError("unreadable", str(error)) from error
    image, bits = _open(data)
    match coding:
        case "index":
            return _stored(image, bits)
        case "from_one":
            return _from_one(_stored(image, bits), labels)
        case "rgb":
            return _by_color(image, labels)
        case "gray":
            return _by_brightness(image, bits)
        case "binary":
            return _black_or_not(image, labels)
        case "auto":
            if image.mode in _COLOR_MODES:
                return _by_color(image, labels)
            mask = _stored(image, bits)
            _check_meaning(mask, image, labels)
            return mask


def _open(data: bytes) -> tuple[Image.Image, int]:
    """The image in a mask file, and its bits per sample."""
    try:
        with Image.open(io.BytesIO(data), formats=["PNG", "TIFF", "BMP"]) as image:
            bits = _bits(image, data)
            image.load()
        if image.format == "PNG":
            png.verify(data)  # Pillow checks the data's checksums not at all
    except DecodeError as error:
        raise MaskError("unreadable", f"the mask is a damaged PNG ({error.message}); copy or make it again") from error
    except UNREADABLE as error:
        raise MaskError("unreadable", _why_not(data, error)) from error
    return image, bits


def _bits(image: Image.Image, data: bytes) -> int:
    """Bits per sample. Raises MaskError for a TIFF whose numbers are not those that somebody has drawn."""
    if isinstance(image, TiffImageFile):
        compression = int(image.tag_v2.get(TiffImagePlugin.COMPRESSION, 1))
        if compression not in _LOSSLESS:
            raise MaskError(
                "unreadable",
                f"the mask is a TIFF of a compression ({compression}) that may change values and so classes; save "
                "it as PNG, or as TIFF without compression, with LZW or Deflate",
            )
        if int(image.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION, 1)) == _WHITE_IS_ZERO:
            raise MaskError("unreadable", "the mask is a TIFF in which white is 0, so its numbers may be meant either "
                            "way; save it as PNG")  # fmt: skip
        return int(image.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,))[0])
    if image.format == "BMP":
        return 1 if image.mode == "1" else 8
    return data[_BIT_DEPTH_AT]


def _why_not(data: bytes, error: Exception) -> str:
    for magic, kind in ((b"\x89PNG", "PNG"), (b"BM", "BMP"), (b"II*\0", "TIFF"), (b"MM\0*", "TIFF")):
        if data.startswith(magic):
            return f"the mask is a damaged {kind} ({why_unreadable(error)}); copy or make it again"
    if data.startswith(b"\xff\xd8"):
        return "the mask is a JPEG, whose compression changes values near edges and so classes; make it anew as PNG"
    return "the mask is not a PNG, TIFF or BMP; save masks as PNG, of class indices or of the label set's colours"


def _from_one(mask: Mask, labels: LabelSet) -> Mask:
    """0 and 255 mean no label; the classes count from 1."""
    classes = (mask > 0) & (mask < VOID)
    return np.where(classes, mask - np.uint8(1), np.uint8(labels.ignore_index)).astype(np.uint8)


def _stored(image: Image.Image, bits: int) -> Mask:
    """The numbers in the file. The array of `fcn_core.labels.decode_mask`, whose file is open already."""
    if image.mode in _COLOR_MODES:
        raise MaskError(
            "colors_for_indices",
            f"the mask holds colours ({image.format} mode {image.mode}) where class indices are expected; choose mask "
            "coding rgb, or gray if its three channels are equal",
        )
    if image.mode == "P" or (image.mode == "L" and bits == 8):
        return np.array(image)
    raise MaskError(
        "unreadable",
        f"the mask is a {image.format} of mode {image.mode} with {bits} bits, not a palette or 8-bit grey one; choose "
        "mask coding gray if its brightness is the class index, or binary if it tells two classes apart",
    )


def _by_color(image: Image.Image, labels: LabelSet) -> Mask:
    rgb = _rgb(image)
    try:
        return indices_from_rgb(rgb, labels)
    except LabelError as error:
        equal = (rgb[..., 0] == rgb[..., 1]).all() and (rgb[..., 0] == rgb[..., 2]).all()
        hint = "; its three channels are equal: if they are the class index, choose mask coding gray" if equal else ""
        raise MaskError("unknown_colors", f"{error}{hint}") from error


def _by_brightness(image: Image.Image, bits: int) -> Mask:
    """The grey samples as the file stores them: white is 255 in 8 bits, 15 in 4 bits, 1 in 1 bit."""
    mode = image.mode
    if mode == "1":
        return np.asarray(image).astype(np.uint8)
    if mode == "L":
        return np.array(image) // np.uint8(255 // (2**bits - 1))  # Pillow stretches fewer bits to 0..255
    if mode.startswith("I"):
        wide = np.asarray(image)
        if int(wide.max()) > 255:
            raise MaskError(
                "unreadable", f"the mask holds {int(wide.max())}, more than a class index can be; recode it to 0..255"
            )
        return wide.astype(np.uint8)
    rgb = _rgb(image)
    if (rgb[..., 0] != rgb[..., 1]).any() or (rgb[..., 0] != rgb[..., 2]).any():
        raise MaskError("colors_for_indices", "the mask holds colours, not shades of grey; choose mask coding rgb")
    return np.ascontiguousarray(rgb[..., 0])


def _black_or_not(image: Image.Image, labels: LabelSet) -> Mask:
    """0 where the file is black, 1 where it has its other colour. Shades are refused: an edge would be a guess."""
    if labels.num_classes != 2:
        raise MaskError(
            "black_and_white",
            f"label set {labels.name!r} has {labels.num_classes} classes, and a binary mask tells two apart; choose "
            "another mask coding, or a label set of two",
        )
    wide = image.mode.startswith("I") or image.mode == "1"
    pixels = np.asarray(image) if wide else _rgb(image).astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    others = np.unique(pixels[pixels != 0])
    if others.size > 1:
        raise MaskError(
            "unknown_colors",
            f"the mask has {others.size + 1} values or colours, and a binary one has black and one other; choose "
            "another mask coding, or save it without smooth edges",
        )
    mask: Mask = (pixels != 0).astype(np.uint8)
    return mask


def _rgb(image: Image.Image) -> npt.NDArray[np.uint8]:
    if image.mode in ("RGBA", "LA") and image.getextrema()[-1] != (255, 255):
        raise MaskError("unreadable", "the mask is partly transparent, so its colours mean nothing; make it opaque")
    return np.array(image.convert("RGB"))


def _check_meaning(mask: Mask, image: Image.Image, labels: LabelSet) -> None:
    """Refuse numbers that are probably something else than class indices of this label set."""
    flat = image.getpalette("RGB") or [] if image.mode == "P" else []
    palette: list[RGB] = [(flat[i], flat[i + 1], flat[i + 2]) for i in range(0, len(flat), 3)]
    if palette and tuple(palette[: labels.num_classes]) == labels.palette:
        return
    used = [int(value) for value in np.flatnonzero(np.bincount(mask.ravel(), minlength=256))]
    plain = not palette or (palette[0] == (0, 0, 0) and palette[255:] == [(255, 255, 255)])
    if used == [0, 255] and plain and labels.ignore_index == 255:
        raise MaskError(
            "black_and_white",
            "the mask is black and white (only 0 and 255), and 255 would be ignored; choose mask coding binary "
            "if white is class 1, or index if 255 does mean no label",
        )
    if palette:
        _check_palette(used, palette, labels)


def _check_palette(used: list[int], palette: list[RGB], labels: LabelSet) -> None:
    """A file whose colours are all the label set's, at other numbers, is a colour picture that some tool has packed."""
    customary = preset(
        "voc"
    ).palette  # many tools paint indices with it, whatever they mean; others with shades of grey
    if tuple(palette[: len(customary)]) == customary or palette[:32] == [(i, i, i) for i in range(32)]:
        return
    meaning = {color: index for index, color in enumerate(labels.palette)}
    meaning.setdefault(labels.ignore_color, labels.ignore_index)
    colors = {index: palette[index] if index < len(palette) else (0, 0, 0) for index in used}
    if not all(color in meaning for color in colors.values()):
        return
    for index, color in colors.items():
        if meaning[color] != index:
            raise MaskError(
                "other_palette",
                f"the mask's palette paints index {index} in the colour {color} that label set {labels.name!r} gives "
                f"to {meaning[color]}; choose mask coding rgb if the colours count, index if the numbers do",
            )
