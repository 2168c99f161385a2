"""Labelled images for training and evaluation, read through a callable.

A data set never opens a file itself: it is given `read(key) -> bytes`, so the same class serves a folder, a
bucket or a dict in a test. Examples are decoded only when they are asked for.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from fcn_core.errors import DataError, LabelError
from fcn_core.labels import UNREADABLE, LabelSet, decode_mask

Read = Callable[[str], bytes]


@dataclass(frozen=True)
class Example:
    """One labelled image. `image`: uint8 [H, W, 3] RGB; `mask`: uint8 [H, W], class indices or the ignore
    index."""

    name: str
    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8]


class Dataset(Protocol):
    """What the trainer trains on: so many examples of one label set, each by its index."""

    labels: LabelSet

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...


class InMemory:
    """Examples that are already there."""

    def __init__(self, examples: Sequence[Example], labels: LabelSet) -> None:
        self.labels = labels
        self._examples = tuple(examples)
        for example in self._examples:
            check_example(example, labels)

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Example:
        return self._examples[index]


class VOCSegmentation:
    """The layout of PASCAL VOC: JPEGImages/<name>.jpg and SegmentationClass/<name>.png, names listed in a
    split.

    `names` come from a list such as ImageSets/Segmentation/train.txt; see `split_names`. A mask is a palette
    or grey PNG of class indices. Raises DataError, with the name of the file, when an example is asked for
    that cannot be used.
    """

    def __init__(self, read: Read, names: Sequence[str], labels: LabelSet) -> None:
        self.labels = labels
        self.names = tuple(names)
        self._read = read

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Example:
        name = self.names[index]
        image = decode_rgb(self._bytes(f"JPEGImages/{name}.jpg"), f"JPEGImages/{name}.jpg")
        key = f"SegmentationClass/{name}.png"
        try:
            mask = decode_mask(self._bytes(key))
        except LabelError as error:
            raise DataError(f"{key}: {error}") from error
        example = Example(name, image, mask)
        check_example(example, self.labels)
        return example

    def _bytes(self, key: str) -> bytes:
        try:
            return self._read(key)
        except (OSError, KeyError) as error:
            raise DataError(f"{key} cannot be read ({error}): check the split's list against the files") from error


def split_names(read: Read, split: str) -> list[str]:
    """The names in ImageSets/Segmentation/<split>.txt, one a line; DataError if there are none or one comes
    twice."""
    key = f"ImageSets/Segmentation/{split}.txt"
    try:
        names = read(key).decode("utf-8").split()
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise DataError(f"{key} cannot be read ({error}): give the split one image name a line") from error
    if not names:
        raise DataError(f"{key} names no image: give the split one image name a line")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"{key} names {twice!r} more than once: list every image once")
    return names


def folder(root: str | Path) -> Read:
    """A `read` for files below a folder."""
    base = Path(root)
    return lambda key: (base / key).read_bytes()


def decode_rgb(data: bytes, name: str) -> npt.NDArray[np.uint8]:
    """Image bytes -> uint8 [H, W, 3] RGB in displayed (EXIF) orientation, for files one trusts enough to
    train on."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except UNREADABLE as error:
        raise DataError(f"{name} is not a readable JPEG or PNG ({error}): replace it or leave it out") from error


def check_example(example: Example, labels: LabelSet) -> None:
    """DataError unless image and mask have one size and every mask value is a class or the ignore index."""
    if example.image.shape != (*example.mask.shape, 3):
        raise DataError(
            f"{example.name}: the image is {example.image.shape}, its mask {example.mask.shape}: "
            "they must have one height and width"
        )
    found = np.flatnonzero(np.bincount(example.mask.ravel(), minlength=256))
    strange = [int(v) for v in found if v >= labels.num_classes and v != labels.ignore_index]
    if strange:
        raise DataError(
            f"{example.name}: its mask holds {strange[:5]}, but label set {labels.name!r} has classes "
            f"0..{labels.num_classes - 1} and ignores {labels.ignore_index}: "
            "recode the mask or choose its label set"
        )
