"""The masks of a shard in one tar, so that a shard costs one PUT for its masks instead of one per image.

The tar is as WebDataset reads it: a member's name is the image's key without its extension, and `.png`. Equal masks
give equal bytes: members are in plan order, with no times, owners or modes of their own. The tar's name says its
digest, so a name never stands for two things: what is there already is what was to be written. Results rows say where
in which tar a mask lies, so nobody who wants one mask reads the headers.
"""

import hashlib
import io
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from pipeline.outputs.identity import Recipe, digest, of_generation, safe_path

LONGEST_PART = 200
LONGEST_NAME = 900
"""Bytes: what a file system takes, so that `tar -x` works anywhere."""

_DIGEST = re.compile(r"\.([0-9a-f]{16})(?:-[1-9]\d*)?\.tar")
_EXTENSION = re.compile(r"(?<=.)\.[^.]+$", re.DOTALL)


def tar_key(recipe: Recipe, shard: int, data: bytes, generation: int = 0) -> str:
    """The name under OUTPUT of a tar of one shard's masks. Equal work of one generation has one name, in any run."""
    name = f"shard-{shard:08d}.{hashlib.sha256(data).hexdigest()[:16]}.tar"
    return f"mask_tars/{recipe.name}/{of_generation(name, generation)}"


def is_tar_of(key: str, data: bytes) -> bool:
    """Whether these are the bytes that the tar of that name was written with."""
    match = _DIGEST.search(key)
    return match is not None and match[1] == hashlib.sha256(data).hexdigest()[:16]


def member_names(keys: Sequence[str]) -> list[str]:
    """The name in the tar of the mask of each of a shard's keys, all different and inside any folder.

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


def build_tar(members: Iterable[tuple[str, bytes]]) -> tuple[bytes, list[int]]:
    """A tar of (name, bytes) in the order given, and where the bytes of each begin in it."""
    sink = io.BytesIO()
    offsets = []
    with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)  # times and owners are zero unless they are said
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
            offsets.append(tar.offset - -(-len(data) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE)
    return sink.getvalue(), offsets


def read_tar(data: bytes) -> Mapping[str, tuple[int, int]]:
    """Offset and length of each member of a tar by its name. Raises tarfile.TarError for what is no whole tar."""
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        found = {member.name: (member.offset_data, member.size) for member in tar if member.isreg()}
    if any(offset + length > len(data) for offset, length in found.values()):
        raise tarfile.ReadError("the tar ends in the middle of a member")
    return found
