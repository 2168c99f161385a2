"""The headers of a tar, read as data: ustar, old v7, GNU and PAX. Never extracts anything.

The one thing to know: a tar may be a stranger's. What a header claims is believed only where it fits the file, no
header is read that is larger than HEADER_BYTES, and whatever cannot be understood becomes a `Fault`: of one member
where the next header can still be found, else of all that follows.
"""

from collections.abc import Iterator, Mapping
from typing import Protocol

from pipeline.sources.member import Fault, Member
from pipeline.storage.local_files import escape

BLOCK = 512
HEADER_BYTES = 1 << 20
"""Of a PAX header or a GNU long name; real ones have some hundred."""

LONGEST_NAME = 4096
"""Bytes of a member's name; no file system takes a longer path."""

PADDING_BYTES = 1 << 20
"""Zeros that tape-minded programs leave behind the end of a tar. More than that is no padding."""

_LARGEST = (1 << 63) - 1
_REGULAR = b"0\x007"
_LINKS = b"12"
_NO_DATA = b"123456"
_SPARSE_KEYS = (b"GNU.sparse.major", b"GNU.sparse.size", b"GNU.sparse.map", b"GNU.sparse.name", b"SCHILY.realsize")


class Bytes(Protocol):
    """A file by ranges."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int) -> bytes: ...


class _Unreadable(Exception):
    """A header that makes no sense; the argument is the fault's slug."""


def read_members(tar: Bytes) -> Iterator[Member | Fault]:
    """The files in a tar in its order, with what cannot be read of it.

    A `Fault` without a name is the last that comes. A member's place is `<offset of its bytes>+<length>`.
    """
    offset = 0
    shared: dict[bytes, bytes] = {}
    own: dict[bytes, bytes] = {}
    while True:
        began = offset
        try:
            block = tar.read(offset, BLOCK)
            if not any(block):
                yield from _end(tar, offset, block)
                return
            if len(block) < BLOCK:
                raise _Unreadable("truncated")
            kind, size = _checked(block, first=offset == 0)
            offset += BLOCK
            if kind in b"LKxXg":
                data = _small(tar, offset, size)
                if kind == b"L":
                    own[b"path"] = data.rstrip(b"\0")
                elif kind != b"K":
                    (shared if kind == b"g" else own).update(_records(data))
                offset += _padded(size)
                continue
            told = shared | own
            own = {}
            raw = told.get(b"GNU.sparse.name") or told.get(b"path") or _name(block)
            name = _readable(raw[:LONGEST_NAME])
            is_sparse = kind == b"S" or any(key in told for key in _SPARSE_KEYS)
            if kind == b"S":
                offset = _after_sparse_map(tar, offset, block)
            size = _told_size(told, size)
            if kind in _NO_DATA:
                if kind in _LINKS:
                    yield Fault("link", began, name)
                continue
            if offset + size > tar.size:
                raise _Unreadable("truncated")
            if is_sparse or len(raw) > LONGEST_NAME:
                yield Fault("sparse" if is_sparse else "name_too_long", began, name)
            elif kind in _REGULAR and not (kind == b"\0" and raw.endswith(b"/")):
                yield Member(name, size, f"{offset}+{size}")
            offset += _padded(size)
        except _Unreadable as error:
            yield Fault(str(error), began)
            return


def _end(tar: Bytes, offset: int, block: bytes) -> Iterator[Fault]:
    if len(block) < BLOCK:
        yield Fault("no_end" if not block else "truncated", offset)
    elif tar.size - offset > PADDING_BYTES or _goes_on(tar.read(offset, tar.size - offset)):
        yield Fault("data_after_end", offset)


def _goes_on(padding: bytes) -> bool:
    """Whether behind the zeros at an end another tar begins. Other bytes may be what a tape's block held before."""
    begin = (len(padding) - len(padding.lstrip(b"\0"))) // BLOCK * BLOCK
    block = padding[begin : begin + BLOCK]
    if len(block) < BLOCK:
        return False
    try:
        _checked(block, first=False)
    except _Unreadable:
        return False
    return True


def _checked(block: bytes, *, first: bool) -> tuple[bytes, int]:
    """The type of a header and the size it gives. Raises _Unreadable unless its checksum is right."""
    stored = block[148:156]
    unsigned = sum(block) - sum(stored) + 8 * 32
    try:
        checksum = _number(stored)
    except _Unreadable:
        checksum = -1
    if checksum != unsigned:
        # Some old programs summed up signed bytes.
        signed = unsigned - 256 * sum(byte > 127 for byte in block[:148] + block[156:])
        if checksum != signed:
            if not first:
                raise _Unreadable("bad_header")
            raise _Unreadable("compressed" if _is_compressed(block) else "not_a_tar")
    return block[156:157], _number(block[124:136])


def _is_compressed(block: bytes) -> bool:
    return block.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18"))


def _number(field: bytes) -> int:
    """A number as headers have it: octal digits, or two's complement behind a byte that says so."""
    if field[0] == 0x80:
        value = int.from_bytes(field[1:], "big")
    elif field[0] == 0xFF:
        raise _Unreadable("bad_header")  # below zero
    else:
        text = field.partition(b"\0")[0].strip(b" ")
        if not all(byte in b"01234567" for byte in text):
            raise _Unreadable("bad_header")
        value = int(text or b"0", 8)
    if value > _LARGEST:
        raise _Unreadable("bad_header")
    return value


def _told_size(told: Mapping[bytes, bytes], size: int) -> int:
    text = told.get(b"size")
    if text is None:
        return size
    if not (text.isdigit() and len(text) < 20 and int(text) <= _LARGEST):
        raise _Unreadable("bad_pax")
    return int(text)


def _small(tar: Bytes, offset: int, size: int) -> bytes:
    if size > HEADER_BYTES:
        raise _Unreadable("header_too_long")
    data = tar.read(offset, size)
    if len(data) < size:
        raise _Unreadable("truncated")
    return data


def _records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The records of a PAX header, `<length> <key>=<value>` and a line break each."""
    at = 0
    while at < len(data) and data[at] != 0:
        space = data.find(b" ", at, at + 9)
        digits = data[at:space] if space > 0 else b""
        end = at + int(digits) if digits.isdigit() else 0
        if not space < end <= len(data) or data[end - 1] != 10:
            raise _Unreadable("bad_pax")
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if not equals:
            raise _Unreadable("bad_pax")
        yield key, value
        at = end


def _after_sparse_map(tar: Bytes, offset: int, block: bytes) -> int:
    """Where the data of an old GNU sparse file begins: behind the blocks that go on with its map."""
    more = block[482]
    while more:
        block = tar.read(offset, BLOCK)
        if len(block) < BLOCK:
            raise _Unreadable("truncated")
        more = block[504]
        offset += BLOCK
    return offset


def _name(block: bytes) -> bytes:
    name = block[:100].partition(b"\0")[0]
    if block[257:263] == b"ustar\0" and block[345]:
        return block[345:500].partition(b"\0")[0] + b"/" + name
    return name


def _readable(name: bytes) -> str:
    """A name as part of a key: UTF-8, without the `./` that `tar -c .` puts before it."""
    while name.startswith(b"./"):
        name = name[2:].lstrip(b"/")
    return escape(name)


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
