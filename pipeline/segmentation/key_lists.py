"""Key lists that people make: Parquet and CSV with a column `key`, or text with one key a line.

The columns etag, size and last_modified are taken where they are there. Keys are relative to SOURCE, or full URIs
below it.
"""

import codecs
import csv
import io
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from fcn_core.text.printable import printable
from pipeline.csv_text import MARKED, delimiter_of
from pipeline.errors import InputError, StorageError, StorageUnavailable
from pipeline.storage.opening import STORES, read_object
from pipeline.storage.store import Store
from pipeline.storage.uri import is_uri, scheme_of, split_options, split_uri

ENTRIES_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("etag", pa.string()),
        pa.field("size", pa.int64()),
        pa.field("last_modified", pa.timestamp("us", tz="UTC")),
    ]
)
"""What a list says of an object; null where it does not say."""

_FORMATS = (
    "a Parquet file, CSV (.csv, .tsv, .csv.gz, .tsv.gz), text with a key per line (.txt, .txt.gz), or an S3 "
    "Inventory's manifest.json"
)
_LINES_AT_ONCE = 10_000
_HEADER_BYTES = 1 << 16
_LONGEST_LINE = 1 << 16

# How lists and inventories spell the columns, in lower case and without "_" or "-".
_COLUMNS = {"key": "key", "etag": "etag", "size": "size", "lastmodified": "last_modified",
            "lastmodifieddate": "last_modified"}  # fmt: skip


def read_key_list(source: Store, uri: str) -> Iterator[pa.RecordBatch]:
    """The entries of the list at `uri`, in ENTRIES_SCHEMA, keys relative to `source`; in the list's order.

    Raises InputError naming what is wrong with the list.
    """
    name = split_uri(uri)[1].lower()
    if name.endswith(".parquet"):
        batches = read_parquet(uri, read_object(uri))
    elif name.endswith((".csv", ".csv.gz", ".tsv", ".tsv.gz")):
        batches = read_csv(uri, read_object(uri), packed=name.endswith(".gz"))
    elif name.endswith((".txt", ".txt.gz")):
        batches = read_text(uri, read_object(uri), packed=name.endswith(".gz"))
    elif name.endswith(".orc"):
        raise InputError(f"key list {uri} is an ORC file, which is not read here; write it as Parquet or CSV")
    else:
        raise InputError(f"key list {uri}: {name!r} is no list of a known kind; give {_FORMATS}")
    plain = _DotFolders(source)
    for batch in batches:
        yield with_keys(batch, list(map(plain, _relative(source, uri, batch["key"].to_pylist()))))


def read_parquet(uri: str, data: bytes, more: Mapping[str, str] | None = None) -> Iterator[pa.RecordBatch]:
    """The entries of a Parquet file; `more` are further columns to take, as `read_csv` says."""
    try:
        file = pq.ParquetFile(io.BytesIO(data))
        names = _wanted(uri, file.schema_arrow.names, more)
        for batch in file.iter_batches(columns=list(names)):
            batch.validate(full=True)  # else text that is not UTF-8 is found where it is used
            yield _entries(uri, batch, names)
    except InputError:
        raise
    except Exception as error:  # Arrow answers damaged bytes with errors of many kinds, some of them Python's own
        raise InputError(f"key list {uri} is not a readable Parquet file ({_quoted(error)})") from error


def read_csv(
    uri: str,
    data: bytes,
    *,
    packed: bool,
    header: list[str] | None = None,
    more: Mapping[str, str] | None = None,
) -> Iterator[pa.RecordBatch]:
    """The entries of a CSV file, whose first line is its header unless `header` is given.

    `more` maps the plain names (lower case, without "_" and "-") of further columns to what they are called in the
    batches; they come after those of ENTRIES_SCHEMA, as strings from CSV, as they are from Parquet.
    """
    header_given = header is not None
    delimiter = ","
    try:
        if header is None:
            first = _buffered(data, packed).read(_HEADER_BYTES)
            if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise InputError(f"key list {uri} is in UTF-16; save it as UTF-8")
            text = first.decode("utf-8-sig", errors="replace")
            delimiter = delimiter_of(text)
            header = next(csv.reader(io.StringIO(text), delimiter=delimiter), [])
            skip = 1
        else:
            skip = 0
        names = _wanted(uri, header, more)
        reader = pyarrow.csv.open_csv(
            _open(data, packed),
            read_options=pyarrow.csv.ReadOptions(column_names=header, skip_rows=skip, encoding="utf8"),
            parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True, delimiter=delimiter),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=list(names),
                column_types=dict.fromkeys(names, pa.string()),
                null_values=[""],
                strings_can_be_null=True,
            ),
        )
        for batch in reader:
            yield _entries(uri, batch if header_given else _original(batch), names)
    except (pa.ArrowException, OSError, csv.Error) as error:
        raise InputError(f"key list {uri} is not readable CSV ({_quoted(error)})") from error


