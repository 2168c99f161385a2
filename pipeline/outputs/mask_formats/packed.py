"""The masks of a shard in one archive, so that a shard costs one PUT for its masks instead of one per image.

A format is a `PackedMasks` that defines how such an archive is built and read. Equal masks give equal bytes: members
are in plan order, with no times, owners or modes of their own. The archive's name has its digest, so a name never
stands for two things: what is there already is what was to be written. A row's `mask_key` is
`<file>#<offset>+<length>`, so that one mask is read with one request and without the archive's headers.
"""

import hashlib
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from pipeline.errors import ObjectChanged, ObjectMissing
from pipeline.outputs.identity import Identity, Recipe, digest
from pipeline.outputs.mask_formats.base import MaskFile, MaskTarget, PredictedMask
from pipeline.outputs.names import of_generation, safe_path
from pipeline.outputs.results import ResultRow
from pipeline.outputs.shard import Shard
from pipeline.storage.store import Store, create_own

ARCHIVE_BYTES = 1 << 27
"""Masks that a shard's archive takes, in bytes: it is built in memory. What would not fit becomes objects."""

LONGEST_PART = 200
LONGEST_NAME = 900
"""Bytes: what a file system takes, so that an archive can be unpacked anywhere."""

_DIGEST = re.compile(r"\.([0-9a-f]{16})(?:-[1-9]\d*)?\.[a-z0-9]+")
_EXTENSION = re.compile(r"(?<=.)\.[^.]+$", re.DOTALL)


@dataclass(frozen=True, slots=True)
class MaskPart:
    """`length` bytes from byte `offset` of the archive `file`."""

    file: str
    offset: int
    length: int

    def __str__(self) -> str:
        return f"{self.file}#{self.offset}+{self.length}"


class PackedMasks(ABC):
    """See `base.MaskFormat`. `extension` is that of the archives, and they lie in `mask_<extension>s`."""

    extension: str
    is_shared = True
    overhead_bytes = 1024

    @property
    def folder(self) -> str:
        return f"mask_{self.extension}s"

    @abstractmethod
    def build(self, members: Iterable[tuple[str, bytes]]) -> tuple[bytes, list[int]]:
        """An archive of (name, bytes), not compressed, in the order given; and where the bytes of each begin in it."""

    @abstractmethod
    def members(self, data: bytes) -> Collection[tuple[int, int]]:
        """Offset and length of each member of an archive. Raises for what is no whole archive."""

    def puts(self, images: int, shards: int) -> int:
        return shards

    def writer(self, target: MaskTarget) -> "PackedWriter":
        return PackedWriter(self, target)

    def part(self, mask_key: str) -> MaskPart | None:
        """The part of an archive that a row's `mask_key` means; None where it means none."""
        match = self._part.fullmatch(mask_key)
        return MaskPart(match[1], int(match[2]), int(match[3])) if match else None

    def read(self, store: Store, mask_key: str) -> bytes:
        part = self.part(mask_key)
        if part is None:
            return store.get(mask_key)
        try:
            return store.get_range(part.file, part.offset, part.length)
        except ObjectChanged as error:  # the archive is no longer as long as it was
            raise ObjectMissing(str(error)) from error

    def file(self, mask_key: str) -> str:
        part = self.part(mask_key)
        return part.file if part else mask_key

    def is_place(
        self, mask_key: str, recipe: Recipe, image: Identity, shard: int | None, generations: Collection[int]
    ) -> bool:
        part = self.part(mask_key)
        begin = f"{self.folder}/{recipe.name}/shard-" + (f"{shard:08d}." if shard is not None else "")
        return part is not None and part.file.startswith(begin)

    def parse(self, file: str) -> MaskFile | None:
        match = self._name.fullmatch(file)
        return MaskFile(match[1], match[2], int(match[3] or 0)) if match else None

    def names(self, shard: Shard) -> Iterator[str]:
        yield f"shard-{shard.number:08d}"

    def extract(self, data: bytes, mask_key: str) -> bytes:
        part = self.part(mask_key)
        return data[part.offset : part.offset + part.length] if part else data

    def problems(self, file: str, data: bytes, mask_keys: Sequence[str]) -> Iterator[str]:
        """Whether the archive is the one that was written, and others than us can read it: every mask is where a header
        says that a member is."""
        if not is_archive_of(file, data):
            yield f"is not the {self.extension} that was written: its name says another SHA-256"
        members = set(self.members(data))
        parts = [part for key in mask_keys if (part := self.part(key))]
        lost = [part for part in parts if (part.offset, part.length) not in members]
        if lost:
            yield f"{len(lost)} masks, {lost[0]} first, are where the {self.extension} has no member"

    def key(self, recipe: Recipe, shard: int, data: bytes, generation: int = 0) -> str:
        """The name under OUTPUT of an archive of a shard's masks, the same for equal work of one generation."""
        name = f"shard-{shard:08d}.{hashlib.sha256(data).hexdigest()[:16]}.{self.extension}"
        return f"{self.folder}/{recipe.name}/{of_generation(name, generation)}"

    @cached_property
    def _name(self) -> re.Pattern[str]:
        name = rf"{self.folder}/([0-9a-f]{{8}})/(shard-\d{{8}})\.[0-9a-f]{{16}}(?:-([1-9]\d*))?\.{self.extension}"
        return re.compile(name)

    @cached_property
    def _part(self) -> re.Pattern[str]:
        name = rf"{self.folder}/[0-9a-f]{{8}}/shard-\d{{8}}\.[0-9a-f]{{16}}(?:-[1-9]\d*)?\.{self.extension}"
        return re.compile(rf"({name})#(\d+)\+(\d+)")


