"""Target: key lists as Parquet, CSV and text, packed or not. The first byte says which.

Batches of entries come out, or an InputError of one line.
"""

import gzip
import io
from collections.abc import Iterable
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import InputError
from pipeline.segmentation.key_lists import ENTRIES_SCHEMA, read_csv, read_parquet, read_text

MEMORY_MB = 1024


def seeds() -> Iterable[bytes]:
    yield b"t\xef\xbb\xbfa.jpg\r\nb c.jpg\n\n"
    yield b"T" + gzip.compress(b"a.jpg\nb.jpg", mtime=0)
    yield b'ckey,ETag,size,last_modified\n"a\nb.jpg","""x""",3,2026-01-02T03:04:05Z\nb.jpg,,,\n'
    yield b"C" + gzip.compress(b"Key,more\na.jpg,1\n", mtime=0)
    yield b"hb,a.jpg,7\n"
    entries = {
        "key": ["a", "b"],
        "etag": ["x", None],
        "size": [1, 2],
        "last_modified": [datetime(2026, 1, 1, tzinfo=UTC)] * 2,
    }
    for options in ({}, {"compression": "none", "use_dictionary": False}):
        sink = io.BytesIO()
        pq.write_table(pa.table(entries), sink, **options)  # type: ignore[arg-type]
        yield b"p" + sink.getvalue()


def check(data: bytes) -> None:
    kind, content = data[:1], data[1:]
    packed = kind.isupper()
    try:
        if kind == b"p":
            batches = read_parquet("fuzzed", content)
        elif kind in (b"c", b"C"):
            batches = read_csv("fuzzed", content, packed=packed)
        elif kind == b"h":
            batches = read_csv("fuzzed", content, packed=packed, header=["bucket", "key", "size"], more={"bucket": "b"})
        else:
            batches = read_text("fuzzed", content, packed=packed)
        for batch in batches:
            assert batch.schema.names[: len(ENTRIES_SCHEMA)] == ENTRIES_SCHEMA.names
            assert batch["key"].null_count == 0
            assert all(isinstance(key, str) for key in batch["key"].to_pylist())
    except InputError as error:
        refusal = str(error)
    else:
        return
    assert "\n" not in refusal, refusal
    assert len(refusal) < 2000, refusal
