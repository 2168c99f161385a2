"""The seam for export formats: what an export asks of one.

A format turns one mask into files of its own, or into records of a document about all images, or both. Which images,
their names, reading and writing, and what happens after a kill are the same with every format (`pipeline.exports.job`).
"""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from fcn_core import LabelSet
from fcn_core.errors import LabelError
from fcn_core.labels import VOID, Mask, decode_mask
from pipeline.errors import InputError

Option = Literal["tolerance", "min_area"]


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """tolerance: pixels that a simplified outline may be off. min_area: pixels of the smallest region that is kept."""

    tolerance: float = 0.0
    min_area: int = 0


@dataclass(frozen=True, slots=True)
class ExportContext:
    """What a format is made from."""

    options: ExportOptions = ExportOptions()
    known_labels: LabelSet | None = None

    @property
    def labels(self) -> LabelSet:
        """The classes of all masks, for a format that says `needs_labels`."""
        assert self.known_labels is not None, "the format does not say that it needs labels"
        return self.known_labels


@dataclass(frozen=True)
class MaskedImage:
    """One image of an export. `name` is that of its file, with the format's suffix; `png` its mask as stored.

    `pixels`: the image itself, uint8 [H, W, 3] RGB, for formats that need it.
    """

    key: str
    name: str
    png: bytes
    num_classes: int = 255
    pixels: npt.NDArray[np.uint8] | None = None

    @cached_property
    def mask(self) -> Mask:
        """uint8 [H, W] class indices; pixels without a class are VOID. Raises LabelError for a damaged PNG, and
        InputError for a class that has no name."""
        mask = decode_mask(self.png)
        highest = int(mask[mask != VOID].max(initial=0))
        if highest >= self.num_classes:
            raise InputError(
                f"the mask of {self.key!r} has class {highest}, for which the tables have no name yet; finish the run "
                "by the same `fcn segment`, then export again"
            )
        return mask

    @cached_property
    def palette(self) -> npt.NDArray[np.uint8]:
        """uint8 [256, 3] RGB, the colours in the mask's file. Raises LabelError where it has none."""
        with Image.open(io.BytesIO(self.png), formats=["PNG"]) as mask:
            flat = mask.getpalette("RGB")
        if not flat:
            raise LabelError("the mask has no palette; it was not written by fcn segment")
        return np.array([*flat, *[0] * (768 - len(flat))], np.uint8).reshape(256, 3)


@dataclass(frozen=True, slots=True)
class Exported:
    """What a format makes of an image: the bytes of its file, and records for the document, each a line of text."""

    file: bytes | None = None
    records: Sequence[str] = ()


class ExportFormat(Protocol):
    """One way to write masks. Has no state that changes: one object serves all threads."""

    suffix: ClassVar[str]
    """With a dot: of the names that images get."""

    folder: ClassVar[str | None]
    """Where files of images lie under the destination: "" or ending in "/"; None where images have no files."""

    needs_pixels: ClassVar[bool]
    """Whether it asks for the images themselves, which are then read from the source of their run."""

    needs_labels: ClassVar[bool]
    """Whether it asks for the classes."""

    takes: ClassVar[frozenset[Option]]
    """The options that change what it writes; others are refused."""

    document: ClassVar[str | None]
    """The name of the file about all images that is written last; None where there is none."""

    def __init__(self, context: ExportContext) -> None:
        """One for each export."""

    def write(self, image: MaskedImage) -> Exported:
        """What to write for one image. Called from several threads."""

    def lines(self, records: Iterable[str]) -> Iterator[str]:
        """The text of the document, in pieces, from the records of all images in the order of their keys; these may be
        gone through more than once."""
