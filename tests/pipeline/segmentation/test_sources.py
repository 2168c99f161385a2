"""Key lists and S3 inventories name the same objects, in the same order, as a listing would; what is wrong is said."""

import gzip
import hashlib
import io
import json
import tracemalloc
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.segmentation import sources
from pipeline.segmentation.key_lists import read_csv, read_text
from pipeline.segmentation.sources import check_key_list, objects_of
from pipeline.storage.opening import open_store
from pipeline.storage.store import ObjectInfo, Store

HOSTILE = [
    "a//b.jpg",
    "./x.jpg",
    "../x.jpg",
    "dir/",
    "😀.jpg",
    "name#1",
    "a+b c.jpg",
    "100%.jpg",
    'say "hi", again.jpg',
]


@pytest.fixture
def photos(tmp_path: Path) -> Store:
    """A folder of five files, listed in this order: a.jpg, b/c.jpg, b/d e.jpg, z+1.jpg, é.jpg."""
    store = open_store(str(tmp_path / "photos"))
    for key in ("a.jpg", "b/c.jpg", "b/d e.jpg", "z+1.jpg", "é.jpg"):
        store.put(key, key.encode())
    return store


def text(keys: list[str]) -> bytes:
    return "".join(f"{key}\n" for key in keys).encode()


def csv_file(keys: list[str]) -> bytes:
    sink = io.BytesIO()
    pyarrow.csv.write_csv(pa.table({"id": list(range(len(keys))), "Key": keys}), sink)
    return sink.getvalue()


def parquet(keys: list[str]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"key": keys}), sink)
    return sink.getvalue()


WRITERS: dict[str, Callable[[list[str]], bytes]] = {
    "keys.txt": text,
    "keys.txt.gz": lambda keys: gzip.compress(text(keys)),
    "keys.csv": csv_file,
    "keys.csv.gz": lambda keys: gzip.compress(csv_file(keys)),
    "keys.parquet": parquet,
}


def written(folder: Path, name: str, data: bytes) -> str:
    (folder / name).write_bytes(data)
    return str(folder / name)


@pytest.mark.parametrize("name", WRITERS)
def test_a_list_gives_what_a_listing_tells_of_its_keys(photos: Store, tmp_path: Path, name: str) -> None:
    listed = {info.key: info for info in photos.list()}
    wanted = ["é.jpg", "b/d e.jpg", f"{photos.uri}/a.jpg", "b/d e.jpg"]  # in no order, one twice, one in full
    found = list(objects_of(photos, written(tmp_path, name, WRITERS[name](wanted))))
    assert found == [listed["a.jpg"], listed["b/d e.jpg"], listed["é.jpg"]]


def test_what_a_list_tells_is_not_asked_again(photos: Store, tmp_path: Path) -> None:
    info = next(iter(photos.list()))
    table = pa.table(
        {
            "key": ["gone.jpg", "b/c.jpg"],
            "ETag": [f'"{info.etag}"', None],
            "size": [str(info.size), "5"],
            "LastModified": [info.last_modified, info.last_modified],
        }
    )
    pq.write_table(table, tmp_path / "keys.parquet")
    told, asked = reversed(list(objects_of(photos, str(tmp_path / "keys.parquet"))))
    assert told == ObjectInfo("gone.jpg", info.etag, info.size, info.last_modified)
    assert asked == photos.head("b/c.jpg")


def test_full_uris_are_understood_wherever_the_source_is(bucket: str, tmp_path: Path) -> None:
    for place in (f"s3://{bucket}", f"s3://{bucket}/a", f"s3://{bucket}/a//"):
        source = open_store(place)
        source.put("b c.jpg", b"x")
        full = written(
            tmp_path, "keys.txt", text([f"{place.rstrip('/')}{'//' if place.endswith('//') else '/'}b c.jpg"])
        )
        assert [info.size for info in objects_of(source, full)] == [1]


def test_a_key_that_is_not_there_is_still_named(photos: Store, tmp_path: Path) -> None:
    found = list(objects_of(photos, written(tmp_path, "keys.txt", text(["nowhere.jpg", "../a.jpg", "a.jpg"]))))
    assert [(info.key, info.etag, info.size) for info in found] == [
        ("../a.jpg", "", 0),
        ("a.jpg", photos.head("a.jpg").etag, 5),
        ("nowhere.jpg", "", 0),
    ]


def test_rows_that_contradict_each_other_are_settled_by_the_storage(photos: Store, tmp_path: Path) -> None:
    info = photos.head("a.jpg")
    times = [info.last_modified] * 2
    pq.write_table(
        pa.table({"key": ["a.jpg"] * 2, "etag": ["1", "2"], "size": [1, 1], "last_modified": times}),
        tmp_path / "keys.parquet",
    )
    assert list(objects_of(photos, str(tmp_path / "keys.parquet"))) == [info]


