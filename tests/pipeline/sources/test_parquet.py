"""Parquet files as sources: rows by name or by place, and one sentence for what cannot be read."""

import io
import random
import tracemalloc
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ImageError, InputError, ObjectChanged, ObjectMissing, StorageUnavailable
from pipeline.sources.expansion import expand
from pipeline.sources.opening import open_source, read_image
from pipeline.sources.parquet import ParquetKind
from pipeline.sources.range_scanner import RangeScanner
from pipeline.sources.source import Source
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store
from tests.containers import opened, parquet_of, read_all

IMAGES = [random.Random(index).randbytes(900 + index) for index in range(50)]
HUGGING_FACE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def struct_of(images: list[bytes | None], paths: list[str | None]) -> pa.Array:
    return pa.array([{"bytes": data, "path": path} for data, path in zip(images, paths, strict=True)], HUGGING_FACE)


def test_hugging_faces_struct_is_read_by_its_paths(tmp_path: Path) -> None:
    names = [f"{index:04d}.jpg" for index in range(50)]
    table = {"label": list(range(50)), "image": struct_of(list(IMAGES), list(names))}
    source, entries = opened(tmp_path, {"x.parquet": parquet_of(table, rows=20)})
    assert [entry.key for entry in entries] == [f"x.parquet/{name}" for name in names]
    assert list(read_all(source, entries).values()) == IMAGES
    assert source.get("x.parquet/0033.jpg") == IMAGES[33]


@pytest.mark.parametrize("column", ["jpg", "image", "PNG", "image_bytes"])
@pytest.mark.parametrize("names", ["key", "id", "filename"])
def test_columns_are_found_by_their_names(tmp_path: Path, column: str, names: str) -> None:
    table = {"url": ["u"] * 50, names: [f"{index}" for index in range(50)], column: IMAGES, "exif": [b"x"] * 50}
    source, entries = opened(tmp_path, {"x.parquet": parquet_of(table)})
    assert [entry.key for entry in entries] == [f"x.parquet/{index}" for index in range(50)]
    assert list(read_all(source, entries).values()) == IMAGES


def test_rows_without_a_name_of_use_are_called_by_row_group_and_row(tmp_path: Path) -> None:
    source, entries = opened(tmp_path, {"x.parquet": parquet_of({"image": IMAGES}, rows=30)})
    assert [entry.key for entry in entries][28:32] == [f"x.parquet/{name}" for name in ("0-28", "0-29", "1-0", "1-1")]
    assert list(read_all(source, entries).values()) == IMAGES
    names = ["a.jpg", "a.jpg", None, "", "/abs/b.jpg", "x" * 2000, "line\nbreak", "0-2"]
    table = {"image": struct_of(list(IMAGES[:8]), names)}
    source, entries = opened(tmp_path, {"x.parquet": parquet_of(table)})
    found = [entry.key.removeprefix("x.parquet/") for entry in entries]
    assert found == ["a.jpg", "a.jpg@0.1", "0-2", "0-3", "b.jpg", "0-5", "0-6", "0-2@0.7"]
    assert list(read_all(source, entries).values()) == IMAGES[:8]


def test_rows_without_an_image_are_empty_and_the_others_are_read(tmp_path: Path) -> None:
    for column in (pa.array([None, IMAGES[1], b"", IMAGES[3]]), pa.array([None, {"bytes": IMAGES[1], "path": None},
                   {"bytes": None, "path": "a"}, {"bytes": IMAGES[3], "path": "b"}], HUGGING_FACE)):  # fmt: skip
        source, entries = opened(tmp_path, {"x.parquet": parquet_of({"image": column})})
        assert list(read_all(source, entries).values()) == [b"", IMAGES[1], b"", IMAGES[3]]


def test_a_file_without_images_is_a_file_and_one_with_several_columns_asks_which(tmp_path: Path) -> None:
    _, entries = opened(tmp_path, {"x.parquet": parquet_of({"url": ["u"], "hash": [b"h"], "nested": [[b"x"]]})})
    assert [entry.key for entry in entries] == ["x.parquet"]
    both = {"left": struct_of([IMAGES[0]], ["a"]), "right": struct_of([IMAGES[1]], ["a"])}
    (tmp_path / "x.parquet").write_bytes(parquet_of(both))
    source = open_source(str(tmp_path))
    with pytest.raises(InputError, match=r"x\.parquet has several columns of images \(left, right\).*--image-column"):
        list(expand(source, source.list(), lambda key: True))
    for column, image in (("left", IMAGES[0]), ("right", IMAGES[1])):
        entries = list(expand(source, source.list(), lambda key: True, image_column=column))
        assert list(read_all(source, entries).values()) == [image]
        assert read_image(f"{tmp_path}/x.parquet/a", column) == image
    with pytest.raises(InputError, match="--image-column"):
        read_image(f"{tmp_path}/x.parquet/a")
    with pytest.raises(ObjectMissing):
        read_image(f"{tmp_path}/x.parquet/a", "no")
    assert [entry.key for entry in expand(source, source.list(), lambda key: True, image_column="no")] == ["x.parquet"]


def test_a_column_of_masks_beside_the_images_is_no_question(tmp_path: Path) -> None:
    table = {"image": struct_of([IMAGES[0]], ["a"]), "annotation": struct_of([IMAGES[1]], ["a"])}
    source, entries = opened(tmp_path, {"x.parquet": parquet_of(table)})
    assert list(read_all(source, entries).values()) == [IMAGES[0]]


