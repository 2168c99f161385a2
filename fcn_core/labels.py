"""Label sets, and masks on disk: palette PNGs whose pixel values are class indices.

The one thing to know: a mask is always uint8 class indices, never colours. The palette is only how the file
looks. This module does not import torch, so that processes which only read or write masks stay small.
"""

import io
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fcn_core.decoding import mask_png, png
from fcn_core.decoding.mask_png import MaskStyle
from fcn_core.errors import DecodeError, LabelError
from fcn_core.text.json_text import LARGEST_BYTES, parse_json
from fcn_core.text.printable import printable

Mask = npt.NDArray[np.uint8]
RGB = tuple[int, int, int]

UNREADABLE = (OSError, ValueError, SyntaxError, TypeError, NotImplementedError, Image.DecompressionBombError)
"""All that Pillow raises for a damaged file."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_BIT_DEPTH_AT = 24  # the byte of the IHDR chunk that holds bits per sample


def why_unreadable(error: Exception) -> str:
    """What Pillow says of a damaged file, fit to show a person: not the object that it read from."""
    return "its header makes no sense" if isinstance(error, UnidentifiedImageError) else str(error)


def _color_map(count: int) -> tuple[RGB, ...]:
    """The first `count` colours of the PASCAL VOC kit: the index's bits dealt to R, G, B in turn."""

    def color(index: int) -> RGB:
        channels = [0, 0, 0]
        for bit in range(8):
            channels[bit % 3] |= ((index >> bit) & 1) << (7 - bit // 3)
        return channels[0], channels[1], channels[2]

    return tuple(color(index) for index in range(count))


VOID = 255
"""A pixel without a class in a mask that a model predicted; numbers of classes are at most 254."""

_JOINERS = "\u200c\u200d"
"""Characters without width of their own that spelling needs, in Persian and in the languages of India."""
_SPACES = "Zs"
"""The Unicode category of spaces. Python calls all but one unprintable; French and Japanese names have others."""


class LabelSet(BaseModel):
    """What the class indices of a mask mean, and how a mask file is coloured.

    `names[i]` and `palette[i]` (RGB, 0..255) belong to class i. Pixels of value `ignore_index` have no label:
    they are left out of losses and scores, and are drawn in `ignore_color`.

    Raises LabelError when built from values that cannot be right.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    names: tuple[str, ...]
    palette: tuple[RGB, ...]
    ignore_index: int = 255
    ignore_color: RGB = (224, 224, 192)

    def __init__(self, **values: object) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            reason = first["msg"].removeprefix("Value error, ")
            raise LabelError(
                f"label set {values.get('name', '(unnamed)')!r}: {where + ': ' if where else ''}{reason}"
            ) from error

    @model_validator(mode="after")
    def _consistent(self) -> "LabelSet":
        count = len(self.names)
        if not 1 <= count <= 255:
            raise ValueError(f"it has {count} classes; a mask of bytes holds 1 to 255 and the ignore index")
        if any(not name.strip() for name in self.names):
            raise ValueError(f"class {next(i for i, n in enumerate(self.names) if not n.strip())} has an empty name")
        for name in (self.name, *self.names):
            if not all(c.isprintable() or c in _JOINERS or unicodedata.category(c) == _SPACES for c in name):
                raise ValueError(
                    f"the name {printable(name)} has a character that does not print (a line break, a tab, an escape "
                    "sequence, a turn of direction); names are printed, so leave it out"
                )
        if len(set(self.names)) != count:
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise ValueError(f"the class name {twice!r} occurs more than once; names must be unique")
        if len(self.palette) != count:
            raise ValueError(f"it has {count} names but {len(self.palette)} colours; give one colour per name")
        for color in (*self.palette, self.ignore_color):
            if not all(0 <= value <= 255 for value in color):
                raise ValueError(f"the colour {color} is not in 0..255")
        if not 0 <= self.ignore_index <= 255:
            raise ValueError(f"the ignore index {self.ignore_index} does not fit a byte")
        if self.ignore_index < count:
            raise ValueError(
                f"the ignore index {self.ignore_index} is also class {self.names[self.ignore_index]!r}; use 255: take "
                "that name out if it is no class. Masks whose classes count from 1, with 0 for no label, are read with "
                "mask coding from_one; others need 255 where nothing is annotated"
            )
        return self

    @property
    def num_classes(self) -> int:
        """How many classes there are; the ignore index is not one."""
        return len(self.names)

    @property
    def void_name(self) -> str:
        """What tables call pixels of predictions that have no class: "void", unless that is a class."""
        return void_name(self.names)

    def of_masks(self, void_below: float) -> "LabelSet":
        """The label set of a model's masks: where pixels can be void, their number is VOID, whatever the data set's."""
        return self.model_copy(update={"ignore_index": VOID}) if void_below else self

    def flat_palette(self) -> bytes:
        """All 256 palette entries as 768 bytes, R G B each; indices that mean nothing are black."""
        entries = bytearray(768)
        for index, color in enumerate(self.palette):
            entries[3 * index : 3 * index + 3] = bytes(color)
        entries[3 * self.ignore_index : 3 * self.ignore_index + 3] = bytes(self.ignore_color)
        return bytes(entries)

    def mask_style(self) -> MaskStyle:
        """What writing a mask takes of this label set."""
        return MaskStyle(self.name, self.num_classes, self.ignore_index, self.flat_palette())


def void_name(names: Sequence[str]) -> str:
    """What tables call pixels without a class, beside classes of these names."""
    return "void" if "void" not in names else "(no class)"


_VOC_NAMES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip

_CAMVID: Mapping[str, RGB] = {
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "sidewalk": (0, 0, 192),
    "tree": (128, 128, 0),
    "sign": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "cyclist": (0, 128, 192),
}

_CITYSCAPES: Mapping[str, RGB] = {
    "road": (128, 64, 128),
    "sidewalk": (244, 35, 232),
    "building": (70, 70, 70),
    "wall": (102, 102, 156),
    "fence": (190, 153, 153),
    "pole": (153, 153, 153),
    "traffic light": (250, 170, 30),
    "traffic sign": (220, 220, 0),
    "vegetation": (107, 142, 35),
    "terrain": (152, 251, 152),
    "sky": (70, 130, 180),
    "person": (220, 20, 60),
    "rider": (255, 0, 0),
    "car": (0, 0, 142),
    "truck": (0, 0, 70),
    "bus": (0, 60, 100),
    "train": (0, 80, 100),
    "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
}

_BLACK = (0, 0, 0)

_PRESETS: Mapping[str, LabelSet] = MappingProxyType(
    {
        "voc": LabelSet(name="voc", names=_VOC_NAMES, palette=_color_map(len(_VOC_NAMES))),
        "camvid": LabelSet(name="camvid", names=tuple(_CAMVID), palette=tuple(_CAMVID.values()), ignore_color=_BLACK),
        "cityscapes": LabelSet(
            name="cityscapes",
            names=tuple(_CITYSCAPES),
            palette=tuple(_CITYSCAPES.values()),
            ignore_color=_BLACK,
        ),
    }
)

PRESETS: tuple[str, ...] = tuple(_PRESETS)
"""Names that `preset` knows."""


def preset(name: str) -> LabelSet:
    """A well-known label set: PASCAL VOC (21 classes), CamVid (11) or Cityscapes train ids (19).

    Raises LabelError for a name not in PRESETS.
    """
    if name not in _PRESETS:
        raise LabelError(f"there is no label set {name!r}; choose one of {', '.join(PRESETS)}")
    return _PRESETS[name]


def find_labels(name: str) -> LabelSet:
    """A label set by what a person calls it: the name of a preset, or a JSON file of one's own.

    The file holds the fields of a LabelSet, as in a bundle's model.json: {"name": "roofs", "names": ["other", "roof"]}.
    Without a "palette", classes get the colours that PASCAL VOC would give them; without a "name", it is the file's.

    Raises LabelError for neither, or for a file that holds something else.
    """
    if name in _PRESETS:
        return _PRESETS[name]
    path = Path(name)
    if path.suffix != ".json":
        raise LabelError(f"there is no label set {name!r}; choose one of {', '.join(PRESETS)}, or give a .json file")
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_BYTES + 1)
    except OSError as error:
        raise LabelError(f"cannot read the label set {path} ({error.strerror}); check the path") from error
    return parse_labels(data, str(path))


def parse_labels(data: bytes, source: str) -> LabelSet:
    """The label set in the bytes of a JSON file, see `find_labels`; `source` names the file in a LabelError."""
    try:
        values = parse_json(data, object_pairs_hook=_each_once)
    except LabelError as error:
        raise LabelError(f"{source}: {error}") from error
    except ValueError as error:
        raise LabelError(f"the label set {source} is not JSON ({error})") from error
    if not isinstance(values, dict) or not isinstance(values.get("names"), list):
        raise LabelError(f'the label set {source} must be an object with "names", a list of the classes')
    given = {"name": PurePosixPath(source).stem or "labels", "palette": _color_map(len(values["names"]))}
    try:
        return LabelSet(**{**given, **values})
    except LabelError as error:
        raise LabelError(f"{source}: {error}") from error


def _each_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object whose names are there once each. Of two of one name JSON readers take the last and say nothing."""
    values: dict[str, object] = {}
    for name, value in pairs:
        if name in values:
            raise LabelError(f"a label set has {name[:80]!r} twice; take one out")
        values[name] = value
    return values


def encode_mask(mask: Mask, labels: LabelSet) -> bytes:
    """A mask as a palette PNG with all 256 palette entries; the same mask and labels give the same bytes.

    mask: uint8 [H, W] of class indices or `labels.ignore_index`, at least 1x1. Runs of equal pixels are
    what is compressed.
    Raises LabelError for any other array, or for a value that is neither a class nor the ignore index.
    """
    return mask_png.encode(mask, labels.mask_style())


def decode_mask(data: bytes) -> Mask:
    """The class indices of a palette or 8-bit grey PNG, uint8 [H, W].

    Values are returned as they are stored: whether they fit a label set is for the caller to check.
    Raises LabelError for anything that is not a readable PNG of that kind.
    """
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.load()
            mode, indices = image.mode, np.array(image)
        png.verify(data)  # Pillow checks the data's checksums not at all
    except DecodeError as error:
        raise LabelError(f"the mask is a damaged PNG ({error.message}); copy or make it again") from error
    except UNREADABLE as error:
        kind = "a damaged PNG" if data.startswith(_PNG_SIGNATURE) else "not a PNG"
        raise LabelError(
            f"the mask is {kind} ({why_unreadable(error)}); masks are palette PNGs of class indices"
        ) from error
    if mode == "P":
        return np.ascontiguousarray(indices, dtype=np.uint8)
    if mode == "L":
        # Grey samples of fewer bits are stretched to 0..255 on reading, so class 1 of 4 bits would come back
        # as 17.
        if data[_PNG_BIT_DEPTH_AT] != 8:
            raise LabelError(
                f"the mask is a grey PNG of {data[_PNG_BIT_DEPTH_AT]} bits, whose values a reader rescales;"
                " save it as an 8-bit palette or grey PNG"
            )
        return np.ascontiguousarray(indices, dtype=np.uint8)
    if mode.startswith("RGB"):
        raise LabelError(
            f"the mask holds colours (PNG mode {mode}), not class indices; convert it with indices_from_rgb"
        )
    raise LabelError(f"the mask is a PNG of mode {mode}; save it as an 8-bit palette or grey PNG of class indices")


def indices_from_rgb(rgb: npt.NDArray[np.uint8], labels: LabelSet) -> Mask:
    """Class indices, uint8 [H, W], of a colour-coded mask, uint8 [H, W, 3]; `ignore_color` becomes
    `ignore_index`.

    Raises LabelError if a colour belongs to no class (naming the commonest), or to two.
    """
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        raise LabelError(f"a colour-coded mask must be uint8 [H, W, 3], not {rgb.dtype} {list(rgb.shape)}")
    meanings: dict[int, int] = {}
    for index, color in [*enumerate(labels.palette), (labels.ignore_index, labels.ignore_color)]:
        if meanings.setdefault(_pack(color), index) != index:
            raise LabelError(
                f"label set {labels.name!r} gives the colour {color} to both {meanings[_pack(color)]}"
                f" and {index}, so colours cannot be told apart; give each class its own"
            )
    known = np.array(sorted(meanings), dtype=np.uint32)
    indices = np.array([meanings[int(code)] for code in known], dtype=np.uint8)

    codes = rgb.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.uint32)
    positions = np.minimum(np.searchsorted(known, codes), len(known) - 1)
    strange = codes[known[positions] != codes]
    if strange.size:
        colors, counts = np.unique(strange, return_counts=True)
        order = np.argsort(-counts, kind="stable")[:3]
        listed = ", ".join(f"{_unpack(int(colors[i]))} in {counts[i]} pixels" for i in order)
        more = f" and {len(colors) - 3} more colours" if len(colors) > 3 else ""
        raise LabelError(
            f"the mask has colours that label set {labels.name!r} does not: {listed}{more};"
            " check the label set, and that the mask was not resized smoothly or saved as JPEG"
        )
    return indices[positions]


def _pack(color: RGB) -> int:
    return color[0] << 16 | color[1] << 8 | color[2]


def _unpack(code: int) -> RGB:
    return code >> 16, code >> 8 & 255, code & 255
