"""Which predictions of an output make a data set, and which split each image goes to.

The one thing to know: an image's place follows from its key alone (a digest), never from the order of rows or from
what else is there. So the same output gives the same data set anywhere, and one that has grown keeps images in their
splits.
"""

import hashlib
import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fcn_core.labels import VOID
from pipeline.data.groups import place_of
from pipeline.data.versioned.splits import TRAIN, VAL, Grouping
from pipeline.jobs.dataset import PredictedOptions
from pipeline.storage.store import ObjectInfo

COLUMNS = ("key", "etag", "size", "last_modified", "status", "mask_key", "mask_sha256", "areas", "confidence")
"""What `choose` needs of results."""

VISIBLE = 0.001
"""The share of an image that a class must have to count as seen in it."""


@dataclass(frozen=True, slots=True)
class PredictedImage:
    """An image of the source as it was segmented, and its mask's place and SHA-256."""

    image: ObjectInfo
    mask_key: str
    mask_sha256: str


def choose(batches: Iterable[pa.RecordBatch], options: PredictedOptions) -> list[PredictedImage]:
    """The images to use, sorted by key, of rows with COLUMNS.

    Those with a mask that has a class, and at least the confidence asked for. With `per_class`, of the images that show
    a class as many, by chance; an image that shows a rare class stays whatever else it shows.
    """
    limited = _FirstOfEachClass(options.per_class) if options.per_class is not None else None
    chosen: list[PredictedImage] = []
    for whole in batches:
        batch = whole.filter(pc.and_(pc.equal(whole["status"], "ok"), pc.is_valid(whole["mask_key"])))
        rows, classes, fractions = _areas(batch)
        has_class = np.bincount(rows[classes != VOID], minlength=len(batch)) > 0
        confidence = batch["confidence"].to_numpy(zero_copy_only=False).astype(np.float64)
        usable = has_class & (np.nan_to_num(confidence, nan=0.0) >= options.min_confidence)
        found: dict[int, PredictedImage] = dict(
            zip(np.flatnonzero(usable).tolist(), _images(batch.filter(pa.array(usable))), strict=True)
        )
        if limited is None:
            chosen += found.values()
            continue
        seen = (classes != VOID) & (fractions >= VISIBLE) & usable[rows]
        for row, class_id in zip(rows[seen].tolist(), classes[seen].tolist(), strict=True):
            limited.offer(class_id, found[row])
    if limited is not None:
        chosen = limited.chosen()
    return sorted(chosen, key=lambda each: each.image.key)


def split_images(
    images: Sequence[PredictedImage], options: PredictedOptions
) -> tuple[Mapping[str, list[PredictedImage]], tuple[str, ...]]:
    """The images of splits train and val, and notes for a person. Raises InputError for a rule that is none."""
    grouping = Grouping(options.group)

    def divided(group_of: Any) -> dict[str, list[PredictedImage]]:
        splits: dict[str, list[PredictedImage]] = {TRAIN: [], VAL: []}
        for each in images:
            splits[VAL if place_of(group_of(each.image.key)) < options.val_share else TRAIN].append(each)
        return splits

    splits = divided(grouping.of)
    if options.val_share > 0 and not all(splits.values()):
        alone = divided(str)
        if all(alone.values()):
            note = (
                f"by groups ({options.group}) all {len(images):,} images would be in one split, so each was put into "
                "one by itself; images that resemble each other may be in both"
            )
            return alone, (note,)
    return {name: found for name, found in splits.items() if found}, ()


class _FirstOfEachClass:
    """Of each class the `size` images whose keys have the smallest digests."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._heaps: dict[int, list[tuple[int, str, PredictedImage]]] = {}

    def offer(self, class_id: int, image: PredictedImage) -> None:
        heap = self._heaps.setdefault(class_id, [])
        key = image.image.key
        # The largest on top: it is the first to go. Keys are unique, so images are never compared.
        item = (-_rank(key), key, image)
        if len(heap) < self._size:
            heapq.heappush(heap, item)
        elif item > heap[0]:
            heapq.heapreplace(heap, item)

    def chosen(self) -> list[PredictedImage]:
        return list({key: image for heap in self._heaps.values() for _, key, image in heap}.values())


def _rank(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(errors="surrogatepass"), digest_size=8).digest())


def _areas(batch: pa.RecordBatch) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Of all entries of `areas`, one after the other: row, class id and fraction."""
    areas = batch["areas"]
    lengths = pc.fill_null(pc.list_value_length(areas), 0).to_numpy(zero_copy_only=False)
    flat = areas.flatten()
    return (
        np.repeat(np.arange(len(batch)), lengths),
        flat.field("class_id").to_numpy(zero_copy_only=False).astype(np.int64),
        flat.field("fraction").to_numpy(zero_copy_only=False),
    )


def _images(batch: pa.RecordBatch) -> list[PredictedImage]:
    columns = (batch[name].to_pylist() for name in ("key", "etag", "size", "last_modified", "mask_key", "mask_sha256"))
    return [PredictedImage(ObjectInfo(*row[:4]), *row[4:]) for row in zip(*columns, strict=True)]
