"""Where a mask lies, and how to read it: the only place that knows both ways.

A row's `mask_key` says it: the name of an object that is the mask, or, in a packed run, a part of the shard's tar:

    masks/1a2b3c4d/cam1/a.jpg.5e6f7a8b.png
    mask_tars/1a2b3c4d/shard-00000042.90abcdef12345678.tar#1536+812

The second is the 812 bytes from byte 1,536 of that file. All that carries a mask's place from the results to a reader
carries this one string, so that packed and unpacked masks can stand side by side in an output.
"""

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.errors import InputError, ObjectChanged, ObjectMissing, StorageError
from pipeline.outputs.current import choose_recipe, current_rows
from pipeline.storage.store import Store

_PART = re.compile(r"(mask_tars/[0-9a-f]{8}/shard-\d{8}\.[0-9a-f]{16}\.tar)#(\d+)\+(\d+)")


@dataclass(frozen=True, slots=True)
class MaskPart:
    """`length` bytes from byte `offset` of the tar `file`."""

    file: str
    offset: int
    length: int

    def __str__(self) -> str:
        return f"{self.file}#{self.offset}+{self.length}"


def mask_part(mask_key: str) -> MaskPart | None:
    """The part of a tar that a row's `mask_key` means; None when the mask is an object of its own."""
    match = _PART.fullmatch(mask_key)
    return MaskPart(match[1], int(match[2]), int(match[3])) if match else None


def mask_file(mask_key: str) -> str:
    """The name under OUTPUT of the file that holds the mask."""
    part = mask_part(mask_key)
    return part.file if part else mask_key


def read_mask(store: Store, mask_key: str) -> bytes:
    """The PNG that a row's `mask_key` stands for, with one request, wherever it lies.

    Raises ObjectMissing when it is not there: its file is gone, or no longer as long as it was.
    """
    part = mask_part(mask_key)
    if part is None:
        return store.get(mask_key)
    try:
        return store.get_range(part.file, part.offset, part.length)
    except ObjectChanged as error:
        raise ObjectMissing(str(error)) from error


@dataclass(frozen=True, slots=True)
class FoundMask:
    """The mask of one image: its PNG, and the row's `mask_key`."""

    mask_key: str
    png: bytes


def find_mask(store: Store, key: str, recipe: str | None = None) -> FoundMask:
    """The current mask of the image `key`, proven to be the one that was committed.

    `recipe` says whose, where there are several; default: the newest run's. Raises InputError when there is none, and
    StorageError when its file has other bytes than were committed.
    """
    record = choose_recipe(store, recipe)
    for row in _rows_of(store, key, record.recipe):
        if row["status"] != "ok":
            raise InputError(f"{key!r} has no mask: {row['error']}: {row['message']}")
        png = read_mask(store, row["mask_key"])
        if hashlib.sha256(png).hexdigest() != row["mask_sha256"]:
            raise StorageError(f"{row['mask_key']} is not the mask that was committed; see `fcn verify`")
        return FoundMask(row["mask_key"], png)
    raise InputError(
        f"{store.uri} has no row for {key!r} of recipe {record.recipe}; give the key as it stands in results"
    )


def _rows_of(store: Store, key: str, recipe: str) -> Iterator[dict[str, str]]:
    columns = ["key", "status", "error", "message", "mask_key", "mask_sha256"]
    for batch in current_rows(store, recipe, columns=columns):
        place = batch["key"].index(key).as_py()
        if place >= 0:
            yield batch.slice(place, 1).to_pylist()[0]
            return
