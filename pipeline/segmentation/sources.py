"""Which objects a job looks at: all that a listing of SOURCE finds, or those that a key list names.

A listing of a hundred million objects takes an hour, and finds what the caller may know already. A key list is a
Parquet, CSV or text file that somebody made, or an S3 Inventory, which S3 makes every day. It may be of any order and
repeat itself: it is sorted on this machine's disk first, so that planning sees what a listing would give. What a list
does not tell of an object is asked from the storage, many at once.
"""

import itertools
import re
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from heapq import merge
from operator import itemgetter
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.ipc

from pipeline.errors import InputError, StorageError, StorageUnavailable
from pipeline.segmentation.inventory import is_inventory, read_inventory
from pipeline.segmentation.key_lists import read_key_list
from pipeline.sources.expansion import Opened, expand
from pipeline.spill import read_spill, write_spill
from pipeline.storage.store import ObjectInfo, Store

SORTED_AT_ONCE = 1 << 19
"""Rows in memory while they are sorted: about 200 MB."""

HEADS_AT_ONCE = 32

_AWS_LS = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +\d+ ")

_SPILL_ROWS = 1 << 12  # rows in memory of each file that was put aside, while all of them are merged
_UNKNOWN = datetime(1970, 1, 1, tzinfo=UTC)

_Row = tuple[str, str | None, int | None, datetime | None]
"""The columns of ENTRIES_SCHEMA."""


def objects_of(
    source: Store,
    keys: str | None = None,
    *,
    opens: Callable[[str], bool] | None = None,
    opened: Opened | None = None,
    image_column: str | None = None,
) -> Iterator[ObjectInfo]:
    """The objects of `source`: those that the list at `keys` names, else all of them. In key order, each once.

    In the place of a container that `opens` says of come its members, in their own order; `opened` counts them, and
    `image_column` is as `expand` takes it.

    A named object that is not there comes with an empty etag and no size: reading it gives the row that says so. Raises
    InputError for a list that makes no sense. Memory: one file of the list, and SORTED_AT_ONCE rows.
    """
    objects = source.list() if keys is None else _complete(source, _in_key_order(_batches(source, keys)))
    return objects if opens is None else expand(source, objects, opens, opened, image_column=image_column)


def check_key_list(source: Store, keys: str) -> None:
    """Raise InputError or StorageError if the list at `keys` cannot be read, or names nothing under `source`.

    Looks at its beginning only.
    """
    first = next(_batches(source, keys), None)
    if first is None:
        raise InputError(f"key list {keys} names no object under {source.uri}; check the list, or leave it out")
    _check_first(source, keys, first["key"].slice(0, HEADS_AT_ONCE).to_pylist())


def _check_first(source: Store, uri: str, keys: list[str]) -> None:
    """Raise InputError where none of the first keys is there, and it is plain what was meant instead."""

    def there(key: str) -> bool:
        try:
            return bool(key) and source.head(key) is not None
        except StorageUnavailable:
            raise
        except StorageError:
            return False

    with ThreadPoolExecutor(HEADS_AT_ONCE, "head") as threads:
        if any(threads.map(there, keys)):
            return
    for key in keys:
        if _AWS_LS.match(key):
            raise InputError(
                f"key list {uri} is what `aws s3 ls` prints: {key!r}; keep the names alone (awk '{{print $4}}')"
            )
        for meant in (key.partition("/")[2], key.strip(), unquote(key), key.replace("\\", "/")):
            if meant != key and there(meant):
                raise InputError(
                    f"key list {uri} names {key!r}, which is not under {source.uri}; {meant!r} is. Keys are relative "
                    "to SOURCE: correct one of them"
                )


def _batches(source: Store, keys: str) -> Iterator[pa.RecordBatch]:
    read = read_inventory if is_inventory(keys) else read_key_list
    return (batch for batch in read(source, keys) if len(batch))


def _in_key_order(batches: Iterator[pa.RecordBatch]) -> Iterator[_Row]:
    """The rows sorted by key, each key once; where rows for one key differ, only the key is kept."""
    with tempfile.TemporaryDirectory(prefix="fcn-keys-") as folder:
        sorted_runs = [
            _spill(rows, Path(folder) / f"{number:06d}.arrow") for number, rows in enumerate(_in_runs(batches))
        ]
        # Code points order as UTF-8 bytes, Arrow's order, do.
        rows = merge(*map(_spilled, sorted_runs), key=itemgetter(0))
        for key, same in itertools.groupby(rows, key=itemgetter(0)):
            told = set(same)
            yield told.pop() if len(told) == 1 else (key, None, None, None)


def _in_runs(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(map(len, held)) >= SORTED_AT_ONCE:
            yield pa.Table.from_batches(held)
            held = []
    if held:
        yield pa.Table.from_batches(held)


def _spill(rows: pa.Table, path: Path) -> Path:
    return write_spill(rows.sort_by("key"), path, _SPILL_ROWS)


def _spilled(path: Path) -> Iterator[_Row]:
    for batch in read_spill(path):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _complete(source: Store, rows: Iterator[_Row]) -> Iterator[ObjectInfo]:
    """The rows as objects, with what a listing would have told of them."""

    def complete(row: _Row) -> ObjectInfo:
        key, etag, size, modified = row
        if etag and size is not None and modified is not None:
            return ObjectInfo(key, etag, size, modified)
        try:
            return source.head(key)
        except StorageUnavailable:
            raise
        except StorageError:
            return ObjectInfo(key, "", 0, _UNKNOWN)

    with ThreadPoolExecutor(HEADS_AT_ONCE, "head") as threads:
        while chunk := list(itertools.islice(rows, HEADS_AT_ONCE * 16)):
            yield from threads.map(complete, chunk) if any(None in row for row in chunk) else map(complete, chunk)
