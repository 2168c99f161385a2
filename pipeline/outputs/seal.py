"""Checksums that files of an output carry inside: of Parquet tables in their metadata, of JSON records as a field.

The checksum is the SHA-256 of the whole file with 64 zeros in its own place, so every byte counts: rows, statistics
that a query engine trusts, and what says how to read them. Files of 0.1 carry none and are taken as they are. A second
mark says that there is a checksum, so that damage to its name does not make a file look like one of 0.1.
"""

import hashlib
import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fcn_core.text.json_text import parse_json

_SUM, _MARK, _SCHEMA = "fcn_sha256", "fcn_sealed", "fcn_schema"
_BLANK = "0" * 64
LARGEST_RECORD = 1 << 30
"""In bytes. An index's manifest names every part of every model's."""
_BEFORE_PARQUET = f"{_SUM}\x18\x40".encode()  # a string of 64 bytes, as Thrift writes it
_BEFORE_JSON = f'"{_SUM}": "'.encode()


class BrokenSeal(Exception):
    """A file that is not what was written. Says so in the words of a message after the file's name."""

    def __init__(self) -> None:
        super().__init__("is damaged: its bytes do not have the SHA-256 that it was written with")


def to_parquet(table: pa.Table) -> bytes:
    """A table as a Parquet file with its checksum. Equal tables give equal bytes."""
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, table.schema, compression="zstd") as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({_MARK: "1", _SUM: _BLANK})
    return _seal(sink.getvalue(), _BEFORE_PARQUET)


def check_parquet(data: bytes) -> None:
    """Raise BrokenSeal for a Parquet file that has a checksum, and other bytes; for what is no
    Parquet file whatever pyarrow raises."""
    metadata = pq.read_metadata(io.BytesIO(data)).metadata or {}
    # One flipped bit can make a reader pass over all metadata; 0.1 wrote some, so there the bytes themselves are asked.
    lost = _SCHEMA.encode() not in metadata and _BEFORE_PARQUET in data
    if lost or _SUM.encode() in metadata or _MARK.encode() in metadata:
        _check(data, _BEFORE_PARQUET)


def to_json(text: str) -> bytes:
    """`text`, an object in JSON, with its checksum as the last two fields."""
    body = text.rstrip().removesuffix("}").rstrip()
    return _seal(f'{body},\n  "{_MARK}": true,\n  "{_SUM}": "{_BLANK}"\n}}'.encode(), _BEFORE_JSON)


def check_json(data: bytes) -> None:
    """Raise BrokenSeal for an object in JSON that has a checksum, and other bytes; ValueError for what is no JSON."""
    values: Any = parse_json(data, most_bytes=LARGEST_RECORD)
    if isinstance(values, dict) and (_SUM in values or _MARK in values):
        _check(data, _BEFORE_JSON)


def _seal(blank: bytes, before: bytes) -> bytes:
    start = _place(blank, before)
    return blank[:start] + hashlib.sha256(blank).hexdigest().encode() + blank[start + len(_BLANK) :]


def _check(data: bytes, before: bytes) -> None:
    start = _place(data, before)
    if start < len(before):
        raise BrokenSeal
    end = start + len(_BLANK)
    digest = hashlib.sha256(data[:start])
    digest.update(_BLANK.encode())
    digest.update(data[end:])
    if data[start:end] != digest.hexdigest().encode():
        raise BrokenSeal


def _place(data: bytes, before: bytes) -> int:
    """Where the checksum begins: the last such place, for keys and other text of strangers come before it in a file."""
    return data.rfind(before) + len(before)
