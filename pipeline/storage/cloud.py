"""Google Cloud Storage and Azure Blob Storage as stores, through obstore alone.

Credentials come from the environment, as obstore finds them (GOOGLE_APPLICATION_CREDENTIALS,
AZURE_STORAGE_ACCOUNT_NAME and so on, or the machine's own identity). Azure's side is tested on Azurite, Microsoft's
emulator, Google's on moto dressed as it; neither was run against the real services. S3 is the trodden path.
"""

import os
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import obstore
from obstore.store import AzureStore, GCSStore

from pipeline.errors import InputError, NameRefused, ObjectChanged, StorageError, StorageUnavailable
from pipeline.storage.error_messages import raise_fault
from pipeline.storage.forking import is_forked
from pipeline.storage.large_files import parts_of
from pipeline.storage.store import Location, ObjectInfo, StorageOptions, Store, check_size, folder

_SERVICE = {"gs": "Google Cloud Storage", "az": "Azure Blob Storage"}
_ENDPOINT = {"gs": "GOOGLE_BASE_URL", "az": "AZURE_STORAGE_ENDPOINT"}
"""The variable that names another endpoint than the service's, as for an emulator."""


class CloudStore:
    """See `pipeline.storage.store.Store`. Keys that obstore cannot spell (`a//b`, `a/`, `..`, control characters)
    are errors.
    """

    def __init__(self, scheme: str, bucket: str, prefix: str, options: StorageOptions) -> None:
        self._scheme, self._bucket, self._prefix, self._options = scheme, bucket, prefix, options
        self._lock = threading.Lock()
        self._patient: Any = None

    @classmethod
    def from_uri(cls, uri: str, options: StorageOptions) -> "CloudStore":
        scheme, _, rest = uri.partition("://")
        bucket, _, prefix = rest.partition("/")
        if not bucket or "@" in bucket or ":" in bucket or "?" in rest:
            raise InputError(f"{scheme}:// URIs look like {scheme}://bucket/prefix, without credentials or options.")
        return cls(scheme.lower(), bucket, folder(prefix, f"{scheme}://{bucket}"), options)

    @property
    def uri(self) -> str:
        return f"{self._scheme}://{self._bucket}/{self._prefix}".rstrip("/")

    @property
    def location(self) -> Location:
        folders = (self._bucket, *self._prefix.split("/"))
        return Location(self._scheme, "", tuple(part for part in folders if part))

    def __repr__(self) -> str:
        return f"CloudStore({self.uri!r})"

    def __reduce__(self) -> tuple[Callable[[str, StorageOptions], Store], tuple[str, StorageOptions]]:
        return CloudStore.from_uri, (self.uri, self._options)

    def at(self, path: str) -> "CloudStore":
        return CloudStore(self._scheme, self._bucket, self._prefix + folder(path, self.uri), self._options)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        # obstore's prefixes are whole folders; the rest of ours is compared here. Both services list in
        # order.
        wanted = self._prefix + prefix
        try:
            for chunk in obstore.list(self._client(), wanted.rpartition("/")[0] or None):
                for meta in chunk:
                    if meta["path"].startswith(wanted):
                        yield _info(meta["path"].removeprefix(self._prefix), meta)
        except Exception as error:
            self._raise(error, prefix)

    def get(
        self, key: str, *, size: int | None = None, etag: str | None = None, most_bytes: int | None = None
    ) -> bytes:
        full = self._full(key)
        try:
            result = obstore.get(self._client(), full)
            found = _info(key, result.meta)
            check_size(self._name(key), found.size, most_bytes)
            data = bytes(result.bytes())
        except Exception as error:
            self._raise(error, key)
        if (etag and found.etag and found.etag != etag) or (size is not None and found.size != size):
            raise ObjectChanged(f"{self._name(key)} has changed since it was listed.")
        if len(data) != found.size:
            raise StorageUnavailable(f"{self._name(key)} arrived with {len(data)} of its {found.size} bytes.")
        return data

    def get_range(self, key: str, offset: int, length: int, *, etag: str | None = None) -> bytes:
        full = self._full(key)
        try:
            result = obstore.get(self._client(), full, options={"range": (offset, offset + length)})
            found = _info(key, result.meta).etag
            data = bytes(result.bytes())
        except Exception as error:
            self._raise(error, key)
        if etag and found and etag != found:
            raise ObjectChanged(f"{self._name(key)} has changed since it was listed.")
        if len(data) != length:
            raise ObjectChanged(f"{self._name(key)} gave {len(data)} of the {length} bytes from byte {offset}.")
        return data

    def head(self, key: str) -> ObjectInfo:
        full = self._full(key)
        try:
            return _info(key, obstore.head(self._client(), full))
        except Exception as error:
            self._raise(error, key)

    def put(self, key: str, data: bytes) -> None:
        self._put(self._client, key, data, "overwrite")

    def put_file(self, key: str, path: Path) -> None:
        full = self._full(key)
        try:
            obstore.put(self._client(), full, path, chunk_size=parts_of(path))
        except Exception as error:
            self._raise(error, key)

    def create(self, key: str, data: bytes) -> None:
        self._put(self._client, key, data, "create")

    def delete(self, key: str) -> None:
        full = self._full(key)
        try:
            obstore.delete(self._client(), full)
        except FileNotFoundError:
            return
        except Exception as error:
            self._raise(error, key)

    def check_readable(self) -> None:
        try:
            next(
                iter(obstore.list(self._open(self._options.check_seconds), self._prefix or None, chunk_size=1)),
                None,
            )
        except Exception as error:
            self._raise(error, "")

    def check_writable(self) -> None:
        key = f".fcn-check-{uuid.uuid4().hex}"
        self._put(lambda: self._open(self._options.check_seconds), key, b"", "create")
        self.delete(key)

    def _put(self, client: Callable[[], Any], key: str, data: bytes, mode: Any) -> None:
        full = self._full(key)
        try:
            obstore.put(client(), full, data, mode=mode)
        except Exception as error:
            self._raise(error, key)

    def _client(self) -> Any:
        if is_forked():
            raise StorageError(
                f"{self.uri}: {_SERVICE[self._scheme]} cannot be used in a forked process; load data with 0 workers."
            )
        with self._lock:
            if self._patient is None:
                self._patient = self._open(self._options.retry_seconds)
            return self._patient

    def _open(self, patience: float) -> Any:
        options, second = self._options, timedelta(seconds=1)
        settings: dict[str, Any] = {
            "client_options": {
                "connect_timeout": options.connect_seconds * second,
                "read_timeout": options.read_seconds * second,
                "timeout": max(600.0, options.read_seconds) * second,
            },
            "retry_config": {"max_retries": 1000, "retry_timeout": patience * second},
        }
        if os.environ.get(_ENDPOINT[self._scheme], "").startswith("http://"):
            # Asked for in plain words; obstore's own variable for it is not read beside options given here.
            settings["client_options"]["allow_http"] = True
        return (GCSStore if self._scheme == "gs" else AzureStore)(self._bucket, **settings)

    def _full(self, key: str) -> str:
        if any(part in ("", ".", "..") for part in key.split("/")) or any(c < " " or c == "\x7f" for c in key):
            raise NameRefused(f"{self.uri}: {key!r} cannot be a key here (empty, '.' or '..' part, control character).")
        return self._prefix + key

    def _name(self, key: str) -> str:
        return f"{self._scheme}://{self._bucket}/{self._prefix}{key}"

    def _raise(self, error: Exception, key: str) -> NoReturn:
        raise_fault(error, self._name(key), _SERVICE[self._scheme])


def _info(key: str, meta: Any) -> ObjectInfo:
    return ObjectInfo(key, (meta["e_tag"] or "").strip('"'), meta["size"], meta["last_modified"])
