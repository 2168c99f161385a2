"""Tars as sources: every member as any other program reads it; of a hostile tar rows or one sentence, and no more."""

import io
import random
import tarfile
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources.member import Fault, Member
from pipeline.sources.tar_headers import HEADER_BYTES, read_members
from tests.containers import tar_of

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
LONG = "deep/" * 40 + "a.jpg"


class Held:
    """A tar in memory, read by ranges."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]


def found(data: bytes) -> list[Member | Fault]:
    return list(read_members(Held(data)))


def members(data: bytes) -> list[tuple[str, bytes]]:
    """Names and bytes of what could be read."""
    read = []
    for each in found(data):
        if isinstance(each, Member):
            offset, length = map(int, each.place.split("+"))
            assert length == each.size
            read.append((each.name, data[offset : offset + length]))
    return read


def faults(data: bytes) -> list[tuple[str, str | None]]:
    return [(each.slug, each.name) for each in found(data) if isinstance(each, Fault)]


NAMES = st.text(st.characters(exclude_characters="\0\n", exclude_categories=["Cs"]), min_size=1, max_size=150).filter(
    lambda name: not name.endswith("/") and not name.startswith(("./", "/")) and name.strip()
)


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@given(content=st.lists(st.tuples(NAMES, st.binary(max_size=1500)), max_size=6))
def test_members_are_those_that_went_in(format: int, content: list[tuple[str, bytes]]) -> None:
    data = tar_of(content, format)
    assert members(data) == content
    assert faults(data) == []


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", ["a.jpg", LONG, "x" * 95 + ".jpg", "../a.jpg", "/etc/a.jpg", "a//b.jpg", "ä/日.jpg"])
def test_names_are_kept_as_they_are(format: int, name: str) -> None:
    assert members(tar_of([(name, b"bytes"), ("next.jpg", b"")], format)) == [(name, b"bytes"), ("next.jpg", b"")]


def test_what_tar_puts_before_names_is_left_off() -> None:
    assert [name for name, _ in members(tar_of([("./a.jpg", b"a"), (".//./b/c.jpg", b"b")]))] == ["a.jpg", "b/c.jpg"]


def test_folders_and_devices_are_no_members_and_links_are_explained() -> None:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for name, kind in (("d", tarfile.DIRTYPE), ("f", tarfile.FIFOTYPE), ("l.jpg", tarfile.LNKTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "a.jpg"
            tar.addfile(member)
        tar.addfile(tarfile.TarInfo("a.jpg"))
    assert members(sink.getvalue()) == [("a.jpg", b"")]
    assert faults(sink.getvalue()) == [("link", "l.jpg")]


def test_a_tar_cut_at_any_block_gives_its_whole_members_and_one_fault() -> None:
    content = [(f"{index}.jpg", bytes([index]) * size) for index, size in enumerate((0, 1, 512, 700, 2000))]
    content.insert(2, (LONG, b"long"))
    data = tar_of(content)
    end = data.rindex(bytes([4]) * 2000) + 2048
    for length in range(0, end + 1, 512):
        cut = data[:length]
        assert members(cut) == content[: len(members(cut))]
        assert [name for _, name in faults(cut)] == [None], f"cut at byte {length}"
    for length in range(end + 512, len(data) + 1, 512):
        assert (members(data[:length]), faults(data[:length])) == (content, [])


@pytest.mark.parametrize("format", FORMATS)
def test_a_damaged_header_ends_the_reading_there(format: int) -> None:
    content = [("a.jpg", b"a" * 100), ("b.jpg", b"b" * 100), ("c.jpg", b"c")]
    data = bytearray(tar_of(content, format))
    data[1024 + 3] ^= 1  # in the name of b.jpg
    assert members(bytes(data)) == content[:1]
    assert faults(bytes(data)) == [("bad_header", None)]


@pytest.mark.parametrize(
    ("data", "slug"),
    [
        (b"", "no_end"),
        (b"\x1f\x8b\x08" + b"x" * 2000, "compressed"),
        (b"BZh9" + b"x" * 2000, "compressed"),
        (b"\xff\xd8\xff" + b"x" * 2000, "not_a_tar"),
        (b"x" * 100, "truncated"),
        (b"\0" * 10_240, None),
        (tar_of([("a.jpg", b"a")]) + tar_of([("b.jpg", b"b")]), "data_after_end"),
        (tar_of([("a.jpg", b"a")]) + b"what a tape's block held before" * 500, None),
        (tar_of([("a.jpg", b"a")]) + b"\0" * (1 << 20) + tar_of([("b.jpg", b"b")]), "data_after_end"),
    ],
)
def test_what_is_no_plain_tar_is_said_to_be_none(data: bytes, slug: str | None) -> None:
    assert [name for name, _ in faults(data)] == ([] if slug is None else [slug])


def header(name: bytes = b"a.jpg", size: bytes = b"00000000000", kind: bytes = b"0") -> bytes:
    """A header with any fields, and the checksum that they have."""
    block = bytearray(512)
    block[: len(name)], block[124 : 124 + len(size)], block[156:157] = name, size, kind
    block[257:265] = b"ustar\x0000"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


END = b"\0" * 1024


@pytest.mark.parametrize(
    ("data", "slug"),
    [
        (header(size=b"77777777777") + END, "truncated"),
        (header(size=b"\x80" + b"\0" * 3 + b"\x7f" + b"\xff" * 7) + END, "truncated"),
        (header(size=b"\x80" + b"\xff" * 11) + END, "bad_header"),
        (header(size=b"\xff" * 12) + END, "bad_header"),
        (header(size=b"0x0000000ff") + END, "bad_header"),
        (header(size=b"%011o" % (HEADER_BYTES + 1), kind=b"x") + END, "header_too_long"),
        (header(size=b"77777777777", kind=b"x") + END, "header_too_long"),
        (header(size=b"77777777777", kind=b"L") + END, "header_too_long"),
        (header(size=b"%011o" % 600, kind=b"x") + b"x" * 512, "truncated"),
    ],
)
def test_sizes_that_cannot_be_are_not_believed(data: bytes, slug: str) -> None:
    assert members(data) == []
    assert faults(data) == [(slug, None)]


@pytest.mark.parametrize(
    "records",
    [b"nonsense", b"9999 path=a\n", b"0 path=a\n", b"-5 path=a\n", b"11 path=a.j", b"8 path-\n", b"13 size=-99\n",
     b"30 size=99999999999999999999\n"],
)  # fmt: skip
def test_a_damaged_pax_header_ends_the_reading(records: bytes) -> None:
    data = header(size=b"%011o" % len(records), kind=b"x") + records.ljust(512, b"\0") + header() + END
    assert members(data) == []
    assert faults(data) == [("bad_pax", None)]


@pytest.mark.parametrize("records", [b"22 GNU.sparse.major=1\n", b"30 GNU.sparse.name=there.jpg\n"])
def test_sparse_files_are_explained_and_the_next_is_read(records: bytes) -> None:
    records = b"%d%s" % (len(records.partition(b" ")[2]) + 3, b" " + records.partition(b" ")[2])
    sparse = header(size=b"%011o" % len(records), kind=b"x") + records.ljust(512, b"\0") + header() + header(b"b.jpg")
    assert [slug for slug, _ in faults(sparse + END)] == ["sparse"]
    assert members(sparse + END) == [("b.jpg", b"")]
    more = bytearray(header(kind=b"S"))
    more[482] = 1
    more[148:156] = b" " * 8
    more[148:156] = b"%06o\0 " % sum(more)
    old = bytes(more) + b"\0" * 512 + header(b"b.jpg") + END
    assert faults(old) == [("sparse", "a.jpg")]
    assert members(old) == [("b.jpg", b"")]


def test_a_name_that_no_file_system_takes_is_one_fault() -> None:
    data = tar_of([("x" * 5000 + ".jpg", b"long"), ("b.jpg", b"b")])
    assert [slug for slug, _ in faults(data)] == ["name_too_long"]
    assert members(data) == [("b.jpg", b"b")]


def test_a_tar_in_a_tar_is_a_member_and_nothing_is_unpacked_from_it() -> None:
    inner = tar_of([("inner.jpg", b"x")])
    assert members(tar_of([("inner.tar", inner), ("a.jpg", b"a")])) == [("inner.tar", inner), ("a.jpg", b"a")]


@given(st.data())
def test_flipped_bytes_never_raise_and_never_give_bytes_from_outside(choice: st.DataObject) -> None:
    data = bytearray(tar_of([("a.jpg", b"a" * 600), (LONG, b"b" * 10), ("c.jpg", b"")]))
    for place in choice.draw(st.lists(st.integers(0, len(data) - 1), min_size=1, max_size=8)):
        data[place] = choice.draw(st.integers(0, 255))
    for each in found(bytes(data)):
        if isinstance(each, Member):
            offset, length = map(int, each.place.split("+"))
            assert offset + length <= len(data)


class Endless:
    """A tar of empty members that is nowhere held."""

    def __init__(self, count: int) -> None:
        self.size = count * 512 + 1024

    def read(self, offset: int, length: int) -> bytes:
        index = offset // 512
        return header(b"%09d.jpg" % index) if offset < self.size - 1024 else b"\0" * min(length, self.size - offset)


def test_members_are_read_in_flat_memory() -> None:
    tracemalloc.start()
    try:
        count = sum(isinstance(each, Member) for each in read_members(Endless(20_000)))
        held = tracemalloc.get_traced_memory()[1]
        assert count == 20_000
        assert held < 1 << 20, "as a list they are 3.7 MB; other threads of the tests hold something meanwhile"
    finally:
        tracemalloc.stop()


def test_random_bytes_behind_a_good_header_are_a_fault() -> None:
    noise = random.Random(0).randbytes(4096)
    assert faults(header() + noise) == [("bad_header", None)]
