"""Tars as WebDataset and img2dataset write them: images among their siblings (.json, .txt), not compressed."""

import re
from collections.abc import Iterator, Mapping, Sequence

from pipeline.errors import ImageError
from pipeline.sources.member import Address, Fault, Member
from pipeline.sources.range_scanner import RangeScanner
from pipeline.sources.tar_headers import read_members
from pipeline.storage.store import Store

WITH_GAPS = 4
"""A request may be so many times as long as the members of a span, for what lies between them."""

GAP_BYTES = 1 << 18
"""So much that lies between two members is read with them: less than another request takes."""

_PLACE = re.compile(r"(\d{1,19})\+(\d{1,19})")

_EXPLANATIONS: Mapping[str, str] = {
    "truncated": "the file ends in the middle of a member that begins at byte {at}; copy it again",
    "no_end": "the file ends at byte {at} without the end mark of a tar, so members may be missing; copy it again",
    "bad_header": "the header at byte {at} is damaged, so what follows could not be read; copy it again",
    "bad_pax": "the PAX header at byte {at} is damaged, so what follows could not be read; copy it again",
    "header_too_long": "the header at byte {at} is longer than any name needs, so what follows was not read",
    "data_after_end": "there is more behind the end of the tar at byte {at}, which no program reads; were two joined?",
    "compressed": "the tar is compressed, so its members cannot be read in ranges; unpack it",
    "not_a_tar": "the file is no tar",
    "link": "the member is a link to another one and has no bytes of its own; pack the files themselves",
    "sparse": "the member is a sparse file; pack it again without --sparse",
    "name_too_long": "the member's name is longer than any file system takes",
}


class TarKind:
    """See `pipeline.sources.kind.ContainerKind`. A member's place is `<offset>+<length>`."""

    suffix = ".tar"
    holds_others = True
    span_bytes: int | None = 1 << 24

    def members(self, file: RangeScanner, image_column: str | None = None) -> Iterator[Member | Fault]:
        return read_members(file)

    def follows(self, first: Address, second: Address) -> bool:
        (offset, length), (start, _) = _range(first), _range(second)
        return 0 <= start - (offset + length) <= GAP_BYTES

    def read(self, store: Store, places: Sequence[Address]) -> Iterator[bytes | ImageError]:
        for ranges in _requests(list(map(_range, places)), WITH_GAPS * (self.span_bytes or 0)):
            begin, end = ranges[0][0], ranges[-1][0] + ranges[-1][1]
            data = b""
            if begin < end:
                data = store.get_range(places[0].container, begin, end - begin, etag=places[0].etag)
            for offset, length in ranges:
                yield data[offset - begin : offset - begin + length]

    def explain(self, fault: Fault) -> str:
        return _EXPLANATIONS.get(fault.slug, "it cannot be read from byte {at} on").format(at=f"{fault.at:,}")


def _requests(ranges: Sequence[tuple[int, int]], most: int) -> Iterator[Sequence[tuple[int, int]]]:
    """Ranges that rise, as many at a time as lie in `most` bytes, with what is between them; one at least."""
    first = 0
    for index, (offset, length) in enumerate(ranges):
        if index > first and offset + length - ranges[first][0] > most:
            yield ranges[first:index]
            first = index
    yield ranges[first:]


def _range(place: Address) -> tuple[int, int]:
    match = _PLACE.fullmatch(place.place)
    return (int(match[1]), int(match[2])) if match else (0, 0)
