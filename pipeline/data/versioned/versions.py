"""The versions of a data set in storage.

    DATASET/labels.json                       its classes, the same in every version
    DATASET/images/<sha256>.jpg               images as they came
    DATASET/masks/<sha256>.png                masks, palette PNGs
    DATASET/versions/<n>/manifest.parquet     one row per image

The one thing to know: nothing is ever overwritten. Files are named by their SHA-256, and a version is there as soon as
its manifest is, which is written last and create-only. So whoever writes first has made version n, and an import that
was killed leaves files that no version names.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa

from fcn_core.text.json_text import parse_json
from pipeline.data.versioned.references import LATEST, split_reference, version_number, with_version
from pipeline.errors import InputError, ObjectExists, ObjectMissing, StorageError, StorageUnavailable
from pipeline.outputs.results import read_table
from pipeline.outputs.seal import to_parquet
from pipeline.sources.opening import open_source
from pipeline.storage.store import Store

SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("image", pa.string(), nullable=False),
        pa.field("mask", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("group", pa.string(), nullable=False),
        pa.field("version", pa.int32(), nullable=False),
    ]
)
_MANIFEST = re.compile(r"versions/([1-9][0-9]{0,8})/manifest\.parquet")
_BY_DIGEST = re.compile(r"(?:images|masks)/([0-9a-f]{64})(?:\.[a-z0-9]{1,5})?")
_NOTES = "fcn_dataset"


@dataclass(frozen=True, slots=True)
class VersionRow:
    """One labelled image. `key`: what people call it. `image`, `mask`: where they are, below the data set's folder.
    `group`: images of one group are near-duplicates and belong into one split. `version`: the one that brought this
    image or its mask as it is now."""

    key: str
    image: str
    mask: str
    split: str
    group: str
    version: int


@dataclass(frozen=True)
class Version:
    """A version of a data set. `notes`: who made it from what, as text by name."""

    number: int
    rows: tuple[VersionRow, ...]
    notes: Mapping[str, str]


def digest_of(key: str) -> str | None:
    """The SHA-256 that the name of a data set's file promises, as hexadecimal digits; None for any other name."""
    match = _BY_DIGEST.fullmatch(key)
    return match[1] if match else None


def numbers(store: Store) -> list[int]:
    """The numbers of the versions that are there, sorted."""
    found = (_MANIFEST.fullmatch(info.key) for info in store.list("versions/"))
    return sorted(int(match[1]) for match in found if match)


def manifest_key(number: int) -> str:
    """Where the manifest of a version is."""
    return f"versions/{number}/manifest.parquet"


def read_version(store: Store, number: int) -> Version:
    """A version with its rows in order. Raises InputError for one that is not there or damaged."""
    try:
        data = store.get(manifest_key(number))
        table = read_table(data, f"{store.uri}: {manifest_key(number)}", SCHEMA.names)
        rows = tuple(
            VersionRow(*values) for values in zip(*(table.column(n).to_pylist() for n in SCHEMA.names), strict=True)
        )
        notes = parse_json((table.schema.metadata or {}).get(_NOTES.encode(), b"{}"))
    except ObjectMissing:
        raise InputError(f"data set {store.uri} has no version {number}{_there(numbers(store))}") from None
    except StorageUnavailable:
        raise
    except (StorageError, ValueError, TypeError) as error:
        raise InputError(str(error)) from error
    return Version(number, rows, {str(name): str(value) for name, value in notes.items()})


def write_version(store: Store, number: int, rows: Sequence[VersionRow], notes: Mapping[str, str]) -> None:
    """Make a version. Raises InputError where somebody else has made one of this number meanwhile."""
    columns = zip(*((r.key, r.image, r.mask, r.split, r.group, r.version) for r in rows), strict=True)
    table = pa.table([pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)], SCHEMA)
    notes = {"created": datetime.now(UTC).isoformat(timespec="seconds"), **notes}
    table = table.replace_schema_metadata({"fcn_schema": "dataset/1", _NOTES: json.dumps(notes)})
    data = to_parquet(table)
    try:
        store.create(manifest_key(number), data)
    except ObjectExists:
        if store.get(manifest_key(number)) != data:
            raise InputError(
                f"version {number} of data set {store.uri} was made by somebody else meanwhile, and nothing of it was "
                "changed; run the command again, which then makes the next one"
            ) from None


def store_file(store: Store, folder: str, data: bytes, suffix: str) -> str:
    """Keep a file under the name of its SHA-256; returns its key."""
    key = f"{folder}/{hashlib.sha256(data).hexdigest()}{suffix}"
    try:
        store.create(key, data)
    except ObjectExists:
        if store.head(key).size != len(data):
            raise InputError(f"{store.uri}/{key} is damaged: it has another size than its bytes; remove it") from None
    return key


def resolve(dataset: str) -> str:
    """`DATASET@latest` as the version that this is now; anything else as it is. Raises InputError."""
    place, version = split_reference(dataset)
    if version != LATEST:
        return dataset
    try:
        found = numbers(open_source(place))
    except StorageError as error:
        raise InputError(str(error)) from error
    if not found:
        raise InputError(f"data set {place} has no versions; make the first one with `fcn data import`")
    return with_version(place, found[-1])


def open_version(dataset: str) -> tuple[Store, Version]:
    """The version that `DATASET@3` or `DATASET@latest` means. Raises InputError."""
    place, version = split_reference(resolve(dataset))
    if version is None:
        raise InputError(f"{dataset} names no version; write {dataset}@latest or {dataset}@1")
    store = open_source(place)
    return store, read_version(store, version_number(version))


def _there(found: Sequence[int]) -> str:
    return f"; it has {found[0]} to {found[-1]}" if found else "; it has none: `fcn data import` makes the first"
