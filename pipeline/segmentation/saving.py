"""A mask on its way into the output: its row, and the object or the tar that holds it.

Create-only, either way. A mask that is there already was written by a rival, or by a PUT that had worked and was
retried, and is the mask: the row's counts and digest are taken from it. A tar's name says what is in it. Names are of
the run's generation, so what is there is never what a clean-up is about to remove.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fcn_core import LabelSet, Segmentation
from fcn_core.errors import LabelError
from fcn_core.labels import decode_mask
from pipeline.codec.taken_at import TakenAt
from pipeline.errors import NameRefused
from pipeline.outputs.identity import Recipe
from pipeline.outputs.mask_tars import build_tar, member_names, tar_key
from pipeline.outputs.masks import MaskPart
from pipeline.outputs.plan import Shard
from pipeline.outputs.results import ClassArea, ResultRow
from pipeline.storage.store import ObjectInfo, Store, create_or_read, create_own

TAR_BYTES = 1 << 27
"""Masks that a shard's tar takes, in bytes: it is built in memory. What would not fit becomes objects."""


@dataclass(frozen=True)
class PredictedMask:
    """An image with its mask as PNG; the row does not say yet where that lies."""

    row: ResultRow
    png: bytes


def labelled(
    entry: ObjectInfo,
    recipe: Recipe,
    orientation: int,
    taken: TakenAt | None,
    result: Segmentation,
    png: bytes,
    labels: LabelSet,
) -> PredictedMask:
    """The row of an image that was segmented: `png` holds the mask of `result`."""
    height, width = result.mask.shape
    row = ResultRow(
        **identity_columns(entry, recipe),
        status="ok",
        width=width,
        height=height,
        orientation=orientation,
        mask_sha256=hashlib.sha256(png).hexdigest(),
        areas=class_areas(result.areas, labels),
        confidence=result.confidence,
        taken_at=taken.time if taken else None,
        taken_at_offset=taken.offset if taken else None,
    )
    return PredictedMask(row, png)


def save_object(
    output: Store, recipe: Recipe, image: PredictedMask, labels: LabelSet, generation: int = 0
) -> ResultRow:
    """Write a mask as an object of its own; returns the row that says so.

    An object that is there and no mask of this image at all, damaged by other hands, is replaced. Where the store
    refuses the mask's name, it gets its short one.
    """
    usual, short = recipe.mask_keys(image.row.key, image.row.etag, generation)
    try:
        return _save_as(usual, output, image, labels)
    except NameRefused:
        return _save_as(short, output, image, labels)


def _save_as(mask_key: str, output: Store, image: PredictedMask, labels: LabelSet) -> ResultRow:
    row = replace(image.row, mask_key=mask_key)
    there = create_or_read(output, mask_key, image.png)
    if there == image.png:
        return row
    adopted = _adopt(row, there, labels)
    if adopted is not None:
        return adopted
    output.put(mask_key, image.png)
    return row


class ShardTar:
    """The masks of one shard, held until all are there, then written as one tar."""

    def __init__(self, output: Store, recipe: Recipe, shard: Shard, generation: int = 0) -> None:
        self._output = output
        self._generation = generation
        self._recipe = recipe
        self._shard = shard
        self._held: dict[int, PredictedMask] = {}
        self._bytes = 0

    def hold(self, index: int, image: PredictedMask) -> bool:
        """Take the mask of the shard's image `index`; False when there is no room for it.

        Which masks find room depends on the order of the calls, so that must not depend on timing.
        """
        if self._bytes + len(image.png) > TAR_BYTES:
            return False
        self._bytes += len(image.png)
        self._held[index] = image
        return True

    def write(self) -> tuple[dict[int, ResultRow], dict[int, PredictedMask]]:
        """Write the tar, unless nothing is held. Returns the rows by index, and the images that are in no tar.

        These are all, where a file that others have damaged stands in the tar's place: no tar is written over.
        """
        held = dict(sorted(self._held.items()))
        if not held:
            return {}, {}
        names = member_names([entry.key for entry in self._shard.entries])
        data, offsets = build_tar((names[index], image.png) for index, image in held.items())
        key = tar_key(self._recipe, self._shard.number, data, self._generation)
        if not create_own(self._output, key, data):
            return {}, held
        rows = {
            index: replace(image.row, mask_key=str(MaskPart(key, offset, len(image.png))))
            for (index, image), offset in zip(held.items(), offsets, strict=True)
        }
        return rows, {}


def _adopt(row: ResultRow, there: bytes, labels: LabelSet) -> ResultRow | None:
    """The row for the mask that is there, instead of ours; None when that is no mask of this image."""
    try:
        mask = decode_mask(there)
    except LabelError:
        return None
    if mask.shape != (row.height, row.width) or mask.max() >= labels.num_classes:
        return None
    return replace(
        row, mask_sha256=hashlib.sha256(there).hexdigest(), areas=class_areas(count_areas(mask, labels), labels)
    )


def class_areas(areas: npt.NDArray[np.int64], labels: LabelSet) -> tuple[ClassArea, ...]:
    """The classes present in an image, from its pixel counts [n_classes]."""
    total = int(areas.sum())
    return tuple(
        ClassArea(int(class_id), labels.names[class_id], int(areas[class_id]), int(areas[class_id]) / total)
        for class_id in np.flatnonzero(areas)
    )


def count_areas(mask: npt.NDArray[np.uint8], labels: LabelSet) -> npt.NDArray[np.int64]:
    """Pixels of each class in a mask [H, W], as int64 [n_classes]."""
    return np.bincount(mask.ravel(), minlength=labels.num_classes)[: labels.num_classes].astype(np.int64)


def identity_columns(entry: ObjectInfo, recipe: Recipe) -> dict[str, Any]:
    """What a row says of an image before any work."""
    return {
        "key": entry.key,
        "etag": entry.etag,
        "size": entry.size,
        "last_modified": entry.last_modified,
        "model_id": recipe.model_id,
        "params_id": recipe.params_id,
    }