def with_keys(batch: pa.RecordBatch, keys: list[str]) -> pa.RecordBatch:
    """The entries of `batch` under other keys."""
    columns = [pa.array(keys, pa.string()), *(batch[name] for name in ENTRIES_SCHEMA.names[1:])]
    return pa.RecordBatch.from_arrays(columns, schema=ENTRIES_SCHEMA)


def read_text(uri: str, data: bytes, *, packed: bool) -> Iterator[pa.RecordBatch]:
    """The entries of a text with one key a line."""
    try:
        if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise InputError(f"key list {uri} is in UTF-16; save it as UTF-8")
        lines = io.TextIOWrapper(_buffered(data, packed), "utf-8-sig", newline="\n")
        keys = (line for text in _bounded(lines, uri) if (line := text.rstrip("\r\n")))
        while chunk := list(islice(keys, _LINES_AT_ONCE)):
            yield pa.RecordBatch.from_pylist([{"key": key} for key in chunk], schema=ENTRIES_SCHEMA)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"key list {uri} is not readable text in UTF-8 ({_quoted(error)})") from error


def _bounded(lines: io.TextIOWrapper, uri: str) -> Iterator[str]:
    """The lines of a text that may be packed a thousandfold: it is never held whole."""
    while line := lines.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            raise InputError(f"key list {uri} has a line of more than {_LONGEST_LINE} characters, which is no key")
        yield line


def _open(data: bytes, packed: bool) -> pa.NativeFile:
    file = pa.BufferReader(data)
    return pa.CompressedInputStream(file, "gzip") if packed else file


def _original(batch: pa.RecordBatch) -> pa.RecordBatch:
    """`batch` as it was before our own CSV was made safe for spreadsheets. Inventories are not made by us."""
    columns = [
        pc.replace_substring_regex(column, MARKED, r"\1") if pa.types.is_string(column.type) else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _buffered(data: bytes, packed: bool) -> io.BufferedReader:
    """The same for Python to read: Arrow's own `read` never frees its buffer where what is packed is damaged."""
    return io.BufferedReader(_open(data, packed))


def _wanted(uri: str, header: list[str], more: Mapping[str, str] | None) -> dict[str, str]:
    """The file's columns to read, with what they are called here."""
    known = {**_COLUMNS, **(more or {})}
    columns = [
        (name, known[plain])
        for name in header
        if (plain := name.strip().lower().replace("_", "").replace("-", "")) in known
    ]
    found = dict(columns)
    if "key" not in found.values():
        if len(header) == 1 and "." in header[0]:
            raise InputError(
                f"key list {uri} has no header: its first line is {printable(header[0])[:80]!r}; put a line `key` "
                "before it, or name the file .txt"
            )
        shown = printable(", ".join(name[:40] for name in header[:10])) or "none"
        raise InputError(f"key list {uri} has no column named key (its columns: {shown}); name one of them so")
    if len(set(found.values())) < len(columns):
        names = ", ".join(name for name, _ in columns)
        raise InputError(f"key list {uri} has two columns of one meaning ({names}); leave one out")
    return found


def _quoted(error: Exception) -> str:
    """What a reader says of a list, which may quote whole rows of it."""
    return printable(str(error))[:300]


def _entries(uri: str, batch: pa.RecordBatch, names: Mapping[str, str]) -> pa.RecordBatch:
    """`batch` under our names and types, missing columns null, further ones behind."""
    there = {names[name]: batch[name] for name in names}
    columns, fields = [], []
    for field in ENTRIES_SCHEMA:
        column = there.pop(field.name, None)
        columns.append(pa.nulls(len(batch), field.type) if column is None else _as_type(uri, column, field))
        fields.append(field)
    for name, column in there.items():
        columns.append(column)
        fields.append(pa.field(name, column.type))
    if columns[0].null_count:
        raise InputError(f"key list {uri} has rows without a key; remove them")
    columns[1] = pc.utf8_trim(columns[1], '"')  # some write etags as HTTP does
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))


