"""Listings as Arrow record batches: what planning works on, so that it need not touch ten million keys one by one."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice

import pyarrow as pa

from pipeline.storage.store import ObjectInfo

LISTING_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("etag", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("last_modified", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)
"""One row per object, the fields of `ObjectInfo`."""

BATCH_ROWS = 1000
"""Objects a batch: those of one page of an S3 listing, so that whoever watches the stream may stop it soon."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_batches(listing: Iterable[ObjectInfo]) -> Iterator[pa.RecordBatch]:
    """`listing` in batches of up to BATCH_ROWS rows of LISTING_SCHEMA, in its order; no empty ones."""
    stream = iter(listing)
    while chunk := list(islice(stream, BATCH_ROWS)):
        columns = [
            [info.key for info in chunk],
            [info.etag for info in chunk],
            [info.size for info in chunk],
            [info.last_modified for info in chunk],
        ]
        arrays = [pa.array(values, field.type) for values, field in zip(columns, LISTING_SCHEMA, strict=True)]
        yield pa.RecordBatch.from_arrays(arrays, schema=LISTING_SCHEMA)


def to_infos(rows: pa.RecordBatch | pa.Table) -> list[ObjectInfo]:
    """The objects of a batch, or table, of LISTING_SCHEMA."""
    keys, etags, sizes, modified = (rows.column(name) for name in LISTING_SCHEMA.names)
    # Arrow's own way to a datetime takes five times as long.
    times = [_EPOCH + timedelta(microseconds=value) for value in modified.cast(pa.int64()).to_pylist()]
    return list(map(ObjectInfo, keys.to_pylist(), etags.to_pylist(), sizes.to_pylist(), times))
