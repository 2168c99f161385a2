"""Members of containers by key and etag: what a listing gives, with how many requests, and what becomes of changes."""

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.errors import ImageError, ObjectChanged, ObjectMissing
from pipeline.segmentation.sources import objects_of
from pipeline.sources.expansion import Opened, expand
from pipeline.sources.member import address_of
from pipeline.sources.opening import open_source, read_image
from pipeline.sources.source import Source
from pipeline.sources.tar import TarKind
from pipeline.storage.opening import open_store
from pipeline.storage.store import ObjectInfo, Store
from tests.containers import opened, read_all, tar_of, write_webdataset


def test_a_tar_is_listed_as_its_members_in_their_order(tmp_path: Path) -> None:
    tar = tar_of([("b.jpg", b"bb"), ("a.jpg", b"a"), ("a.json", b"{}")])
    source, entries = opened(tmp_path, {"x.tar": tar, "w.jpg": b"w", "y.jpg": b"y"})
    assert [entry.key for entry in entries] == ["w.jpg", "x.tar/b.jpg", "x.tar/a.jpg", "x.tar/a.json", "y.jpg"]
    assert list(read_all(source, entries).values()) == [b"w", b"bb", b"a", b"{}", b"y"]
    assert [entry.size for entry in entries] == [1, 2, 1, 2, 1]
    assert [info.key for info in source.list()] == ["w.jpg", "x.tar", "y.jpg"], "a listing does not open anything"


def test_names_that_come_twice_are_images_of_their_own(tmp_path: Path) -> None:
    names = ["a.jpg", "b.jpg", "a.jpg", "a.jpg@2560", "c.jpg", "b.jpg"]
    members = [(name, str(index).encode()) for index, name in enumerate(names)]
    source, entries = opened(tmp_path, {"x.tar": tar_of(members)})
    assert len({entry.key for entry in entries}) == 6
    assert list(read_all(source, entries).values()) == [data for _, data in members]
    assert entries[0].key == "x.tar/a.jpg"
    assert source.get("x.tar/a.jpg") == b"0"
    assert source.get(entries[2].key) == b"2"


def test_identity_changes_with_the_container_and_not_without(tmp_path: Path) -> None:
    tar = tar_of([("a.jpg", b"a"), ("b.jpg", b"b")])
    _, first = opened(tmp_path, {"x.tar": tar})
    _, again = opened(tmp_path)
    assert first == again
    (tmp_path / "x.tar").write_bytes(tar_of([("a.jpg", b"a"), ("c.jpg", b"b")]))
    source, changed = opened(tmp_path)
    assert not {entry.etag for entry in first} & {entry.etag for entry in changed}
    for entry in first:
        with pytest.raises(ObjectChanged):
            source.get(entry.key, size=entry.size, etag=entry.etag)


def test_a_folder_that_is_called_like_a_container_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "x.tar").mkdir()
    source, entries = opened(tmp_path, {"x.tar/y.tar": tar_of([("z.tar/a.jpg", b"a")]), "x.tar/b.jpg": b"b"})
    assert [entry.key for entry in entries] == ["x.tar/b.jpg", "x.tar/y.tar/z.tar/a.jpg"]
    assert list(read_all(source, entries).values()) == [b"b", b"a"]
    assert source.get("x.tar/b.jpg") == b"b"
    assert source.get("x.tar/y.tar/z.tar/a.jpg") == b"a"


def test_what_cannot_be_read_is_an_entry_that_says_so(tmp_path: Path) -> None:
    whole = tar_of([("a.jpg", b"a" * 600), ("b.jpg", b"b" * 600)])
    source, entries = opened(tmp_path, {"x.tar": whole[:2048]})
    assert [entry.key for entry in entries] == ["x.tar/a.jpg", "x.tar"]
    assert source.get(entries[0].key, size=600, etag=entries[0].etag) == b"a" * 600
    with pytest.raises(ImageError, match=r"x\.tar: the file ends in the middle of a member that begins at byte 1,536"):
        source.get(entries[1].key, size=0, etag=entries[1].etag)


