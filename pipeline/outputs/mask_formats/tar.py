"""One tar per shard, as WebDataset reads it: a member's name is the image's key without its extension, and `.png`."""

import io
import tarfile
from collections.abc import Collection, Iterable, Mapping

from pipeline.outputs.mask_formats.packed import PackedMasks


class TarMasks(PackedMasks):
    """See `packed.PackedMasks`."""

    extension = "tar"

    def build(self, members: Iterable[tuple[str, bytes]]) -> tuple[bytes, list[int]]:
        return build_tar(members)

    def members(self, data: bytes) -> Collection[tuple[int, int]]:
        return read_tar(data).values()


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
