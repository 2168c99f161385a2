"""Annotated images for training and evaluation, read through a callable.

A data set never opens a file itself: it is given `read(key) -> bytes`, so the same class serves a folder, a
bucket or a dict in a test. Examples are decoded only when they are asked for.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fcn_core.data.coding_names import MaskCoding
from fcn_core.data.mask_coding import read_mask
from fcn_core.decoding import Decoded, decode
from fcn_core.errors import DataError, DecodeError, LabelError
from fcn_core.labels import LabelSet

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


@dataclass(frozen=True, slots=True)
class Pair:
    """One labelled image that is still to be read: `image` and `mask` are keys for a data set's `read`."""

    name: str
    image: str
    mask: str


class Pairs:
    """Image and mask files, read and decoded when they are asked for.

    `coding` says how masks hold their classes (see `fcn_core.data.mask_coding`); `recode` gives stored indices another
    meaning, such as {11: 255}. Raises DataError, with the key of the file, when an example is asked for that cannot be
    used. Can be pickled if `read` can.
    """

    def __init__(
        self,
        read: Read,
        pairs: Iterable[Pair],
        labels: LabelSet,
        coding: MaskCoding = "auto",
        recode: Mapping[int, int] | None = None,
    ) -> None:
        self.labels = labels
        self.pairs = tuple(pairs)
        self.read = read
        self.coding: MaskCoding = coding
        self.recode = dict(recode or {})

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Example:
        pair = self.pairs[index]
        image = decode_rgb(self._bytes(pair.image), pair.image)
        example = Example(pair.name, image, self._decode_mask(pair))
        check_example(example, self.labels)
        return example

    def mask(self, index: int) -> npt.NDArray[np.uint8]:
        """The mask of an example alone, uint8 [H, W]: its image is not read."""
        pair = self.pairs[index]
        mask = self._decode_mask(pair)
        check_mask(mask, self.labels, pair.name)
        return mask

    def _decode_mask(self, pair: Pair) -> npt.NDArray[np.uint8]:
        data = self._bytes(pair.mask)
        try:
            return read_mask(data, self.labels, self.coding, self.recode)
        except LabelError as error:
            raise DataError(f"{pair.mask}: {error}") from error
        except (DataError, MemoryError):
            raise
        except Exception as error:
            raise _unusable(pair.mask, error) from error

    def _bytes(self, key: str) -> bytes:
        try:
            return self.read(key)
        except (OSError, KeyError) as error:
            raise DataError(f"{key} cannot be read ({error}): check the split's list against the files") from error


def voc_pairs(names: Iterable[str]) -> list[Pair]:
    """PASCAL VOC's places: JPEGImages/<name>.jpg and SegmentationClass/<name>.png."""
    return [Pair(name, f"JPEGImages/{name}.jpg", f"SegmentationClass/{name}.png") for name in names]


def split_names(read: Read, split: str) -> list[str]:
    """The names in ImageSets/Segmentation/<split>.txt, one per line; DataError if there are none or one comes
    twice."""
    key = f"ImageSets/Segmentation/{split}.txt"
    try:
        names = parse_names(read(key))
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise DataError(f"{key} cannot be read ({error}): give the split one image name per line") from error
    if not names:
        raise DataError(f"{key} names no image: give the split one image name per line")
    if len(set(names)) != len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise DataError(f"{key} names {twice!r} more than once: list every image once")
    return names


def parse_names(data: bytes) -> list[str]:
    """One name per line, as in VOC's lists; blank lines mean nothing. Raises UnicodeDecodeError."""
    return [line.strip() for line in data.decode("utf-8-sig").splitlines() if line.strip()]


@dataclass(frozen=True)
class _FolderRead:
    base: Path

    def __call__(self, key: str) -> bytes:
        return (self.base / key).read_bytes()


def folder(root: str | Path) -> Read:
    """A `read` for files below a folder."""
    return _FolderRead(Path(root))


def decode_rgb(data: bytes, name: str) -> npt.NDArray[np.uint8]:
    """Image bytes -> uint8 [H, W, 3] RGB, by the same rules as those of images that are segmented (see
    `fcn_core.decoding.decode`). DataError names the file.
    """
    try:
        return decode_displayed(data, name)[0]
    except (DataError, MemoryError):
        raise
    except Exception as error:  # a decoder's own fault is that of the file: it must be named, and end a training once
        raise _unusable(name, error) from error


def _unusable(name: str, error: Exception) -> DataError:
    return DataError(f"{name} cannot be read ({type(error).__name__}: {error}): replace it or leave it out")


def decode_displayed(
    data: bytes, name: str, decode: Callable[[bytes], Decoded] = decode
) -> tuple[npt.NDArray[np.uint8], int]:
    """The same, and the EXIF orientation (1..8) that the image has been turned by. `decode` is
    `fcn_core.decoding.decode`, here or in a process of its own.
    """
    try:
        decoded = decode(data)
    except DecodeError as error:
        message = error.message.rstrip(".")
        raise DataError(f"{name} cannot be read ({message}): replace it or leave it out") from error
    return np.require(decoded.pixels, requirements=["C", "W"]), decoded.orientation


def check_example(example: Example, labels: LabelSet) -> None:
    """DataError unless image and mask have one size and every mask value is a class or the ignore index."""
    if example.image.shape != (*example.mask.shape, 3):
        raise DataError(
            f"{example.name}: the image is {example.image.shape}, its mask {example.mask.shape}: "
            "they must have one height and width"
        )
    check_mask(example.mask, labels, example.name)


def check_mask(mask: npt.NDArray[np.uint8], labels: LabelSet, name: str) -> None:
    """DataError unless every value of a mask, uint8 [H, W], is a class or the ignore index."""
    strange = strange_values(np.bincount(mask.ravel(), minlength=256), labels)
    if strange:
        raise DataError(
            f"{name}: its mask holds {strange[:5]}, but label set {labels.name!r} has classes "
            f"0..{labels.num_classes - 1} and ignores {labels.ignore_index}: "
            "recode the mask or choose its label set"
        )


def strange_values(counts: npt.NDArray[np.int64], labels: LabelSet) -> list[int]:
    """The values with pixels, of counts by value int64 [256], that are neither a class nor the ignore index."""
    return [int(v) for v in np.flatnonzero(counts) if v >= labels.num_classes and v != labels.ignore_index]
