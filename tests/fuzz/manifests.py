"""Target: manifests of data sets, CSV and Parquet, and those of S3 inventories. The first byte says which.

Rows come out, or an InputError of one line.
"""

import io
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data.manifest import parse_manifest
from pipeline.errors import InputError
from pipeline.segmentation.inventory import parse_inventory

MEMORY_MB = 1024

_INVENTORY = b"""{"sourceBucket": "b", "destinationBucket": "arn:aws:s3:::d", "version": "2016-11-30",
"fileFormat": "CSV", "fileSchema": "Bucket, Key, Size, ETag", "files": [{"key": "x.csv.gz", "MD5checksum": "f1"}]}"""


def seeds() -> Iterable[bytes]:
    rows = {"image": ["a.jpg", "s3://b/c.jpg"], "mask": ["a.png", "/c.png"], "split": ["train", "val"]}
    yield b"cimage,mask,split\r\na.jpg,a.png,train\n"
    yield b'c\xef\xbb\xbfsplit,"image",mask,more\n"x","a,""b\n.jpg",m.png,1,2,3\n'
    for options in ({}, {"compression": "none"}, {"use_dictionary": False, "version": "1.0"}):
        sink = io.BytesIO()
        pq.write_table(pa.table(rows), sink, **options)  # type: ignore[arg-type]
        yield b"p" + sink.getvalue()
    yield b"i" + _INVENTORY


def check(data: bytes) -> None:
    kind, content = data[:1], data[1:]
    try:
        if kind == b"i":
            found = parse_inventory(content, "fuzzed")
            assert all(isinstance(file.key, str) for file in found.files)
        else:
            rows = parse_manifest(content, "fuzzed.parquet" if kind == b"p" else "fuzzed.csv")
            assert rows
            assert all(row.image and row.mask and row.split for row in rows)
    except InputError as error:
        refusal = str(error)
    else:
        return
    assert "\n" not in refusal, refusal
    assert len(refusal) < 2000, refusal
