"""Where images are read from: a store in which the members of containers can be named like objects.

`photos.tar/000123.jpg` is the member 000123.jpg of the object photos.tar. A listing names the containers alone
(`pipeline.sources.expansion` opens them); everything else takes a member's key wherever it takes an object's.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from fcn_core.text.printable import printable
from pipeline.errors import ImageError, ObjectChanged, ObjectMissing
from pipeline.sources.ahead import ReadPlan
from pipeline.sources.expansion import UNREAD
from pipeline.sources.kinds import kind_of
from pipeline.sources.lookup import MemberLookup
from pipeline.sources.member import Address, address_of
from pipeline.storage.store import Location, ObjectInfo, Store, check_size


class Source:
    """See `pipeline.storage.store.Store`; what is said here is what differs. Can be pickled if its store can."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._plan = ReadPlan(store)
        self._lookup = MemberLookup(store)

    @property
    def uri(self) -> str:
        return self.store.uri

    @property
    def location(self) -> Location:
        return self.store.location

    def __repr__(self) -> str:
        return f"Source({self.store!r})"

    def __reduce__(self) -> tuple[Callable[[Store], "Source"], tuple[Store]]:
        return Source, (self.store,)

    def expecting(self, entries: Iterable[ObjectInfo]) -> AbstractContextManager[None]:
        """Inside, members among `entries` that lie together in a container come with one request."""
        return self._plan.expecting(entries)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Objects, containers among them, and no members."""
        return self.store.list(prefix)

    def get(
        self, key: str, *, size: int | None = None, etag: str | None = None, most_bytes: int | None = None
    ) -> bytes:
        """A member's bytes are proven to be as many as they should, of the container that was listed; a range has no
        checksum. Raises ImageError for what could not be read of a container.
        """
        place = address_of(key, etag)
        if place is not None and etag is not None:
            if size is not None:
                check_size(f"{self.uri}: {printable(key)}", size, most_bytes)
            return self._read(key, etag, place)
        try:
            return self.store.get(key, size=size, etag=etag, most_bytes=most_bytes)
        except ObjectMissing:
            found = self._lookup.find(key)
            if found is None or etag is not None:
                raise
        return self.get(key, size=found.size, etag=found.etag, most_bytes=most_bytes)

    def get_range(self, key: str, offset: int, length: int, *, etag: str | None = None) -> bytes:
        return self.store.get_range(key, offset, length, etag=etag)

    def head(self, key: str) -> ObjectInfo:
        """Also of a member, for which its container is read from the beginning."""
        try:
            return self.store.head(key)
        except ObjectMissing:
            found = self._lookup.find(key)
            if found is None:
                raise
            return found

    def put(self, key: str, data: bytes) -> None:
        self.store.put(key, data)

    def put_file(self, key: str, path: Path) -> None:
        self.store.put_file(key, path)

    def create(self, key: str, data: bytes) -> None:
        self.store.create(key, data)

    def delete(self, key: str) -> None:
        self.store.delete(key)

    def at(self, path: str) -> "Source":
        return Source(self.store.at(path))

    def check_readable(self) -> None:
        self.store.check_readable()

    def check_writable(self) -> None:
        self.store.check_writable()

    def _read(self, key: str, etag: str, place: Address) -> bytes:
        kind = kind_of(place.container)
        if kind is None:
            raise ObjectMissing(f"{self.uri}: {printable(key)} is in no kind of container that is read here.")
        fault = place.fault
        if fault is None:
            data = self._plan.take(key, etag)
            found = next(kind.read(self.store, [place])) if data is None else data
            if isinstance(found, ImageError):
                raise found
            return found
        if fault.slug == UNREAD:
            self.store.get_range(place.container, 0, 1, etag=place.etag)  # raises what is wrong, if it still is
            raise ObjectChanged(f"{self.uri}: {printable(place.container)} could not be read when it was listed.")
        whole = key == place.container
        raise ImageError(
            "damaged_container" if whole else "unsupported_member",
            f"{printable(key)}: {kind.explain(replace(fault, name=None if whole else key))}.",
        )
