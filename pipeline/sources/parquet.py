"""Parquet files with images in a column: of bytes, or of Hugging Face's struct of bytes and path.

The one thing to know: planning reads the footer and the column of names alone, so an image's size in the plan is the
mean of its row group. Its bytes are read when it is segmented, row after row of a row group.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.parquet as pq

from fcn_core.text.printable import printable
from pipeline.errors import ImageError, InputError, StorageError
from pipeline.sources.kind import NoImages
from pipeline.sources.member import Address, Fault, Member
from pipeline.sources.range_scanner import RangeScanner, ScanStopped
from pipeline.storage.store import Store

FOOTER_BYTES = 1 << 26
"""Of a file's metadata; that of a million columns has less."""

IMAGE_COLUMNS = frozenset({"image", "images", "img", "jpg", "jpeg", "png", "webp", "image_bytes", "bytes", "content"})
"""Names, in lower case, of columns of bytes that are taken for images without being asked for."""

NAME_COLUMNS = ("__key__", "key", "image_id", "id", "uid", "file_name", "filename", "name")
"""Columns that name the rows, the first of them that is there; else the path in the images' struct."""

LONGEST_NAME = 1024
_ROWS_AT_ONCE = 1 << 13
_BUFFER_BYTES = 1 << 20
_PLACE = re.compile(r"(\d{1,9})\.(\d{1,12})@(.*)", re.DOTALL)

_EXPLANATIONS: Mapping[str, str] = {
    "truncated": "the file has no end that a Parquet file has, so nothing of it could be read; copy it again",
    "encrypted": "the file is encrypted, and nothing of it could be read; write it without encryption",
    "footer_too_long": "the footer is longer than any file needs, so nothing of it was read",
    "no_bytes": "its column of images has no bytes in any row, and perhaps paths of files elsewhere; write the file "
    "with the images in it, or give the folder that they are in as SOURCE",
    "damaged": "the file is damaged: its footer or the names of row group {at} on could not be read; copy it again",
}


class ParquetKind:
    """See `pipeline.sources.kind.ContainerKind`. A member's place is `<row group>.<row>@<column>`."""

    suffix = ".parquet"
    holds_others = False
    span_bytes: int | None = None

    def members(self, file: RangeScanner, image_column: str | None = None) -> Iterator[Member | Fault]:
        tail = file.read(max(0, file.size - 8), 8)
        if tail[4:] == b"PARE":
            yield Fault("encrypted", file.size)
        elif file.size < 12 or tail[4:] != b"PAR1":
            yield Fault("truncated", file.size)
        elif int.from_bytes(tail[:4], "little") > FOOTER_BYTES:
            yield Fault("footer_too_long", file.size)
        else:
            group = 0
            try:
                opened = _open(file)
                column = _image_column(opened.schema_arrow, image_column, file.key)
                names = _names_column(opened.schema_arrow, column)
                if _is_empty(opened.metadata, column):
                    yield Fault("no_bytes", 0)
                    return
                for group in range(opened.metadata.num_row_groups):
                    yield from _rows(opened, group, column, names)
            except (StorageError, InputError, NoImages, ScanStopped):
                raise
            except Exception as error:  # Arrow answers damaged bytes with errors of many kinds
                yield Fault("encrypted" if "encrypt" in str(error).lower() else "damaged", group)

    def follows(self, first: Address, second: Address) -> bool:
        (group, row, column), (next_group, next_row, next_column) = _place(first), _place(second)
        return column == next_column and (group, row) < (next_group, next_row)

    def read(self, store: Store, places: Sequence[Address]) -> Iterator[bytes | ImageError]:
        place = places[0]
        file = _open(RangeScanner.of(store, place.container, place.etag, place.size))
        wanted = [_place(place) for place in places]
        at = 0
        while at < len(wanted):
            group, _, column = wanted[at]
            end = next((i for i in range(at, len(wanted)) if wanted[i][0] != group), len(wanted))
            rows = [row for _, row, _ in wanted[at:end]]
            found = 0
            try:
                for data in _images(file, group, column, rows):
                    found += 1
                    yield data
            except (StorageError, ScanStopped):
                raise
            except Exception as error:  # as above
                reason = printable(str(error))[:200]
            else:
                reason = "it has fewer rows than it says"
            for row in rows[found:]:
                yield ImageError(
                    "damaged",
                    f"{printable(place.container)}: row {row} of row group {group} could not be read ({reason}).",
                )
            at = end

    def explain(self, fault: Fault) -> str:
        return _EXPLANATIONS.get(fault.slug, "it could not be read").format(at=f"{fault.at:,}")


