"""Manifests are read as written, whatever characters their keys hold; each fault is named with its row."""

import csv
import gzip
import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.manifest import Row, parse_manifest
from pipeline.errors import InputError
from pipeline.storage.uri import is_absolute

PARTS = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1).filter(
    lambda part: part.strip() == part and part not in (".", "..")
)
KEYS = st.one_of(
    st.lists(PARTS, min_size=1, max_size=3).map("/".join),
    PARTS.map(lambda part: f"s3://bucket/{part}"),
    PARTS.map(lambda part: f"/data/{part}"),
)
ROWS = st.lists(st.builds(Row, KEYS, KEYS, PARTS), min_size=1, max_size=8)


def as_csv(rows: list[Row], columns: tuple[str, ...] = ("image", "mask", "split")) -> bytes:
    sink = io.StringIO(newline="")
    writer = csv.writer(sink)
    writer.writerow(["note", *columns])
    writer.writerows([["", *(getattr(row, column) for column in columns)] for row in rows])
    return sink.getvalue().encode()


def as_parquet(columns: dict[str, object]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue()


@settings(deadline=None)
@given(ROWS)
def test_csv_and_parquet_say_the_same(rows: list[Row]) -> None:
    columns = {name: [getattr(row, name) for row in rows] for name in ("split", "mask", "image")}
    assert parse_manifest(as_csv(rows), "m.csv") == rows
    assert parse_manifest(as_csv(rows, ("split", "image", "mask")), "M.CSV") == rows
    assert parse_manifest(as_parquet(columns | {"weight": [1.5] * len(rows)}), "m.parquet") == rows
    packed = {name: pa.array(values).dictionary_encode() for name, values in columns.items()}
    assert parse_manifest(as_parquet(packed), "m.parquet") == rows


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_rows_or_one_clear_error(data: bytes) -> None:
    for name in ("m.csv", "m.parquet"):
        with pytest.raises(InputError, match="manifest m"):
            parse_manifest(data, name)


def test_a_byte_order_mark_and_blank_lines_are_nothing() -> None:
    data = b"\xef\xbb\xbfimage, mask ,split\r\n\r\na.jpg,a.png,train\r\n\r\n"
    assert parse_manifest(data, "m.csv") == [Row("a.jpg", "a.png", "train")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no column 'image' .it is empty."),
        ("image,split\na,b\n", "has no column 'mask' .it has 'image', 'split'."),
        (
            "x" * 100_000 + ",image,split\na,b,c\n",
            r"it has 'x{30}\[... 99,955 characters ...\]x{15}', 'image'",
        ),
        ("image,mask,split,mask\n", "more than one column 'mask'"),
        ("image,mask,split\n", "has no rows"),
        ("image,mask,split\na.jpg,a.png,train\nb.jpg,,train\n", "row 2 has no mask"),
        ("image,mask,split\na.jpg,a.png\n", "row 1 has no split"),
        ("image,mask,split\n../a.jpg,a.png,train\n", r"row 1 has the key '../a.jpg', which leads nowhere inside"),
        ("image,mask,split\na//b.jpg,a.png,train\n", "row 1 has the key 'a//b.jpg'"),
        ('image,mask,split\n"a.jpg,a.png,train\n', "is not CSV"),
    ],
)
def test_a_fault_is_named_with_its_row(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_manifest(text.encode(), "m.csv")


def test_columns_of_another_type_are_refused() -> None:
    with pytest.raises(InputError, match="column split holds int64; it must hold strings"):
        parse_manifest(as_parquet({"image": ["a"], "mask": ["b"], "split": [1]}), "m.parquet")
    with pytest.raises(InputError, match="row 1 has no split"):
        parse_manifest(as_parquet({"image": ["a"], "mask": ["b"], "split": pa.array([None], pa.string())}), "m.parquet")


def test_keys_that_say_where_they_are() -> None:
    assert all(is_absolute(key) for key in ("s3://b/k", "file:///a", "/a", "GS://b/k"))
    assert not any(is_absolute(key) for key in ("a/b.jpg", "s3:/a", "c:\\a", "1://b"))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("m.tsv", b"image\tmask\tsplit\n./a.jpg\ta.png\tx\n"),
        ("m.csv", b"Image;MASK;Split\na.jpg;./a.png;x\n"),
        ("m.csv.gz", gzip.compress(b"image,mask,split\n.//a.jpg,a.png,x\n", mtime=0)),
        ("m.tsv.gz", gzip.compress(b"image\tmask\tsplit\na.jpg\ta.png\tx\n", mtime=0)),
    ],
)
def test_a_manifest_as_find_pandas_or_a_spreadsheet_writes_it_is_read(name: str, data: bytes) -> None:
    assert parse_manifest(data, name) == [Row("a.jpg", "a.png", "x")]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (gzip.compress(b"image,mask,split\na,b,c\n" * 100, mtime=0)[:-9], "is cut off"),
        (b"image,mask,split", "cannot be unpacked"),
        ("image,mask,split".encode("utf-16"), "UTF-16"),
    ],
)
def test_a_packed_manifest_that_is_none_is_named(data: bytes, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_manifest(data, "m.csv.gz")


def test_a_small_manifest_that_unpacks_to_gigabytes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.data.manifest.LARGEST_TEXT", 1000)
    with pytest.raises(InputError, match="more than 1000 bytes"):
        parse_manifest(gzip.compress(b"image,mask,split\n" + b"a,b,c\n" * 1000), "m.csv.gz")
