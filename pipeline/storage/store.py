"""Object storage by URI: `open_store("s3://bucket/photos")`, a local folder, `gs://` or `az://`, behind one
small protocol.

A store is rooted at its URI and keys are relative to it, always with `/`. Stores are safe to share between
threads, and a pickled store carries its URI, never credentials: each node finds its own (see `storage_s3`,
`storage_local`, `storage_cloud` for what each kind promises).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from urllib.parse import unquote

from pipeline.errors import InputError, ObjectExists, StorageError

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_OPTIONS = re.compile(r"^s3a?://.*\?[A-Za-z0-9_.-]+=[^?]*$")


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object as a listing tells of it.

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

    def get(self, key: str, *, size: int | None = None, etag: str | None = None) -> bytes:
        """The object's bytes, proven whole.

        Raises ObjectChanged when it has another size or etag than the listed ones given here, ObjectMissing
        when it is gone.
        """

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        """`length` bytes, at least one, of the object from byte `offset`: all of them, but not proven intact.

        Raises ObjectChanged when the object ends before, ObjectMissing when it is gone.
        """

    def head(self, key: str) -> ObjectInfo:
        """What a listing would say of this one object. Raises ObjectMissing."""

    def put(self, key: str, data: bytes) -> None:
        """Write, replacing what was there. Readers see the old bytes or the new, never a mixture."""

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


def open_store(uri: str, options: StorageOptions | None = None) -> Store:
    """Open the storage that `uri` names: `s3://`, `gs://`, `az://`, `file://`, or a path to a local folder.

    Opening asks no server anything; `check_readable` and `check_writable` do. An `s3://` URI may end in
    `?endpoint_url=...&profile=...&region=...`, so that a source and an output can live on different services.

    Raises InputError when the URI makes no sense.
    """
    # Imported where they are needed: a laptop that reads a folder need not load boto3, nor a cluster Azure's
    # client.
    options = options or StorageOptions()
    if not uri or "\0" in uri:
        raise InputError(f"{uri!r} names no storage; give a path, file://, s3://, gs:// or az://.")
    match = _SCHEME.match(uri)
    scheme = match.group(1).lower() if match else "file"
    if scheme == "file":
        from pipeline.storage.local import LocalStore

        return LocalStore.from_uri(uri)
    if scheme in ("s3", "s3a"):
        from pipeline.storage.s3 import S3Store

        return S3Store.from_uri(uri, options)
    if scheme in ("gs", "az"):
        from pipeline.storage.cloud import CloudStore

        return CloudStore.from_uri(uri, options)
    raise InputError(f"{scheme}:// is no kind of storage known here; use a path, file://, s3://, gs:// or az://.")


def create_own(store: Store, key: str, data: bytes) -> bool:
    """Create an object; False where one of other bytes is there.

    One of the same bytes is this very write: it had taken effect, its answer was lost, and it was tried again.
    """
    try:
        store.create(key, data)
    except ObjectExists:
        return store.get(key) == data
    return True


def read_object(uri: str) -> bytes:
    """The bytes of one file or object that a person named. Raises StorageError or InputError."""
    options = uri_options(uri)
    place, _, _ = uri.removesuffix(options).rpartition("/")
    # A bare "/" before the name is the root folder, no "/" at all this one.
    return open_store((place or ("/" if uri.startswith("/") else ".")) + options).get(object_name(uri))


def object_name(uri: str) -> str:
    """The last part of the URI of one file or object."""
    name = uri.removesuffix(uri_options(uri)).rpartition("/")[2]
    return unquote(name) if uri.lower().startswith("file://") else name


def uri_options(uri: str) -> str:
    """The options at the end of an s3:// URI, with their question mark; "" where there are none."""
    return "?" + uri.rpartition("?")[2] if _OPTIONS.search(uri) else ""


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