class _RangeFile(io.RawIOBase):
    """A scanner as the file that Arrow wants."""

    def __init__(self, scanner: RangeScanner) -> None:
        self._scanner = scanner
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        self._at = offset + (0, self._at, self._scanner.size)[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        data = self._scanner.read(self._at, self._scanner.size - self._at if size is None or size < 0 else size)
        self._at += len(data)
        return data


def _open(scanner: RangeScanner) -> pq.ParquetFile:
    file = pa.PythonFile(_RangeFile(scanner), "r")
    return pq.ParquetFile(
        file,
        pre_buffer=False,
        buffer_size=_BUFFER_BYTES,
        thrift_string_size_limit=FOOTER_BYTES,
        thrift_container_size_limit=1 << 22,
    )


def _image_column(schema: pa.Schema, wanted: str | None, key: str) -> str:
    """The column of images, as the leaf that holds bytes: "jpg", or "image.bytes". Raises NoImages where the file has
    none, and InputError where it has several and none is named."""
    leaves = {field.name: leaf for field in schema if (leaf := _leaf(field)) is not None}
    if wanted is not None:
        if wanted not in leaves:
            raise NoImages
        return leaves[wanted]
    likely = [name for name, leaf in leaves.items() if leaf != name or name.lower() in IMAGE_COLUMNS]
    if "image" in likely:
        return leaves["image"]
    if len(likely) > 1:
        names = ", ".join(printable(name[:40]) for name in likely[:10])
        raise InputError(f"{printable(key)} has several columns of images ({names}); name one with --image-column")
    if not likely:
        raise NoImages
    return leaves[likely[0]]


def _leaf(field: pa.Field) -> str | None:
    if _is_binary(field.type):
        return str(field.name)
    if pa.types.is_struct(field.type):
        parts = {field.type.field(index).name: field.type.field(index).type for index in range(field.type.num_fields)}
        if "." not in field.name and parts.keys() == {"bytes", "path"} and _is_binary(parts["bytes"]):
            return f"{field.name}.bytes"
    return None


def _is_binary(type: pa.DataType) -> bool:
    return bool(pa.types.is_binary(type) or pa.types.is_large_binary(type))


def _names_column(schema: pa.Schema, image: str) -> str | None:
    for name in NAME_COLUMNS:
        if name in schema.names and schema.names.count(name) == 1:
            type = schema.field(name).type
            if pa.types.is_string(type) or pa.types.is_large_string(type) or pa.types.is_integer(type):
                return name
    return image.removesuffix(".bytes") + ".path" if image.endswith(".bytes") else None


def _chunk(about: pq.RowGroupMetaData, column: str) -> pq.ColumnChunkMetaData:
    return next(chunk for index in range(about.num_columns) if (chunk := about.column(index)).path_in_schema == column)


def _is_empty(metadata: pq.FileMetaData, column: str) -> bool:
    """Whether the footer says that no row has an image."""
    groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
    found = [(group.num_rows, _chunk(group, column).statistics) for group in groups]
    return bool(found) and all(about is not None and about.null_count == rows for rows, about in found)


def _rows(file: pq.ParquetFile, group: int, column: str, names: str | None) -> Iterator[Member]:
    """The rows of one row group by their names; by group and row where they have none that can be used."""
    about = file.metadata.row_group(group)
    mean = _chunk(about, column).total_uncompressed_size // max(1, about.num_rows)
    row = 0
    for texts in _columns(file, group, names) if names else _nameless(about.num_rows):
        for text in texts:
            name = _name(text) or f"{group}-{row}"
            yield Member(name, mean, f"{group}.{row}@{quote(column, safe='')}")
            row += 1


def _nameless(rows: int) -> Iterator[Sequence[None]]:
    """As `_columns`, of as many rows as a footer claims, which may be any number."""
    for start in range(0, rows, _ROWS_AT_ONCE):
        yield [None] * min(_ROWS_AT_ONCE, rows - start)


def _columns(file: pq.ParquetFile, group: int, leaf: str) -> Iterator[list[Any]]:
    for batch in file.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=[leaf], use_threads=False):
        yield _values(batch, leaf).to_pylist()


def _values(batch: pa.RecordBatch, leaf: str) -> pa.Array:
    column = batch.column(0)
    return column.flatten()[0] if pa.types.is_struct(column.type) else column


def _name(value: object) -> str | None:
    text = str(value) if value is not None else ""
    if text.startswith("/"):  # where the image once was on somebody's disk
        text = text.rpartition("/")[2]
    return text if text and len(text) <= LONGEST_NAME and text.isprintable() else None


def _images(file: pq.ParquetFile, group: int, column: str, rows: Sequence[int]) -> Iterator[bytes]:
    """The bytes of these rows, which rise, of one row group; b"" for null."""
    start, wanted = 0, iter(rows)
    row = next(wanted, None)
    for batch in file.iter_batches(1, row_groups=[group], columns=[column], use_threads=False):
        while row is not None and row < start + len(batch):
            value = _values(batch, column)[row - start]
            yield value.as_py() or b""
            row = next(wanted, None)
        start += len(batch)
        if row is None:
            return


def _place(place: Address) -> tuple[int, int, str]:
    match = _PLACE.fullmatch(place.place)
    return (int(match[1]), int(match[2]), unquote(match[3])) if match else (0, 0, "")