class PackedWriter:
    """See `base.MaskWriter`. Holds the masks of the shard until all are there."""

    def __init__(self, packing: PackedMasks, target: MaskTarget) -> None:
        self._packing = packing
        self._target = target
        self._held: dict[int, PredictedMask] = {}
        self._bytes = 0

    def write(self, image: PredictedMask) -> None:
        return None

    def add(self, index: int, image: PredictedMask) -> bool:
        if self._bytes + len(image.png) > ARCHIVE_BYTES:
            return False
        self._bytes += len(image.png)
        self._held[index] = image
        return True

    def finish(self) -> tuple[dict[int, ResultRow], dict[int, PredictedMask]]:
        """Write the archive, unless nothing is held.

        Where a file that others have damaged stands in its place, all masks are returned: it is not written over.
        """
        held = dict(sorted(self._held.items()))
        if not held:
            return {}, {}
        target = self._target
        names = member_names([entry.key for entry in target.shard.entries])
        data, offsets = self._packing.build((names[index], image.png) for index, image in held.items())
        key = self._packing.key(target.recipe, target.shard.number, data, target.generation)
        if not create_own(target.output, key, data):
            return {}, held
        rows = {
            index: replace(image.row, mask_key=str(MaskPart(key, offset, len(image.png))))
            for (index, image), offset in zip(held.items(), offsets, strict=True)
        }
        return rows, {}


def is_archive_of(key: str, data: bytes) -> bool:
    """Whether these are the bytes that the archive of that name was written with."""
    match = _DIGEST.search(key)
    return match is not None and match[1] == hashlib.sha256(data).hexdigest()[:16]


def member_names(keys: Sequence[str]) -> list[str]:
    """The name in the archive of the mask of each of a shard's keys, all different and inside any folder.

    The key without its extension, and `.png`. Dots that are left in its last part are written `%2e`, for WebDataset
    takes all that follows the first one for the extension; characters that no file should have in its name are written
    that way too. Of keys that would meet (a.jpg and a.png), each keeps its extension and adds a digest.
    """
    names = [_name(key, _EXTENSION.sub("", key)) for key in keys]
    uses = Counter(names)
    return [
        name if uses[name] == 1 else _name(key, key, f"~{digest(key, 8)}")
        for key, name in zip(keys, names, strict=True)
    ]


def _name(key: str, stem: str, mark: str = "") -> str:
    folder, slash, last = safe_path(stem).rpartition("/")
    name = f"{folder}{slash}{last.replace('.', '%2e')}{mark}.png"
    if name.startswith("__"):
        name = "%5f" + name[1:]  # WebDataset passes over what begins so
    if len(name.encode()) > LONGEST_NAME or any(len(part.encode()) > LONGEST_PART for part in name.split("/")):
        return f"~{digest(key, 32)}.png"
    return name