def _as_type(uri: str, column: pa.Array, field: pa.Field) -> pa.Array:
    """A column as programs write it, in our type. Raises InputError that names a value which is none of it."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if field.name == "size":
        return _as_sizes(uri, column)
    if field.name == "last_modified":
        return _as_times(uri, column, field.type)
    try:
        return column.cast(field.type)
    except pa.ArrowException as error:
        raise InputError(f"key list {uri}: column {field.name} holds {column.type}, not {field.type}") from error


def _as_sizes(uri: str, column: pa.Array) -> pa.Array:
    """Sizes, which pandas writes as 100.0 where one of them is missing. NaN is none."""
    try:
        whole = column.cast(pa.int64())
    except pa.ArrowException:
        pass  # slower, and by what each one is
    else:
        if len(whole) == whole.null_count or pc.min(whole).as_py() >= 0:
            return whole
    texts = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    sizes = []
    for value in column.to_pylist():
        text = value.strip() if texts and value is not None else value
        try:
            number = None if text is None or text == "" else int(text) if texts and text.isdigit() else float(text)
            number = None if number is None or number != number else number
            if number is not None and not (number == int(number) and 0 <= number < 1 << 63):
                raise ValueError
            sizes.append(None if number is None else int(number))
        except (ValueError, OverflowError, TypeError):
            raise InputError(f"key list {uri}: {printable(str(value))[:80]!r} is no size in bytes") from None
    return pa.array(sizes, pa.int64())


def _as_times(uri: str, column: pa.Array, type: pa.DataType) -> pa.Array:
    """Times of any precision, in microseconds. One without a time zone is taken for UTC."""
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        try:
            return column.cast(pa.timestamp("us", getattr(column.type, "tz", None)), safe=False).cast(type, safe=False)
        except pa.ArrowException as error:
            raise InputError(f"key list {uri}: last_modified holds times of no calendar ({_quoted(error)})") from error
    if pa.types.is_null(column.type):
        return column.cast(type)
    try:
        return column.cast(type)  # text with a time zone, as inventories have it, a million a second
    except pa.ArrowException:
        pass
    times = []
    for value in column.to_pylist():
        try:
            # Python reads six digits of a second.
            text = re.sub(r"(\.\d{6})\d+", r"\1", str(value).strip())
            time = datetime.fromisoformat(text) if value is not None and text else None
        except ValueError:
            raise InputError(
                f"key list {uri}: {printable(str(value))[:80]!r} is no time of a last_modified; write it as "
                "2026-01-31T10:00:00Z"
            ) from None
        times.append(time.replace(tzinfo=UTC) if time is not None and time.tzinfo is None else time)
    return pa.array(times, type)


class _DotFolders:
    """Takes the `./` off keys, which `find .` begins with. In a bucket an object may be called so: the first is asked
    for."""

    def __init__(self, source: Store) -> None:
        self._source = source
        self._kept: bool | None = False if source.location.scheme == "file" else None

    def __call__(self, key: str) -> str:
        if not key.startswith("./"):
            return key
        if self._kept is None:
            self._kept = self._is_there(key)
        while key.startswith("./") and not self._kept:
            key = key[2:].lstrip("/")
        return key

    def _is_there(self, key: str) -> bool:
        try:
            self._source.head(key)
        except StorageUnavailable:
            raise
        except StorageError:
            return False
        return True


def _relative(source: Store, uri: str, keys: list[str]) -> list[str]:
    below = full_prefix(source)
    relative = []
    for key in keys:
        if key.startswith(below):
            relative.append(key.removeprefix(below))
        elif (is_uri(key) and scheme_of(key) in STORES) or (source.location.scheme == "file" and key.startswith("/")):
            raise InputError(
                f"key list {uri} names {key!r}, which is not below the source {below}; correct one of them"
            )
        else:
            relative.append(key)
    return relative


def full_prefix(source: Store) -> str:
    """What the full URI of every object in `source` starts with: `s3://bucket/photos/`."""
    uri, _ = split_options(source.uri)
    return uri if uri.endswith("/") else uri + "/"
