"""Containers of images for tests: tars as WebDataset's own writer makes them, and by hand; Parquet files."""

import io
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import webdataset

from pipeline.sources.expansion import expand
from pipeline.sources.opening import open_source
from pipeline.sources.source import Source
from pipeline.storage.store import ObjectInfo
from tests.samples import fill, jpeg


def tar_of(members: Iterable[tuple[str, bytes]], format: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar by Python's own writer."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=format) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return sink.getvalue()


def write_webdataset(path: Path, count: int, *, start: int = 0, size: tuple[int, int] = (96, 72)) -> dict[str, bytes]:
    """`count` images, each with a .json and a .txt beside it, as img2dataset lays them out; returns the images by their
    names in the tar."""
    images = {f"{index:09d}": jpeg(*size, seed=index) for index in range(start, start + count)}
    path.parent.mkdir(parents=True, exist_ok=True)
    with webdataset.TarWriter(str(path)) as tar:
        for key, data in images.items():
            tar.write({"__key__": key, "jpg": data, "json": {"caption": key}, "txt": "a street"})
    return {f"{key}.jpg": data for key, data in images.items()}


def parquet_of(columns: Mapping[str, Any], rows: int | None = None, compression: str = "snappy") -> bytes:
    """A Parquet file of these columns, `rows` to a row group."""
    sink = io.BytesIO()
    pq.write_table(pa.table(dict(columns)), sink, row_group_size=rows, compression=compression)
    return sink.getvalue()


def fill_all_kinds(folder: Path, count: int, size: tuple[int, int] = (96, 72)) -> None:
    """`count` images, a third of them loose, a third in a tar and the rest in a Parquet file."""
    third = count // 3
    fill(folder, third, size=size)
    write_webdataset(folder / "tar.tar", third, start=third, size=size)
    rest = [jpeg(*size, seed=index) for index in range(2 * third, count)]
    names = [f"{index}.jpg" for index in range(len(rest))]
    (folder / "parquet.parquet").write_bytes(parquet_of({"key": names, "image": rest}, rows=6))


def opened(folder: Path, files: Mapping[str, bytes] | None = None) -> tuple[Source, list[ObjectInfo]]:
    """A folder, with these files written to it, as a source, and its listing with every container opened."""
    for name, data in (files or {}).items():
        (folder / name).write_bytes(data)
    source = open_source(str(folder))
    return source, list(expand(source, source.list(), lambda key: True))


def read_all(source: Source, entries: Sequence[ObjectInfo]) -> dict[str, bytes]:
    """The bytes of all entries, read as a shard's are."""
    with source.expecting(entries):
        return {entry.key: source.get(entry.key, size=entry.size, etag=entry.etag) for entry in entries}
