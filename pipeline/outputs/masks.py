"""A mask by its row's `mask_key`, whatever the format that it was written in (`mask_formats`).

    masks/1a2b3c4d/cam1/a.jpg.5e6f7a8b.png
    mask_tars/1a2b3c4d/shard-00000042.90abcdef12345678.tar#1536+812

The first is an object that is the mask; the second is the 812 bytes from byte 1,536 of that file. Whatever carries a
mask's place from the results to a reader carries this one string.
"""

import hashlib
import itertools
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputError, StorageError
from pipeline.outputs.compact import read_late
from pipeline.outputs.current import choose_variant, current_records
from pipeline.outputs.identity import Recipe
from pipeline.outputs.index import IndexReader, read_history
from pipeline.outputs.mask_formats import format_of
from pipeline.outputs.results import read_table, shard_key
from pipeline.storage.store import Store


def mask_file(mask_key: str) -> str:
    """The name under OUTPUT of the file that holds the mask."""
    return format_of(mask_key).file(mask_key)


def read_mask(store: Store, mask_key: str) -> bytes:
    """The PNG that a row's `mask_key` stands for, with one request, in whatever format it was written.

    Raises ObjectMissing when it is not there: its file is gone, or no longer as long as it was.
    """
    return format_of(mask_key).read(store, mask_key)


@dataclass(frozen=True, slots=True)
class FoundMask:
    """The mask of one image: its PNG, and the row's `mask_key`."""

    mask_key: str
    png: bytes


def find_mask(store: Store, key: str, recipe: str | None = None) -> FoundMask:
    """The current mask of the image `key`, proven to be the one that was committed.

    `recipe` says whose, where there are several; default: the current one. Raises InputError when there is none, and
    StorageError when its file has other bytes than were committed.
    """
    records = current_records(store) if recipe is None else (choose_variant(store, recipe),)
    rows = (_newest_row(store, key, Recipe(record.model_id, record.params_id)) for record in records)
    row = next((row for row in rows if row is not None), None)
    if row is None:
        names = " or ".join(record.recipe for record in records)
        raise InputError(f"{store.uri} has no row for {key!r} of recipe {names}; give the key as it stands in results")
    if row["status"] != "ok":
        raise InputError(f"{key!r} has no mask: {row['error']}: {row['message']}")
    png = read_mask(store, row["mask_key"])
    if hashlib.sha256(png).hexdigest() != row["mask_sha256"]:
        raise StorageError(f"{row['mask_key']} is not the mask that was committed; see `fcn verify`")
    return FoundMask(row["mask_key"], png)


def _newest_row(store: Store, key: str, recipe: Recipe) -> dict[str, Any] | None:
    """What the newest run says of an image: found by the index, and in the files that came after it."""
    history = read_history(store)

    def of_image(table: pa.Table) -> pa.Table:
        wanted = {"key": key, "model_id": recipe.model_id, "params_id": recipe.params_id}
        for name in wanted.keys() & set(table.column_names):
            table = table.filter(pc.equal(table[name], wanted[name]))
        return table

    tables = itertools.chain(IndexReader(store, history, recipe).between(key, key), read_late(store, history))
    places = [
        (row["run_id"], row["shard"])
        for table in tables
        for row in of_image(table).select(["run_id", "shard"]).to_pylist()
    ]
    if not places:
        return None
    file = shard_key("results", *max(places))
    (row, *_) = of_image(read_table(store.get(file), file)).to_pylist()
    return dict(row)
