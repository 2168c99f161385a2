"""A manifest: a table that says which image has which mask and belongs to which split.

Parquet or CSV with the columns image, mask and split; further columns are left alone. A key is relative to the folder
of the manifest, or a full URI.
"""

import codecs
import csv
import io
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from fcn_core.text.printable import listed
from pipeline.csv_text import delimiter_of, original
from pipeline.errors import InputError, StorageError
from pipeline.outputs.results import read_table
from pipeline.storage.uri import is_absolute

_TEXT_SUFFIXES = (".csv", ".tsv", ".csv.gz", ".tsv.gz")
SUFFIXES = (".parquet", *_TEXT_SUFFIXES)
COLUMNS = ("image", "mask", "split")

LARGEST_TEXT = 1 << 29
"""Bytes that a packed manifest may have when it is unpacked: millions of rows."""


@dataclass(frozen=True, slots=True)
class Row:
    """One labelled image of a manifest, its keys as they are written there."""

    image: str
    mask: str
    split: str


def parse_manifest(data: bytes, name: str) -> list[Row]:
    """The rows of a manifest in order. Raises InputError that names `name`, and the row where one is at fault."""
    rows = _csv_rows(data, name) if name.lower().endswith(_TEXT_SUFFIXES) else _parquet_rows(data, name)
    found = []
    for number, values in enumerate(rows, 1):
        found.append(_row(values, number, name))
    if not found:
        raise InputError(f"manifest {name} has no rows; give it one row per image")
    return found


def parse_column(data: bytes, name: str, column: str) -> list[str]:
    """The values of one further column, by row, numbers as they are written. Raises InputError where there is no such
    column, or a row has no value."""
    wanted = (column.lower(),)
    is_text = name.lower().endswith(_TEXT_SUFFIXES)
    rows = _csv_rows(data, name, wanted) if is_text else _parquet_rows(data, name, wanted, strings_only=False)
    found = []
    for number, (value,) in enumerate(rows, 1):
        text = "" if value is None else str(value).strip()
        if not text:
            raise InputError(f"manifest {name}: row {number} has no {column}; fill it in or remove the row")
        found.append(text)
    return found


def _row(values: Sequence[object], number: int, name: str) -> Row:
    texts = []
    for column, value in zip(COLUMNS, values, strict=True):
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"manifest {name}: row {number} has no {column}; fill it in or remove the row")
        text = value.strip()
        while column != "split" and text.startswith("./"):  # as `find .` writes it
            text = text[2:].lstrip("/")
        texts.append(text)
    row = Row(*texts)
    for key in (row.image, row.mask):
        parts = key.split("/")
        if not is_absolute(key) and ("\0" in key or any(part in ("", ".", "..") for part in parts)):
            raise InputError(
                f"manifest {name}: row {number} has the key {key!r}, which leads nowhere inside the manifest's folder; "
                "write the path below that folder, or a full URI"
            )
    return row


def _csv_rows(data: bytes, name: str, wanted: Sequence[str] = COLUMNS) -> Iterator[Sequence[object]]:
    try:
        text = _unpacked(data, name).decode("utf-8-sig")
        lines = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter_of(text))
        header = [column.strip() for column in next(lines, [])]
        places = _places(header, name, wanted)
        for line in lines:
            if line:
                yield [original(line[place]) if place < len(line) else "" for place in places]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"manifest {name} is not CSV in UTF-8 ({error}); save it again as such") from error


def _unpacked(data: bytes, name: str) -> bytes:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InputError(f"manifest {name} is in UTF-16; save it as UTF-8")
    if not name.lower().endswith(".gz"):
        return data
    unpacking = zlib.decompressobj(zlib.MAX_WBITS | 16)
    try:
        text = unpacking.decompress(data, LARGEST_TEXT)
    except zlib.error as error:
        raise InputError(f"manifest {name} is damaged: it cannot be unpacked ({error}); pack it again") from error
    if not unpacking.eof:
        what = f"unpacks to more than {LARGEST_TEXT} bytes" if unpacking.unconsumed_tail else "is cut off"
        raise InputError(f"manifest {name} {what}; write it again")
    return text


def _parquet_rows(
    data: bytes, name: str, wanted: Sequence[str] = COLUMNS, *, strings_only: bool = True
) -> Iterator[Sequence[object]]:
    try:
        table = read_table(data, name)
    except StorageError as error:
        raise InputError(f"manifest {name} is not a readable Parquet file; write it again") from error
    places = _places(table.column_names, name, wanted)
    columns = []
    for column, place in zip(wanted, places, strict=True):
        values = table.column(place)
        kind = values.type.value_type if pa.types.is_dictionary(values.type) else values.type
        is_string = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
        if not is_string and (strings_only or not pa.types.is_primitive(kind)):
            raise InputError(f"manifest {name}: column {column} holds {values.type}; it must hold strings")
        columns.append(values.to_pylist())
    yield from zip(*columns, strict=True)


def _places(header: Sequence[str], name: str, wanted: Sequence[str]) -> list[int]:
    """Where each of these columns stands. Capitals do not matter."""
    given, header = header, [column.lower() for column in header]
    for column in wanted:
        if header.count(column) != 1:
            found = f"it has {listed(given)}" if header else "it is empty"
            fault = "has no column" if column not in header else "has more than one column"
            raise InputError(f"manifest {name} {fault} {column!r} ({found}); it needs {', '.join(wanted)}, once each")
    return [header.index(column) for column in wanted]
