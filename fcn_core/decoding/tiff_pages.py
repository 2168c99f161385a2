"""Which page of a TIFF is the picture: the first that is neither a thumbnail nor a mask.

Directories are read here, with a bound on their number, their loops and their contents, before a library sees the file.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from fcn_core.decoding.refusals import CUT_OFF, damaged, unsupported
from fcn_core.errors import DecodeError

MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

_NEW_SUBFILE_TYPE, _SUBFILE_TYPE, _SUB_IFDS = 254, 255, 330
_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_OLD_REDUCED = 2
_MAX_DIRECTORIES = 1000
_MAX_ENTRIES = 4096
# What decides how a page's pixels come out: an entry of these that cannot be read makes them wrong, not poorer.
_SINGLE = frozenset([254, 255, 256, 257, 259, 262, 266, 274, 277, 278, 284, 317, 322, 323])
_OF_PIXELS = _SINGLE | {
    258,
    273,
    279,
    292,
    320,
    324,
    325,
    332,
    338,
    339,
    347,
    512,
    513,
    514,
    519,
    520,
    521,
    529,
    530,
    532,
}
_REQUIRED = (256, 257, 262)
_BITS_PER_SAMPLE, _SAMPLES_PER_PIXEL = 258, 277
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}


@dataclass(frozen=True, slots=True)
class TagEntry:
    """One tag: type and number of values, and where they lie in the file."""

    kind: int
    count: int
    position: int


@dataclass(frozen=True, slots=True)
class Directory:
    offset: int
    entries: dict[int, TagEntry]
    following: int
    """Offset of the next directory; 0 at the last."""


@dataclass(frozen=True, slots=True)
class TiffBytes:
    """A TIFF file's bytes, and how to read its directories."""

    data: bytes
    order: str
    is_big: bool

    @classmethod
    def of(cls, data: bytes) -> "TiffBytes":
        if len(data) < 16:
            raise DecodeError("truncated", CUT_OFF)
        return cls(data, "<" if data[:2] == b"II" else ">", data[2:4] in (b"+\0", b"\0+"))

    @property
    def first(self) -> int:
        """Offset of the first directory."""
        return int(
            struct.unpack_from(f"{self.order}{'Q' if self.is_big else 'I'}", self.data, 8 if self.is_big else 4)[0]
        )

    def starting_at(self, offset: int) -> bytes:
        """The same file with another directory as its first."""
        form, place = ("Q", 8) if self.is_big else ("I", 4)
        packed = struct.pack(f"{self.order}{form}", offset)
        return self.data[:place] + packed + self.data[place + len(packed) :]

    def directory(self, offset: int) -> Directory:
        """Raises DecodeError for one that does not lie within the file, or whose entries for pixels do not."""
        head, item, value, tail = ("Q", 20, 8, "Q") if self.is_big else ("H", 12, 4, "I")
        count = self._number(head, offset)
        start = offset + struct.calcsize(head)
        if count > _MAX_ENTRIES:
            raise damaged(f"directory at byte {offset} has {count} entries")
        entries: dict[int, TagEntry] = {}
        for at in range(start, start + count * item, item):
            tag, kind = self._number("H", at), self._number("H", at + 2)
            values = self._number("Q" if self.is_big else "I", at + 4)
            position = at + item - value
            if kind not in _SIZES:
                if tag in _OF_PIXELS:
                    raise damaged(f"tag {tag} has values of type {kind}")
                continue
            size = _SIZES[kind] * values
            if size > value:
                position = self._number("Q" if self.is_big else "I", position)
            if position + size > len(self.data):
                if tag in _OF_PIXELS:
                    raise DecodeError("truncated", CUT_OFF)
                continue
            if tag in _SINGLE and (values != 1 or kind not in _INTEGERS):
                raise damaged(f"tag {tag} has {values} values of type {kind}")
            if tag in entries and tag in _OF_PIXELS:
                raise damaged(f"tag {tag} is there twice")
            entries[tag] = TagEntry(kind, values, position)
        return Directory(offset, entries, self._number(tail, start + count * item))

    def check_complete(self, directory: Directory) -> None:
        """Raises DecodeError if a directory lacks what a picture cannot do without; readers would assume something."""
        lacking = [tag for tag in _REQUIRED if tag not in directory.entries]
        samples = self.integers(directory, _SAMPLES_PER_PIXEL, 1) or [1]
        bits = directory.entries.get(_BITS_PER_SAMPLE)
        if lacking:
            raise damaged(f"the page has no tag {', '.join(map(str, lacking))}")
        if bits is None and samples[0] > 1:
            raise unsupported(f"TIFF of {samples[0]} samples a pixel that does not say their depth")
        if bits is not None and bits.count not in (1, samples[0]):
            raise damaged(f"the page has {samples[0]} samples a pixel and says the depth of {bits.count}")

    def integers(self, directory: Directory, tag: int, most: int) -> list[int]:
        """The first values of a tag, up to `most`; empty if it is not there or holds no integers."""
        entry = directory.entries.get(tag)
        if entry is None or entry.kind not in _INTEGERS:
            return []
        form = f"{self.order}{min(entry.count, most)}{_INTEGERS[entry.kind]}"
        return list(struct.unpack_from(form, self.data, entry.position))

    def _number(self, form: str, position: int) -> int:
        try:
            return int(struct.unpack_from(self.order + form, self.data, position)[0])
        except struct.error as error:
            raise DecodeError("truncated", CUT_OFF) from error


def picture(file: TiffBytes) -> Directory:
    """The first page of full resolution, sub-pages (a DNG has its picture in one) included; the first page of all if
    each says that it is a reduced one.
    """
    first = None
    for directory in _directories(file):
        first = first or directory
        kind = file.integers(directory, _NEW_SUBFILE_TYPE, 1)
        old = file.integers(directory, _SUBFILE_TYPE, 1)
        if not (kind and kind[0] & (_REDUCED | _MASK)) and not (not kind and old == [_OLD_REDUCED]):
            return directory
    if first is None:
        raise DecodeError("truncated", CUT_OFF)
    return first


def _directories(file: TiffBytes) -> Iterator[Directory]:
    """Every page followed by its sub-pages, each once, up to a bound."""
    seen: set[int] = set()
    offset = file.first
    while offset and offset not in seen and len(seen) < _MAX_DIRECTORIES:
        seen.add(offset)
        directory = file.directory(offset)
        yield directory
        for below in file.integers(directory, _SUB_IFDS, _MAX_DIRECTORIES):
            if below not in seen and len(seen) < _MAX_DIRECTORIES:
                seen.add(below)
                yield file.directory(below)
        offset = directory.following
