"""How often classes occur in the masks of a data set: counted once, for balanced losses and balanced sampling."""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fcn_core.data.datasets import Dataset, Pairs
from fcn_core.errors import DataError

READS_AT_ONCE = 16
_BLOCK = 1024


@dataclass(frozen=True)
class ClassPresence:
    """Which classes each image of a data set holds, a bit per image and class: `bits` has its rows one after the other.

    At most 32 bytes per image.
    """

    classes: int
    bits: bytes

    @classmethod
    def of(cls, present: npt.NDArray[np.bool_]) -> "ClassPresence":
        """Of a table bool [images, classes]."""
        return cls(present.shape[1], np.packbits(present, axis=1).tobytes())

    def table(self) -> npt.NDArray[np.bool_]:
        """bool [images, classes]."""
        rows = np.frombuffer(self.bits, np.uint8).reshape(-1, -(-self.classes // 8))
        return np.unpackbits(rows, axis=1, count=self.classes).astype(bool)

    def digest(self) -> str:
        """32 hexadecimal digits that two tables share only if they are equal."""
        return hashlib.blake2b(f"{self.classes}\n".encode() + self.bits, digest_size=16).hexdigest()


@dataclass(frozen=True)
class ClassPixels:
    """How often classes occur in the masks of a data set.

    `pixels`: labelled with each class, int64 [num_classes]; `of_images`: all pixels, ignored ones too, of the images
    that hold it, int64 [num_classes]; `presence`: which images hold it.
    """

    pixels: npt.NDArray[np.int64]
    of_images: npt.NDArray[np.int64]
    presence: ClassPresence


def class_pixels(dataset: Dataset) -> ClassPixels:
    """Count the pixels of each class. Reads the masks only. Raises DataError for a mask that cannot be used."""
    classes = dataset.labels.num_classes
    pixels, of_images = np.zeros(classes, np.int64), np.zeros(classes, np.int64)
    present = np.zeros((len(dataset), classes), bool)
    for index, (counts, size) in enumerate(_counts(dataset)):
        pixels += counts
        of_images += np.where(counts > 0, size, 0)
        present[index] = counts > 0
    return ClassPixels(pixels, of_images, ClassPresence.of(present))


def _counts(dataset: Dataset) -> Iterator[tuple[npt.NDArray[np.int64], int]]:
    """Pixels by class, int64 [num_classes], and all pixels, of each mask in order."""
    mask_of: Callable[[int], npt.NDArray[np.uint8]]
    mask_of = dataset.mask if isinstance(dataset, Pairs) else lambda index: dataset[index].mask
    classes = dataset.labels.num_classes

    def count(index: int) -> tuple[npt.NDArray[np.int64], int]:
        mask = mask_of(index)
        return np.bincount(mask.ravel(), minlength=256)[:classes].astype(np.int64), mask.size

    with ThreadPoolExecutor(READS_AT_ONCE, thread_name_prefix="masks") as threads:
        # In blocks, so that what is queued does not grow with the data set.
        for first in range(0, len(dataset), _BLOCK):
            yield from threads.map(count, range(first, min(first + _BLOCK, len(dataset))))


def check_presence(presence: ClassPresence, images: int, classes: int) -> None:
    """Raise DataError unless the table is one of so many images and classes."""
    if presence.classes != classes or len(presence.bits) != images * -(-classes // 8):
        raise DataError(
            f"the table of classes per image is not one of {images} images and {classes} classes: count it anew"
        )
