"""Members that will be read soon, so that neighbours come with one request.

The one thing to know: whoever is about to read many members says so first (`ReadPlan.expecting`). Their order is cut
into spans of one container. The first that asks for a member of a span reads up to it; the others wait for that and
take theirs. What was taken is dropped, so that memory is that of the spans at work.
"""

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from pipeline.errors import ImageError, StorageError, StorageUnavailable
from pipeline.sources.kind import ContainerKind
from pipeline.sources.kinds import kind_of
from pipeline.sources.member import Address, address_of
from pipeline.storage.store import ObjectInfo, Store

_Name = tuple[str, str]
"""Key and etag of a member."""


class _Span:
    """Members that are read in one go, by whoever comes first."""

    def __init__(self, kind: ContainerKind) -> None:
        self.kind = kind
        self.places: dict[_Name, Address] = {}
        self.bytes = 0
        self._lock = threading.Lock()
        self._reading: Iterator[bytes | ImageError] | None = None
        self._read: dict[_Name, bytes | ImageError] = {}
        self._error: StorageError | None = None

    def take(self, store: Store, name: _Name) -> bytes | None:
        """The bytes of one member; None where they were taken before. Raises its ImageError, and StorageError for all
        of them alike."""
        with self._lock:
            if self._error is not None:
                raise self._error
            # What comes before it is read first, and kept for those who will ask.
            while name in self.places:
                try:
                    if self._reading is None:
                        self._reading = self.kind.read(store, list(self.places.values()))
                    found = next(self._reading)
                except StorageUnavailable:
                    self._reading = None  # which may pass: the next one asks again, for the rest
                    raise
                except StorageError as error:
                    self._error = error
                    raise
                first = next(iter(self.places))
                del self.places[first]
                self._read[first] = found
            data = self._read.pop(name, None)
        if isinstance(data, ImageError):
            raise data
        return data


class ReadPlan:
    """The spans of all that is expected just now. Thread-safe."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._spans: dict[_Name, _Span] = {}

    @contextmanager
    def expecting(self, entries: Iterable[ObjectInfo]) -> Iterator[None]:
        """Inside, members among `entries` that lie together are read together. They should be taken about in this
        order; what was not taken at the end is dropped."""
        spans = _spans(entries)
        self._spans.update(spans)
        try:
            yield
        finally:
            for name, span in spans.items():
                if self._spans.get(name) is span:
                    del self._spans[name]

    def take(self, key: str, etag: str) -> bytes | None:
        """The bytes of an expected member, once; None for one that nobody expects. Raises StorageError."""
        span = self._spans.get((key, etag))
        return None if span is None else span.take(self._store, (key, etag))


def _spans(entries: Iterable[ObjectInfo]) -> dict[_Name, _Span]:
    spans: dict[_Name, _Span] = {}
    span: _Span | None = None
    last: Address | None = None
    for entry in entries:
        place = address_of(entry.key, entry.etag)
        kind = None if place is None else kind_of(place.container)
        if place is None or kind is None or place.fault is not None:
            continue
        if not (
            span is not None
            and last is not None
            and (last.container, last.etag) == (place.container, place.etag)
            and (kind.span_bytes is None or span.bytes + entry.size <= kind.span_bytes)
            and kind.follows(last, place)
        ):
            span = _Span(kind)
        span.places[entry.key, entry.etag] = place
        span.bytes += entry.size
        spans[entry.key, entry.etag] = span
        last = place
    return spans