def test_a_container_that_goes_or_changes_while_it_is_listed_is_tried_again_later(tmp_path: Path) -> None:
    tar = tar_of([("a.jpg", b"a")])
    (tmp_path / "x.tar").write_bytes(tar)
    source = open_source(str(tmp_path))
    listed = list(source.list())
    (tmp_path / "x.tar").write_bytes(tar + b"\0" * 512)
    (entry,) = expand(source, listed, lambda key: True)
    with pytest.raises(ObjectChanged):
        source.get(entry.key, size=entry.size, etag=entry.etag)
    (tmp_path / "x.tar").unlink()
    with pytest.raises(ObjectMissing):
        source.get(entry.key, size=entry.size, etag=entry.etag)


class Counting:
    """A store that counts the ranges that are asked of it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.ranges: list[tuple[str, int]] = []
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> object:
        return getattr(self.store, name)

    def get_range(self, key: str, offset: int, length: int, *, etag: str | None = None) -> bytes:
        with self._lock:
            self.ranges.append((key, length))
        return self.store.get_range(key, offset, length, etag=etag)


def test_neighbours_come_with_one_request_whoever_asks_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TarKind, "span_bytes", 10_000)
    write_webdataset(tmp_path / "x.tar", 30)
    _, entries = opened(tmp_path)
    images = [entry for entry in entries if entry.key.endswith(".jpg")]
    counting = Counting(open_store(str(tmp_path)))
    source = Source(counting)  # type: ignore[arg-type]

    def read(entry: ObjectInfo) -> bytes:
        return source.get(entry.key, size=entry.size, etag=entry.etag)

    with source.expecting(images), ThreadPoolExecutor(8) as threads:
        assert list(threads.map(read, images)) == [read_image(f"{tmp_path}/{entry.key}") for entry in images]
    total = sum(entry.size for entry in images)
    assert len(counting.ranges) <= total / 10_000 * 1.5 + 1
    counting.ranges.clear()
    assert [len(read(entry)) for entry in images[:3]] == [entry.size for entry in images[:3]]
    assert [length for _, length in counting.ranges] == [entry.size for entry in images[:3]], "nobody expects more"


def test_what_was_taken_or_not_taken_is_not_kept(tmp_path: Path) -> None:
    source, entries = opened(tmp_path, {"x.tar": tar_of([("a.jpg", b"a"), ("b.jpg", b"b")])})
    with source.expecting(entries):
        assert source.get(entries[0].key, etag=entries[0].etag) == b"a"
        assert source.get(entries[0].key, etag=entries[0].etag) == b"a", "a second time, by a request of its own"
    assert source._plan._spans == {}


def test_large_members_are_passed_over_and_not_read(tmp_path: Path) -> None:
    big = tmp_path / "x.tar"
    big.write_bytes(tar_of([("a.jpg", b"a")])[:1024])
    with big.open("r+b") as file:  # two members of 100 MB that are nowhere on the disk
        for index in range(2):
            head = tar_of([(f"{index}.bin", b"")])[:512]
            block = bytearray(head)
            block[124:135], block[148:156] = b"%011o" % 100_000_256, b" " * 8
            block[148:156] = b"%06o\0 " % sum(block)
            file.seek(1024 + index * (512 + 100_000_256))
            file.write(block)
        file.truncate(1024 + 2 * (512 + 100_000_256) + 1024)
    counting = Counting(open_store(str(tmp_path)))
    counts = Opened()
    entries = list(expand(counting, counting.list(), lambda key: True, counts))  # type: ignore[arg-type]
    assert [entry.key for entry in entries] == ["x.tar/a.jpg", "x.tar/0.bin", "x.tar/1.bin"]
    assert sum(length for _, length in counting.ranges) < 40_000_000
    assert (counts.containers, counts.members, counts.requests) == (1, 3, len(counting.ranges))


def test_many_containers_are_read_at_once_and_come_in_order(tmp_path: Path) -> None:
    names = [f"{index:03d}.tar" for index in range(30)]
    source, entries = opened(tmp_path, {name: tar_of([("a.jpg", name.encode())]) for name in names})
    assert [entry.key for entry in entries] == [f"{name}/a.jpg" for name in names]
    some = expand(source, source.list(), lambda key: True)
    assert next(some).key == "000.tar/a.jpg"
    some.close()  # type: ignore[attr-defined]  # whoever has enough need not wait for the rest


def test_a_source_travels_to_other_processes(tmp_path: Path) -> None:
    source, entries = opened(tmp_path, {"x.tar": tar_of([("a.jpg", b"a")])})
    there = pickle.loads(pickle.dumps(source))
    assert read_all(there, entries) == {"x.tar/a.jpg": b"a"}


def test_members_are_read_by_name_alone(tmp_path: Path) -> None:
    source, entries = opened(tmp_path, {"x.tar": tar_of([("sub/a.jpg", b"a"), ("b.jpg", b"b")])})
    assert source.head("x.tar/sub/a.jpg") == entries[0]
    assert source.get("x.tar/b.jpg", size=1) == b"b"
    assert read_image(f"{tmp_path}/x.tar/sub/a.jpg") == b"a"
    assert read_image(f"file://{tmp_path}/x.tar/sub/a.jpg") == b"a"
    for name in ("x.tar/none.jpg", "none.tar/a.jpg", "x.tar", "none.jpg"):
        if name == "x.tar":
            assert source.get(name) == (tmp_path / "x.tar").read_bytes()
            continue
        with pytest.raises(ObjectMissing):
            source.get(name)


def test_s3_has_members_too_and_notices_a_changed_container(bucket: str) -> None:
    store = open_store(f"s3://{bucket}/photos")
    store.put("x.tar", tar_of([("a.jpg", b"a"), ("b.jpg", b"b")]))
    source = open_source(f"s3://{bucket}/photos")
    entries = list(expand(source, source.list(), lambda key: True))
    assert read_all(source, entries) == {"x.tar/a.jpg": b"a", "x.tar/b.jpg": b"b"}
    assert read_image(f"s3://{bucket}/photos/x.tar/b.jpg") == b"b"
    store.put("x.tar", tar_of([("a.jpg", b"A"), ("b.jpg", b"b")]))
    with source.expecting(entries):
        for entry in entries:
            with pytest.raises(ObjectChanged, match="changed since it was listed"):
                source.get(entry.key, size=entry.size, etag=entry.etag)


def test_objects_below_an_opened_container_are_left_out_and_named(
    bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(f"s3://{bucket}")
    for key, data in (
        ("a.tar", tar_of([("x.jpg", b"member")])), ("a.tar-notes.jpg", b"n"), ("a.tar/x.jpg", b"loose"),
        ("a.tar/y/z.tar", tar_of([("x.jpg", b"inner")])), ("b.jpg", b"b"),
    ):  # fmt: skip
        store.put(key, data)
    entries = list(expand(store, store.list(), lambda key: True))
    assert [entry.key for entry in entries] == ["a.tar/x.jpg", "a.tar-notes.jpg", "b.jpg"]
    assert open_source(f"s3://{bucket}").get(entries[0].key, etag=entries[0].etag) == b"member"
    assert [record.message for record in caplog.records if "left_out" in record.message] == [
        "left_out=a.tar/x.jpg opened=a.tar", "left_out=a.tar/y/z.tar opened=a.tar"
    ]  # fmt: skip


def test_a_list_that_names_a_container_and_a_member_gives_each_image_once(tmp_path: Path) -> None:
    (tmp_path / "t.tar").write_bytes(tar_of([("a.jpg", b"a"), ("b.jpg", b"b")]))
    (tmp_path / "keys.txt").write_text("t.tar/a.jpg\nt.tar\n")
    source = open_source(str(tmp_path))
    entries = list(objects_of(source, str(tmp_path / "keys.txt"), opens=lambda key: True))
    assert [entry.key for entry in entries] == ["t.tar/a.jpg", "t.tar/b.jpg"]


@pytest.mark.parametrize("etag", ["", "abc", "abc#", "#1:2+3/4x", "abc#0:2+3/4", "abc#9:2+3/4", "abc#1:2+3", "a-b-5"])
def test_etags_of_objects_are_no_members(etag: str) -> None:
    assert address_of("x.tar/a.jpg", etag) is None


def test_no_request_grows_with_what_lies_between_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TarKind, "span_bytes", 100_000)
    members = [(f"{index}.jpg", bytes([index]) * 1000) for index in range(20)]
    tar = tar_of(each for one in members for each in (one, ("n", b"n" * 30_000)))
    source, entries = opened(tmp_path, {"x.tar": tar})
    images = [entry for entry in entries if entry.key.endswith(".jpg")]
    lengths: list[int] = []
    get_range = source.store.get_range

    def counted(key: str, offset: int, length: int, *, etag: str | None = None) -> bytes:
        lengths.append(length)
        return get_range(key, offset, length, etag=etag)

    monkeypatch.setattr(source.store, "get_range", counted)
    assert list(read_all(source, images).values()) == [data for _, data in members]
    assert max(lengths) <= 400_000
    assert len(lengths) < 10
