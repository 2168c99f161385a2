"""What the pipeline asks of object storage: one small protocol, the same for folders and buckets.

The one thing to know: a store is rooted at a URI and its keys are relative to it, always with `/`. Stores are safe to
share between threads, and a pickled store holds its URI, never credentials: each node finds its own.
`pipeline.storage.opening.open_store` makes one; `local`, `s3` and `cloud` document what each kind promises.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from pipeline.errors import ObjectExists, ObjectMissing, ObjectTooLarge, StorageError, StorageUnavailable

_TIMES_GONE = 5


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object as a listing reports it.

    `key` is relative to the store's URI; `etag` (without quotes) changes whenever the bytes do; `size` is in
    bytes; `last_modified` is timezone-aware, UTC.
    """

    key: str
    etag: str
    size: int
    last_modified: datetime


@dataclass(frozen=True, slots=True)
class Location:
    """Where a store is rooted: a service ("" is the one that the environment names), and the folders below it."""

    scheme: str
    service: str
    folders: tuple[str, ...]


def is_inside(inner: Location, outer: Location) -> bool:
    """Whether everything at `inner` is also at `outer`. Services that may be the same are taken to be the same."""
    same_service = inner.service == outer.service or not inner.service or not outer.service
    return inner.scheme == outer.scheme and same_service and inner.folders[: len(outer.folders)] == outer.folders


@dataclass(frozen=True, slots=True)
class StorageOptions:
    """How patient a store is with its server. All in seconds; local folders have no use for them.

    A call is retried, with growing pauses, on 5xx answers, refused or broken connections and silence, until
    `retry_seconds` have passed since its first try. Preflight checks give up after `check_seconds` instead.
    """

    connect_seconds: float = 5.0
    read_seconds: float = 60.0
    retry_seconds: float = 180.0
    check_seconds: float = 10.0


class Store(Protocol):
    """What the pipeline asks of storage. Every error is a `pipeline.errors.StorageError`, one sentence."""

    @property
    def uri(self) -> str:
        """What `open_store` takes to open this store again, on any node. Holds no secret."""

    @property
    def location(self) -> Location:
        """Where this is, to tell whether one store lies inside another."""

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Every object whose key starts with `prefix` (a plain string, not a folder), sorted by the key's
        UTF-8 bytes.

        Streams: memory does not grow with the number of objects (local folders: with the largest folder).
        """

    def get(
        self, key: str, *, size: int | None = None, etag: str | None = None, most_bytes: int | None = None
    ) -> bytes:
        """The object's bytes, proven whole.

        Raises ObjectChanged when it has another size or etag than the listed ones given here, ObjectMissing
        when it is gone, ObjectTooLarge, before it is read, when it has more than `most_bytes`.
        """

    def get_range(self, key: str, offset: int, length: int, *, etag: str | None = None) -> bytes:
        """`length` bytes, at least one, of the object from byte `offset`: all of them, but not proven intact.

        Raises ObjectChanged when the object ends before or has another etag than the listed one given here,
        ObjectMissing when it is gone.
        """

    def head(self, key: str) -> ObjectInfo:
        """What a listing would say of this one object. Raises ObjectMissing."""

    def put(self, key: str, data: bytes) -> None:
        """Write, replacing what was there. Readers see the old bytes or the new, never a mixture."""

    def put_file(self, key: str, path: Path) -> None:
        """`put` what is in a file of this machine, which need not fit in memory."""

    def create(self, key: str, data: bytes) -> None:
        """Write if no object has this key, else raise ObjectExists.

        After a retry behind the scenes ObjectExists may also reach the very caller whose write made the
        object: read it back and compare before concluding that somebody else won.
        """

    def delete(self, key: str) -> None:
        """Remove the object; that it was not there is no error."""

    def at(self, path: str) -> "Store":
        """The store rooted at the folder `path` inside this one."""

    def check_readable(self) -> None:
        """Raise one clear StorageError if listing here could not work: no such folder or bucket, not allowed,
        no answer.
        """

    def check_writable(self) -> None:
        """Raise one clear StorageError if writing here could not work. Leaves nothing behind."""


def check_size(name: str, size: int, most_bytes: int | None) -> None:
    """Raise ObjectTooLarge for an object that has more than `most_bytes`; stores ask before they read one."""
    if most_bytes is not None and size > most_bytes:
        raise ObjectTooLarge(f"{name} has {size} bytes, over the {most_bytes} that it may have; check what it is.")


def create_own(store: Store, key: str, data: bytes) -> bool:
    """Create an object; False where one of other bytes is there.

    One of the same bytes is this very write: it had taken effect, its answer was lost, and it was tried again.
    """
    return create_or_read(store, key, data) == data


def create_or_read(store: Store, key: str, data: bytes) -> bytes:
    """Create an object, or find one of that name; returns the bytes that are there then.

    One that somebody deletes between the two answers is created again.
    """
    for _ in range(_TIMES_GONE):
        try:
            store.create(key, data)
        except ObjectExists:
            with contextlib.suppress(ObjectMissing):
                return store.get(key)
        else:
            return data
    raise StorageUnavailable(f"{store.uri}: {key} is there and is not, by turns.")


def folder(path: str, what: str) -> str:
    """`path` as a prefix to put before keys: no slash at its ends but one at the tail; "" stays "".

    Raises StorageError naming `what` when it is not a usable folder name.
    """
    parts = path.strip("/").split("/")
    if parts == [""]:
        return ""
    if any(part in ("", ".", "..") or "\0" in part for part in parts):
        raise StorageError(f"{what}: {path!r} is not a folder name; leave out empty, '.' and '..' parts.")
    return "/".join(parts) + "/"
