"""Mask pictures of other tools: PNGs whose colours or numbers have names, read as classes of the target label set."""

import io
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
from PIL import Image

from fcn_core.decoding import png
from fcn_core.decoding.image import MAX_PIXELS
from fcn_core.errors import DecodeError
from fcn_core.labels import RGB, UNREADABLE, Mask, why_unreadable
from pipeline.data.annotations.class_map import ClassMap
from pipeline.data.annotations.regions import RegionError

_COLORS_NAMED = 3
_BIT_DEPTH_AT = 24


def open_png(data: bytes) -> Image.Image:
    """A PNG with its pixels read and its checksums proven. Raises RegionError; also for one over MAX_PIXELS."""
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if image.width * image.height > MAX_PIXELS:
                raise RegionError(f"the mask has {image.width:,} x {image.height:,} pixels, over {MAX_PIXELS:,} in all")
            image.load()
        png.verify(data)
    except DecodeError as error:
        raise RegionError(f"the mask is a damaged PNG ({error.message.rstrip('.')})") from error
    except RegionError:
        raise
    except UNREADABLE as error:
        raise RegionError(f"the mask is no PNG that can be read ({why_unreadable(error)})") from error
    return image


def colors(data: bytes) -> npt.NDArray[np.uint32]:
    """The colours of a PNG, uint32 [H, W], each as 0xRRGGBB. Raises RegionError, also for a partly transparent one."""
    image = open_png(data)
    if image.mode == "P":
        flat = np.array(image.getpalette("RGB") or [], np.uint32).reshape(-1, 3)
        table = np.zeros(256, np.uint32)
        table[: len(flat)] = _packed(flat)
        by_palette: npt.NDArray[np.uint32] = table[np.asarray(image)]
        return by_palette
    if image.mode not in ("RGB", "RGBA", "L", "1"):
        raise RegionError(f"the mask is a PNG of mode {image.mode}, which holds no colours of a table")
    if image.mode == "RGBA" and image.getextrema()[-1] != (255, 255):
        raise RegionError("the mask is partly transparent, so its colours mean nothing")
    return _packed(np.asarray(image.convert("RGB")))


def indices(data: bytes) -> Mask:
    """The numbers of a palette or grey PNG, uint8 [H, W]; of RGB with equal channels. Raises RegionError."""
    image = open_png(data)
    if image.mode == "P" or (image.mode == "L" and data[_BIT_DEPTH_AT] == 8):
        return np.array(image)
    if image.mode == "L":  # Pillow stretches fewer bits to 0..255
        return np.array(image) // np.uint8(255 // (2 ** data[_BIT_DEPTH_AT] - 1))
    if image.mode == "1":
        return np.array(image).astype(np.uint8)
    if image.mode.startswith("I"):
        wide = np.asarray(image)
        if wide.size and int(wide.max()) > 255:
            raise RegionError(f"the mask holds the number {int(wide.max())}, and a class is at most 255")
        return wide.astype(np.uint8)
    if image.mode == "RGB":
        rgb = np.asarray(image)
        if (rgb[..., 0] == rgb[..., 1]).all() and (rgb[..., 0] == rgb[..., 2]).all():
            return np.ascontiguousarray(rgb[..., 0])
    raise RegionError(f"the mask holds colours (PNG mode {image.mode}), not numbers of classes")


def from_colors(data: bytes, table: Mapping[RGB, str], classes: ClassMap, *, unlabelled: Iterable[RGB] = ()) -> Mask:
    """A colour mask by a table of names, uint8 [H, W]. Pixels of the colours `unlabelled` have no label.

    Raises RegionError if a colour is in neither: a mask that was resized smoothly or saved as JPEG means nothing.
    """
    found = colors(data)
    values = {_pack(color): classes.unlabelled for color in unlabelled}
    values |= {_pack(color): classes.value(name) for color, name in table.items()}
    known = np.array(sorted(values), np.uint32)
    places = np.minimum(np.searchsorted(known, found), len(known) - 1)
    strange = found[known[places] != found]
    if strange.size:
        there, counts = np.unique(strange, return_counts=True)
        order = np.argsort(-counts, kind="stable")[:_COLORS_NAMED]
        named = ", ".join(f"{_unpack(int(there[i]))} in {counts[i]:,} pixels" for i in order)
        more = f" and {len(there) - _COLORS_NAMED:,} more" if len(there) > _COLORS_NAMED else ""
        raise RegionError(f"the mask has colours that the table does not name: {named}{more}")
    return np.array([values[int(code)] for code in known], np.uint8)[places]


def from_numbers(mask: Mask, names: Mapping[int, str], classes: ClassMap) -> Mask:
    """Numbers by their names as classes, uint8 [H, W]; 255 has no label. Raises RegionError for one without name."""
    table = np.full(256, classes.labels.ignore_index, np.uint8)
    table[255] = classes.unlabelled
    for number, name in names.items():
        table[number] = classes.value(name)
    counts = np.bincount(mask.ravel(), minlength=256)
    strange = [int(value) for value in np.flatnonzero(counts) if value != 255 and int(value) not in names]
    if strange:
        named = ", ".join(f"{value} in {int(counts[value]):,} pixels" for value in strange[:_COLORS_NAMED])
        raise RegionError(f"the mask has numbers that no class has: {named}")
    return table[mask]


def _packed(rgb: npt.NDArray[np.uint8 | np.uint32]) -> npt.NDArray[np.uint32]:
    wide = rgb.astype(np.uint32)
    packed: npt.NDArray[np.uint32] = (wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]).astype(np.uint32)
    return packed


def _pack(color: RGB) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]


def _unpack(code: int) -> RGB:
    return code >> 16, code >> 8 & 255, code & 255