def test_paths_without_bytes_are_one_sentence(tmp_path: Path) -> None:
    table = {"image": struct_of([None] * 4, [f"/photos/{index}.jpg" for index in range(4)])}
    source, (entry,) = opened(tmp_path, {"x.parquet": parquet_of(table, rows=2)})
    with pytest.raises(ImageError, match="no bytes in any row"):
        source.get(entry.key, size=entry.size, etag=entry.etag)


@pytest.mark.parametrize("length", [0, 3, 8, 11, 100, -1, -4, -9])
def test_a_truncated_file_is_one_sentence(tmp_path: Path, length: int) -> None:
    source, (entry,) = opened(tmp_path, {"x.parquet": parquet_of({"image": IMAGES})[:length]})
    assert entry.key == "x.parquet"
    with pytest.raises(ImageError, match=r"^damaged_container: x\.parquet: "):
        source.get(entry.key, size=entry.size, etag=entry.etag)


def test_an_encrypted_file_and_a_huge_footer_are_sentences(tmp_path: Path) -> None:
    whole = parquet_of({"image": IMAGES})
    for data, word in ((whole[:-4] + b"PARE", "encrypted"), (whole[:-8] + b"\xff\xff\xff\x7fPAR1", "footer")):
        source, (entry,) = opened(tmp_path, {"x.parquet": data})
        with pytest.raises(ImageError, match=word):
            source.get(entry.key, size=entry.size, etag=entry.etag)


@given(st.data())
def test_flipped_bytes_are_images_or_sentences(tmp_path_factory: pytest.TempPathFactory, choice: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("flipped")
    data = bytearray(parquet_of({"key": list("abcdef"), "image": IMAGES[:6]}, rows=3))
    places = st.one_of(st.integers(0, len(data) - 1), st.integers(len(data) - 400, len(data) - 1))
    for place in choice.draw(st.lists(places, min_size=1, max_size=5)):
        data[place] = choice.draw(st.integers(0, 255))
    source, entries = opened(folder, {"x.parquet": bytes(data)})
    messages = []
    with source.expecting(entries):
        for entry in entries:
            try:
                source.get(entry.key, size=entry.size, etag=entry.etag)
            except ImageError as error:
                messages.append(error.message)
    assert all(message.isprintable() for message in messages)


def test_a_damaged_row_group_leaves_the_others(tmp_path: Path) -> None:
    data = bytearray(parquet_of({"image": IMAGES}, rows=10, compression="gzip"))
    second = pq.ParquetFile(io.BytesIO(bytes(data))).metadata.row_group(1).column(0)
    start = second.dictionary_page_offset
    data[start + 200 : start + 400] = bytes(200)
    source, entries = opened(tmp_path, {"x.parquet": bytes(data)})
    read, errors = [], {}
    with source.expecting(entries):
        for index, entry in enumerate(entries):
            try:
                assert source.get(entry.key, size=entry.size, etag=entry.etag) == IMAGES[index]
                read.append(index)
            except ImageError as error:
                errors[index] = error
    assert list(errors) == list(range(10, 20))
    for index, error in errors.items():
        assert error.reason == "damaged"
        assert f"row {index - 10} of row group 1" in error.message


class Troubled:
    """A store whose ranges fail when `fails` says so."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.ranges = 0
        self.fails = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self.store, name)

    def get_range(self, key: str, offset: int, length: int, *, etag: str | None = None) -> bytes:
        self.ranges += 1
        if self.fails:
            self.fails -= 1
            raise StorageUnavailable("not now")
        return self.store.get_range(key, offset, length, etag=etag)


def test_trouble_of_the_storage_is_the_storages_and_may_pass(tmp_path: Path) -> None:
    _, entries = opened(tmp_path, {"x.parquet": parquet_of({"image": IMAGES}, rows=10)})
    troubled = Troubled(open_store(str(tmp_path)))
    source = Source(troubled)  # type: ignore[arg-type]
    with source.expecting(entries):
        troubled.fails = 1
        with pytest.raises(StorageUnavailable):
            source.get(entries[0].key, etag=entries[0].etag)
        assert [source.get(entry.key, etag=entry.etag) for entry in entries] == IMAGES
    assert troubled.ranges <= 4, "the whole of it in one range, once the trouble has passed, and its end"
    (tmp_path / "x.parquet").write_bytes(parquet_of({"image": IMAGES[::-1]}))
    with source.expecting(entries), pytest.raises(ObjectChanged):
        source.get(entries[0].key, etag=entries[0].etag)


def test_rows_are_read_whichever_is_asked_for_first(tmp_path: Path) -> None:
    source, entries = opened(tmp_path, {"x.parquet": parquet_of({"image": IMAGES}, rows=20)})
    order = random.Random(1).sample(range(50), 30)
    with source.expecting([entries[index] for index in sorted(order)]):
        assert [source.get(entries[index].key, etag=entries[index].etag) for index in order] == [
            IMAGES[index] for index in order
        ]


def test_memory_of_the_plan_does_not_grow_with_the_rows_that_a_footer_claims(tmp_path: Path) -> None:
    nulls = pa.table({"image": pa.nulls(2_000_000, pa.binary())})
    pq.write_table(nulls, tmp_path / "x.parquet", row_group_size=len(nulls), write_statistics=False)
    source = open_source(str(tmp_path))
    members = ParquetKind().members(RangeScanner(source, next(iter(source.list()))))
    tracemalloc.start()
    try:
        assert len(list(islice(members, 10_000))) == 10_000
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()
