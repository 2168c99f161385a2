"""A listing with its containers opened: in the place of a tar come its members.

Several containers are read at a time, in large ranges. They come in the listing's order, the members of each in the
order in which they are read best, which need not be that of their keys.
"""

import hashlib
import logging
import threading
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

from pipeline.errors import StorageError, StorageUnavailable
from pipeline.logfmt import key_values
from pipeline.sources.kind import ContainerKind, NoImages
from pipeline.sources.kinds import kind_of
from pipeline.sources.member import Fault, Member, entry_of
from pipeline.sources.range_scanner import RangeScanner, ScanStopped
from pipeline.storage.store import ObjectInfo, Store

log = logging.getLogger(__name__)

CONTAINERS_AT_ONCE = 8
"""Containers that are read at the same time; each has one window in memory."""

MEMBERS_AHEAD = 1 << 13
"""Members of a container that wait for those before them, at most."""

_OBJECTS_AHEAD = 1 << 14

UNREAD = "unread"
"""The fault of a container that could not be read as it was listed; reading it again finds out why."""


@dataclass
class Opened:
    """What was opened on the way, counted."""

    containers: int = 0
    members: int = 0
    requests: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def count_request(self) -> None:
        with self._lock:
            self.requests += 1


def expand(
    store: Store,
    listing: Iterable[ObjectInfo],
    opens: Callable[[str], bool],
    opened: Opened | None = None,
    *,
    image_column: str | None = None,
) -> Iterator[ObjectInfo]:
    """The objects of `listing`, and the members of those containers among them that `opens` says of a key.

    What cannot be read of a container is an entry, too: reading it raises the ImageError that says what is lost. A
    member whose name was there before in its container has `@` and its offset behind the name, and an object whose key
    lies below an opened container's is left out with a warning, so no key comes twice. `listing` is in key order.
    A file without images comes as it is. `image_column` is the column of images in kinds that have columns. Raises
    StorageUnavailable, and InputError where a file has several such columns and none is named.
    """
    opened = opened or Opened()
    stopped = threading.Event()
    waiting: deque[ObjectInfo | _Reading] = deque()
    objects, reading, above = iter(listing), 0, _ContainersAbove()
    with ThreadPoolExecutor(CONTAINERS_AT_ONCE, "containers") as threads:
        try:
            while True:
                while reading < CONTAINERS_AT_ONCE and len(waiting) < _OBJECTS_AHEAD:
                    info = next(objects, None)
                    if info is None:
                        break
                    container = above.of(info.key)
                    if container is not None:
                        log.warning("%s", key_values(left_out=info.key, opened=container))
                        continue
                    kind = kind_of(info.key)
                    if kind is None or not opens(info.key):
                        if not waiting:
                            yield info
                        else:
                            waiting.append(info)
                        continue
                    reading += 1
                    opened.containers += 1
                    above.add(info.key)
                    scanner = RangeScanner(store, info, opened.count_request, stopped)
                    waiting.append(_Reading(threads, _entries(info, kind, scanner, image_column)))
                if not waiting:
                    return
                first = waiting.popleft()
                if isinstance(first, ObjectInfo):
                    yield first
                else:
                    for entry in first:
                        opened.members += 1
                        yield entry
                    reading -= 1
        finally:
            stopped.set()


class _ContainersAbove:
    """The opened containers that keys of a listing in key order may still lie below: few, whatever their number."""

    def __init__(self) -> None:
        self._keys: list[str] = []

    def add(self, key: str) -> None:
        self._keys.append(key)

    def of(self, key: str) -> str | None:
        """The container whose member `key` would be."""
        self._keys = [each for each in self._keys if key < each + "0"]  # which comes right after "/"
        return next((each for each in self._keys if key.startswith(each + "/")), None)


class _Reading:
    """The entries of one container, some ahead of whoever takes them."""

    def __init__(self, threads: ThreadPoolExecutor, entries: Iterator[ObjectInfo]) -> None:
        self._threads = threads
        self._entries = entries
        self._next = self._submit()

    def _submit(self) -> Future[list[ObjectInfo]]:
        return self._threads.submit(lambda: list(islice(self._entries, MEMBERS_AHEAD)))

    def __iter__(self) -> Iterator[ObjectInfo]:
        while chunk := self._next.result():
            self._next = self._submit()
            yield from chunk


def _entries(
    info: ObjectInfo, kind: ContainerKind, scanner: RangeScanner, image_column: str | None
) -> Iterator[ObjectInfo]:
    """The members of one container as a listing reports them."""
    names = _Names()
    try:
        for found in kind.members(scanner, image_column):
            yield entry_of(info, found, None if found.name is None else names.unique(found))
    except (StorageUnavailable, ScanStopped):
        raise
    except NoImages:
        yield info
    except StorageError:  # changed or gone since it was listed, or not to be read by us
        yield entry_of(info, Fault(UNREAD, 0), None)


class _Names:
    """Keeps the names of one container's members apart. While they rise, as usual, it holds eight bytes of each; from
    then on, a hundred."""

    def __init__(self) -> None:
        self._last = ""
        self._seen: set[int] | None = None
        self._risen = array("Q")

    def unique(self, found: Member | Fault) -> str:
        name = found.name or ""
        if self._seen is None and name > self._last:
            self._risen.append(_digest(name))
            self._last = name
            return name
        if self._seen is None:
            self._seen, self._risen = set(self._risen), array("Q")
        mark = "@" + found.mark
        while _digest(name) in self._seen:
            name += mark
        self._seen.add(_digest(name))
        return name


def _digest(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=8).digest())
