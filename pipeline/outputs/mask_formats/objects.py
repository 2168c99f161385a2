"""Each mask as an object of its own: `masks/<recipe>/<key>.<etag8>.png`.

A mask that is there already was written by a rival, or by a PUT that had worked and was retried, and is the mask: the
row's counts and digest are taken from it.
"""

import hashlib
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import numpy as np

from fcn_core import LabelSet
from fcn_core.errors import LabelError
from fcn_core.labels import VOID, decode_mask
from pipeline.errors import NameRefused
from pipeline.outputs.areas import class_areas, count_areas
from pipeline.outputs.identity import Identity, Recipe, digest
from pipeline.outputs.mask_formats.base import MaskFile, MaskTarget, PredictedMask
from pipeline.outputs.names import MAX_NAME_BYTES, abridged, of_generation, safe_path
from pipeline.outputs.results import ResultRow
from pipeline.outputs.shard import Shard
from pipeline.storage.store import Store, create_or_read

MAX_SEGMENT_BYTES = 200
"""Longest path segment in a mask's name: local file systems stop at 255 bytes, and the writer's suffix needs room."""

_MASK = re.compile(r"masks/([0-9a-f]{8})/(.*\.[0-9a-f]{8})(?:-([1-9]\d*))?(\.png)", re.DOTALL)


class ObjectMasks:
    """See `base.MaskFormat`. A row's `mask_key` is the object's name."""

    folder = "masks"
    is_shared = False
    overhead_bytes = 0

    def puts(self, images: int, shards: int) -> int:
        return images

    def writer(self, target: MaskTarget) -> "ObjectWriter":
        return ObjectWriter(target)

    def read(self, store: Store, mask_key: str) -> bytes:
        return store.get(mask_key)

    def file(self, mask_key: str) -> str:
        return mask_key

    def is_place(
        self, mask_key: str, recipe: Recipe, image: Identity, shard: int | None, generations: Collection[int]
    ) -> bool:
        return any(mask_key in mask_keys(recipe, *image, each) for each in generations)

    def parse(self, file: str) -> MaskFile | None:
        match = _MASK.fullmatch(file)
        return MaskFile(match[1], match[2] + match[4], int(match[3] or 0)) if match else None

    def names(self, shard: Shard) -> Iterator[str]:
        return (name for entry in shard.entries for name in _names(entry.key, entry.etag))

    def extract(self, data: bytes, mask_key: str) -> bytes:
        return data

    def problems(self, file: str, data: bytes, mask_keys: Sequence[str]) -> Iterator[str]:
        return iter(())


class ObjectWriter:
    """See `base.MaskWriter`."""

    def __init__(self, target: MaskTarget) -> None:
        self._target = target

    def write(self, image: PredictedMask) -> ResultRow:
        """Write a mask as an object; where the store refuses its name, under its short one.

        An object that is there and no mask of this image at all, damaged by other hands, is replaced.
        """
        target = self._target
        usual, short = mask_keys(target.recipe, image.row.key, image.row.etag, target.generation)
        try:
            return self._write_as(usual, image)
        except NameRefused:
            return self._write_as(short, image)

    def add(self, index: int, image: PredictedMask) -> bool:
        return False

    def finish(self) -> tuple[dict[int, ResultRow], dict[int, PredictedMask]]:
        return {}, {}

    def _write_as(self, mask_key: str, image: PredictedMask) -> ResultRow:
        row = replace(image.row, mask_key=mask_key)
        there = create_or_read(self._target.output, mask_key, image.png)
        if there == image.png:
            return row
        adopted = _adopt(row, there, self._target.labels)
        if adopted is not None:
            return adopted
        self._target.output.put(mask_key, image.png)
        return row


def _adopt(row: ResultRow, there: bytes, labels: LabelSet) -> ResultRow | None:
    """The row for the mask that is there, instead of ours; None when that is no mask of this image."""
    try:
        mask = decode_mask(there)
    except LabelError:
        return None
    areas, void = count_areas(mask, labels), int(np.count_nonzero(mask == VOID))
    if mask.shape != (row.height, row.width) or areas.sum() + void != mask.size:
        return None
    return replace(row, mask_sha256=hashlib.sha256(there).hexdigest(), areas=class_areas(areas, labels, void))


def mask_key(recipe: Recipe, key: str, etag: str, generation: int = 0) -> str:
    """Where under OUTPUT the mask of the image `key` with `etag` lives, for a run of that generation.

    Different (key, etag) give different names. Segments that no store would keep apart or inside OUTPUT (`..`, empty,
    control characters) are percent-encoded; names too long for a store are cut and told apart by a hash.
    """
    return mask_keys(recipe, key, etag, generation)[0]


def mask_keys(recipe: Recipe, key: str, etag: str, generation: int = 0) -> tuple[str, str]:
    """`mask_key`, and where the mask lives in a store that refuses that name."""
    usual, short = (f"masks/{recipe.name}/{of_generation(name, generation)}" for name in _names(key, etag))
    return usual, short


def _names(key: str, etag: str) -> tuple[str, str]:
    """A mask's name in the folder of its recipe, whichever that is, in a run of generation 0; and a short one.

    The short one is all hash, for stores that refuse the usual one: too long below OUTPUT, or the name of a folder.
    """
    name = f"{safe_path(key)}.{digest(etag, 8)}.png"
    usual = _shorten(name, MAX_NAME_BYTES - len("masks/01234567/"))
    return usual, f"~{hashlib.sha256(name.encode()).hexdigest()[:32]}.{digest(etag, 8)}.png"


def _shorten(name: str, limit: int) -> str:
    """`name` with what is too long replaced by its beginning and a hash; the suffixes stay."""
    segments = [_cut(segment) if len(segment.encode()) > MAX_SEGMENT_BYTES else segment for segment in name.split("/")]
    short = "/".join(segments)
    return short if len(short.encode()) <= limit else _cut(name)


def _cut(segment: str) -> str:
    suffix = segment[-13:] if segment.endswith(".png") else ""  # ".<etag8>.png", all ASCII
    return abridged(segment, MAX_SEGMENT_BYTES - 13, suffix)