@settings(max_examples=30, deadline=None)
@given(
    keys=st.lists(st.text(st.sampled_from("ab/é😀 \n"), min_size=1, max_size=4).map("k".__add__), max_size=40),
    lot=st.integers(1, 9),
)
def test_lists_longer_than_memory_are_sorted_on_disk(
    keys: list[str], lot: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("sorted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "SORTED_AT_ONCE", lot)
        patch.setattr("pipeline.segmentation.key_lists._LINES_AT_ONCE", 3)
        lines = [key for key in keys if "\n" not in key]
        for name, wanted in (("keys.txt", lines), ("keys.parquet", keys)):
            listed = written(folder, name, WRITERS[name](wanted))
            found = [info.key for info in objects_of(open_store(str(folder / "empty")), listed)]
            assert found == sorted(set(wanted), key=str.encode)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("keys.orc", b"ORC", "ORC"),
        ("keys.json", b"{}", "known kind"),
        ("keys.parquet", b"PAR1", "not a readable Parquet file"),
        ("keys.csv", b"name,size\na.jpg,1\n", "no column named key"),
        ("keys.csv", b"key,Key\na.jpg,1\n", "two columns"),
        ("keys.csv", b"key,key\na.jpg,b.jpg\n", "two columns"),
        ("keys.csv", b"key,size\na.jpg,big\n", "big"),
        ("keys.csv", b"key,size\n,1\n", "without a key"),
        ("keys.csv.gz", b"key\na.jpg\n", "gz"),
        ("keys.txt", b"\xe9.jpg\n", "UTF-8"),
        ("keys.txt", b"s3://elsewhere/a.jpg\n", "not below the source"),
        ("keys.txt", b"/etc/passwd\n", "not below the source"),
        ("keys.txt", b"\n", "names no object"),
        ("manifest.json", b"{}", "not the manifest of an S3 Inventory"),
        ("manifest.json", b"no", "not the manifest of an S3 Inventory"),
    ],
)
def test_a_bad_list_is_named_with_what_is_wrong(
    photos: Store, tmp_path: Path, name: str, data: bytes, message: str
) -> None:
    uri = written(tmp_path, name, data)
    with pytest.raises(InputError, match=message) as caught:
        check_key_list(photos, uri)
    assert name in str(caught.value)


