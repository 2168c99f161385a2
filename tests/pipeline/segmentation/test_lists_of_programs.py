"""Key lists as find, pandas, Polars, spreadsheets and the AWS CLI write them: read, or refused by what they are."""

import gzip
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from pipeline.segmentation.key_lists import read_key_list
from pipeline.segmentation.sources import check_key_list, objects_of
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store

KEYS = ["a0.jpg", "sub/a1.jpg"]
TIME = datetime(2026, 1, 1, 10, tzinfo=UTC)


@pytest.fixture
def photos(tmp_path: Path) -> Store:
    store = open_store(str(tmp_path / "photos"))
    for key in KEYS:
        store.put(key, b"x")
    return store


def entries(photos: Store, file: Path) -> list[dict[str, Any]]:
    return [row for batch in read_key_list(photos, str(file)) for row in batch.to_pylist()]


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("find.txt", "./a0.jpg\n./sub/a1.jpg\n"),
        ("find.csv", "key\n././a0.jpg\n.//sub/a1.jpg\n"),
        ("list.tsv", "key\tsize\na0.jpg\t1\nsub/a1.jpg\t1\n"),
        ("list.tsv.gz", "key\tsize\na0.jpg\t1\nsub/a1.jpg\t1\n"),
        ("list.csv.gz", "key,size\na0.jpg,1\nsub/a1.jpg,1\n"),
        ("semicolon.csv", "key;size\na0.jpg;1\nsub/a1.jpg;1\n"),
        ("tab.CSV", "key\tsize\na0.jpg\t1\nsub/a1.jpg\t1\n"),
        ("pandas.csv", ",key,size\n0,a0.jpg,1.0\n1,sub/a1.jpg,\n"),
    ],
)
def test_a_list_as_find_or_a_spreadsheet_writes_it_names_objects_that_are_there(
    photos: Store, tmp_path: Path, name: str, text: str
) -> None:
    file = str(write(tmp_path, name, text))
    check_key_list(photos, file)
    assert [(info.key, info.size) for info in objects_of(photos, file)] == [("a0.jpg", 1), ("sub/a1.jpg", 1)]


def test_in_a_bucket_an_object_may_be_called_with_a_dot(bucket: str, tmp_path: Path) -> None:
    store = open_store(f"s3://{bucket}")
    store.put("a0.jpg", b"x")
    file = write(tmp_path, "find.txt", "./a0.jpg\n")
    assert [info.key for info in objects_of(store, str(file))] == ["a0.jpg"]
    store.put("./a0.jpg", b"xy")
    assert [(info.key, info.size) for info in objects_of(store, str(file))] == [("./a0.jpg", 2)]


@pytest.mark.parametrize(
    ("given", "size"), [("100.0", 100), ("100", 100), ("", None), (" 7 ", 7), ("nan", None), ("1e3", 1000)]
)
def test_sizes_that_became_floats_are_sizes(photos: Store, tmp_path: Path, given: str, size: int | None) -> None:
    assert entries(photos, write(tmp_path, "l.csv", f"key,size\na0.jpg,{given}\n"))[0]["size"] == size


@pytest.mark.parametrize(
    "given",
    [
        "2026-01-01 10:00:00", "2026-01-01T10:00:00Z", "2026-01-01T10:00:00+00:00", "2026-01-01T11:00:00+01:00",
        "2026-01-01T10:00:00.000000000Z",
    ],
)  # fmt: skip
def test_times_without_a_zone_and_with_any_number_of_digits_are_read(photos: Store, tmp_path: Path, given: str) -> None:
    assert entries(photos, write(tmp_path, "l.csv", f"key,last_modified\na0.jpg,{given}\n"))[0]["last_modified"] == TIME


@pytest.mark.parametrize(
    ("column", "values", "expected"),
    [
        ("last_modified", pa.array([int(TIME.timestamp()) * 10**9 + 1], pa.timestamp("ns")), TIME),
        ("last_modified", pa.array([TIME], pa.timestamp("ns", "Europe/Berlin")), TIME),
        ("last_modified", pa.array([TIME.replace(tzinfo=None)], pa.timestamp("ms")), TIME),
        ("last_modified", pa.array(["2026-01-01 10:00:00+00:00"]), TIME),
        ("last_modified", pa.array([None], pa.null()), None),
        ("size", pa.array([100.0]), 100),
        ("size", pa.array([float("nan")]), None),
        ("size", pa.array([100], pa.int32()), 100),
        ("key", pa.array(["a0.jpg"]).dictionary_encode(), "a0.jpg"),
        ("key", pa.array(["a0.jpg"], pa.large_string()), "a0.jpg"),
    ],
)
def test_columns_of_pandas_and_polars_are_read_whatever_their_type(
    photos: Store, tmp_path: Path, column: str, values: pa.Array, expected: object
) -> None:
    file = tmp_path / "l.parquet"
    pq.write_table(pa.table({"key": pa.array(["a0.jpg"])} | {column: values}), file)
    found = entries(photos, file)[0][column]
    assert found == expected or (column == "last_modified" and abs(found - TIME) < timedelta(microseconds=1))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("us.csv", "key,last_modified\na0.jpg,01/02/2026 10:00\n", "'01/02/2026 10:00' is no time of a last_modified"),
        ("sizes.csv", "key,size\na0.jpg,big\n", "'big' is no size in bytes"),
        ("sizes.csv", "key,size\na0.jpg,1.5\n", "'1.5' is no size"),
        ("sizes.csv", "key,size\na0.jpg,-1\n", "'-1' is no size"),
        ("bare.csv", "a0.jpg\nsub/a1.jpg\n", "has no header: its first line is 'a0.jpg'"),
        ("folder.csv", "key\nphotos/a0.jpg\n", "names 'photos/a0.jpg', which is not under .*; 'a0.jpg' is"),
        ("space.csv", 'key\n"a0.jpg "\n', "names 'a0.jpg ', which is not under .*; 'a0.jpg' is"),
        ("aws.txt", "2026-01-01 10:00:00      12345 a0.jpg\n", "is what `aws s3 ls` prints"),
        ("list.jsonl", '{"key": "a0.jpg"}\n', "is no list of a known kind"),
        ("empty.csv", "key\n", "names no object"),
        ("empty.txt", "", "names no object"),
    ],
)
def test_a_list_that_means_something_else_is_refused_by_what_it_is(
    photos: Store, tmp_path: Path, name: str, text: str, said: str
) -> None:
    file = write(tmp_path, name, text)
    with pytest.raises(InputError, match=said):
        check_key_list(photos, str(file))


def test_utf_16_is_named(photos: Store, tmp_path: Path) -> None:
    for name in ("l.txt", "l.csv"):
        (tmp_path / name).write_bytes("key\na0.jpg\n".encode("utf-16"))
        with pytest.raises(InputError, match="UTF-16; save it as UTF-8"):
            check_key_list(photos, str(tmp_path / name))