def _parquet(values: dict[str, list[object]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table(values), sink, compression="none", use_dictionary=False)
    return sink.getvalue()


PARQUET = _parquet({"key": ["a.jpg"], "more": [1]})

DAMAGED = {
    # What the fuzzer found: a row quoted as it is, names and keys that are not UTF-8.
    "quoted rows": ("keys.csv", b'key,size\n"a"",3,"\x1b[2J"\nb.jpg,\n', "is not readable CSV"),
    "a name": ("keys.parquet", PARQUET.replace(b"more", b"\x93ore"), "is not a readable Parquet file"),
    "a key": ("keys.parquet", PARQUET.replace(b"a.jpg", b"\xff.jpg"), "is not a readable Parquet file"),
    "a line without end": ("keys.txt.gz", gzip.compress(b"a" * 10_000_000), "has a line of more than 65536 characters"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_list_is_one_line_that_prints(photos: Store, tmp_path: Path, damage: str) -> None:
    name, data, message = DAMAGED[damage]
    with pytest.raises(InputError, match=message) as caught:
        check_key_list(photos, written(tmp_path, name, data))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000


def test_damaged_packed_lists_leave_no_memory_behind() -> None:
    """Each left 64 KiB, which the fuzzer noticed."""
    packed = gzip.compress(b"key,size\na.jpg,1\n", mtime=0)[:-6]
    tracemalloc.start()
    try:
        for _ in range(100):
            with pytest.raises(InputError, match="is not readable CSV"):
                list(read_csv("keys.csv.gz", packed, packed=True))
        assert tracemalloc.get_traced_memory()[0] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_packed_list_is_never_held_whole(tmp_path: Path) -> None:
    """30 MB of lines in 30 kB."""
    packed = gzip.compress(b"a.jpg\n" * 5_000_000)
    batches = read_text("keys.txt.gz", packed, packed=True)
    tracemalloc.start()
    try:
        assert sum(len(batch) for batch in islice(batches, 20)) == 200_000
        assert tracemalloc.get_traced_memory()[1] < 15 << 20
    finally:
        tracemalloc.stop()


INVENTORY = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag"


def inventory(bucket: str, rows: list[dict[str, object]], format: str = "CSV", **changes: object) -> str:
    """An inventory as S3 writes it, in two data files, in a folder of the bucket itself."""
    from urllib.parse import quote_plus

    store = open_store(f"s3://{bucket}/inventory")
    files = []
    for number, part in enumerate((rows[::2], rows[1::2])):
        sink = io.BytesIO()
        if format == "CSV":
            lines = [
                [bucket, quote_plus(str(row["key"])), "v", row["is_latest"], row["is_delete_marker"], row["size"],
                 row["last_modified_date"], row["e_tag"]]
                for row in part
            ]  # fmt: skip
            plain = "".join(
                ",".join('"' + ("" if value is None else str(value).lower() if isinstance(value, bool) else str(value))
                         + '"' for value in line) + "\n"
                for line in lines
            )  # fmt: skip
            sink.write(gzip.compress(plain.encode()))
            name = f"data/{number}.csv.gz"
        else:
            table = pa.Table.from_pylist([{"bucket": bucket, **row} for row in part])
            dates = pa.array(table["last_modified_date"].to_pylist()).cast(pa.timestamp("ms", tz="UTC"))
            place = table.schema.get_field_index("last_modified_date")
            pq.write_table(table.set_column(place, "last_modified_date", dates), sink)
            name = f"data/{number}.parquet"
        store.put(name, sink.getvalue())
        checksum = hashlib.md5(sink.getvalue()).hexdigest()
        files.append({"key": f"inventory/{name}", "size": len(sink.getvalue()), "MD5checksum": checksum})
    manifest = {
        "sourceBucket": bucket, "destinationBucket": f"arn:aws:s3:::{bucket}", "version": "2016-11-30",
        "creationTimestamp": "1514944800000", "fileFormat": format, "fileSchema": INVENTORY, "files": files,
    } | changes  # fmt: skip
    store.put("manifest.json", json.dumps(manifest).encode())
    return f"s3://{bucket}/inventory/manifest.json"


def as_row(info: ObjectInfo, prefix: str, **changes: object) -> dict[str, object]:
    stamp = info.last_modified.strftime("%Y-%m-%dT%H:%M:%S.000Z")
    row = {"key": prefix + info.key, "is_latest": True, "is_delete_marker": False, "size": info.size,
           "last_modified_date": stamp, "e_tag": info.etag}  # fmt: skip
    return row | changes


@pytest.mark.parametrize(("format", "prefix"), [("CSV", "photos/"), ("Parquet", "a//b c/")])
def test_an_inventory_gives_what_the_listing_gives(bucket: str, format: str, prefix: str) -> None:
    source = open_store(f"s3://{bucket}/{prefix}")
    for key in HOSTILE:
        source.put(key, key.encode())
    listed = list(source.list())
    rows = [as_row(info, prefix) for info in reversed(listed)]
    rows.append(as_row(listed[0], prefix, is_latest=False, e_tag="0" * 32))
    rows.append(as_row(listed[0], prefix, key=f"{prefix}deleted.jpg", is_delete_marker=True, size=None, e_tag=None))
    rows.append(as_row(listed[0], prefix, key="elsewhere/a.jpg"))
    rows.append(as_row(listed[0], prefix, key=prefix, size=0))
    if format == "Parquet":
        rows = [row | {"last_modified_date": listed[0].last_modified} for row in rows]
    manifest = inventory(bucket, rows, format)
    found = list(objects_of(source, manifest))
    assert [(info.key, info.etag, info.size) for info in found] == [(info.key, info.etag, info.size) for info in listed]
    assert all(
        abs((one.last_modified - other.last_modified).total_seconds()) < 60
        for one, other in zip(found, listed, strict=True)
    )


def test_an_inventory_of_another_bucket_another_format_or_other_files_is_refused(bucket: str, tmp_path: Path) -> None:
    source = open_store(f"s3://{bucket}/photos")
    source.put("a.jpg", b"a")
    rows = [as_row(info, "photos/") for info in source.list()] * 2
    with pytest.raises(InputError, match="inventory of s3://other"):
        check_key_list(source, inventory(bucket, rows, sourceBucket="other"))
    with pytest.raises(InputError, match=f"inventory of s3://{bucket}, not of the source"):
        check_key_list(open_store(str(tmp_path)), inventory(bucket, rows))
    with pytest.raises(InputError, match="format ORC"):
        check_key_list(source, inventory(bucket, rows, fileFormat="ORC"))
    manifest = inventory(bucket, rows)
    open_store(f"s3://{bucket}/inventory").put("data/0.csv.gz", b"changed")
    with pytest.raises(InputError, match="MD5"):
        check_key_list(source, manifest)
