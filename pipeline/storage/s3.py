"""S3 as a store: boto3 finds profile, role, region and endpoint as the AWS CLI does; obstore moves the bytes.

obstore does a request for a tenth of boto3's CPU time, but cannot spell every key (`a//b`, `/a`, `a/`, `..`,
control characters) and fails a whole listing that holds one; so listings, and objects with such keys, go
through boto3.

Bytes read are checked three ways: the answer's etag is the listed one (compared here, as some services answer
every If-Match with 412), the length is right, and so is the MD5 where the etag is one. What does not fit is read again
before anything is concluded: it may be the page of a proxy. Bytes written are covered by the request's signature.
"""

import logging
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import obstore
from botocore.credentials import ReadOnlyCredentials

from pipeline.errors import NameRefused, ObjectChanged, ObjectExists, StorageError, StorageUnavailable
from pipeline.logfmt import key_values
from pipeline.storage.error_messages import fault, raise_fault
from pipeline.storage.forking import is_forked
from pipeline.storage.large_files import parts_of
from pipeline.storage.parallel_listing import Page, list_in_parallel
from pipeline.storage.patience import ask_patiently
from pipeline.storage.s3_address import S3Address
from pipeline.storage.s3_clients import Clients
from pipeline.storage.store import Location, ObjectInfo, StorageOptions, Store, check_size, folder

log = logging.getLogger(__name__)

Result = TypeVar("Result")

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
PAGE_KEYS = 1000
"""Keys a listing's request may answer with; S3 gives no more."""

_READ_TRIES = 3
"""How often an object is read whose bytes do not fit its etag; damage on the way is rare and rarely strikes twice."""

_STRANGE_SECONDS = 30.0
"""How long an object is read again that comes in another length than it was listed with, under the listed etag."""

_STRANGE_PAUSE = 0.1


@dataclass(frozen=True, slots=True)
class _Answer:
    """What one request for an object brought."""

    data: bytes
    etag: str
    size: int

    def is_as_listed(self, etag: str | None, size: int | None) -> bool:
        return not self.has_other_etag(etag) and (size is None or self.size == size)

    def has_other_etag(self, etag: str | None) -> bool:
        return bool(etag and self.etag and self.etag != etag)


class S3Store:
    """See `pipeline.storage.store.Store`. The object named exactly like the prefix (`photos/`), a console's folder
    marker, has no key in here and is not listed; markers further down (`sub/`) are objects like any other.
    """

    def __init__(self, address: S3Address, options: StorageOptions, clients: Clients | None = None) -> None:
        self._address = address
        self._options = options
        self._shared = clients or Clients(address, options)

    @classmethod
    def from_uri(cls, uri: str, options: StorageOptions) -> "S3Store":
        return cls(S3Address.parse(uri), options)

    @property
    def _clients(self) -> Clients:
        # Connections and locks of before a fork are of no use after it.
        if self._shared.process != os.getpid():
            self._shared = Clients(self._address, self._options)
        return self._shared

    @property
    def uri(self) -> str:
        return self._address.uri

    @property
    def location(self) -> Location:
        folders = (self._address.bucket, *self._address.prefix.rstrip("/").split("/"))
        return Location("s3", self._address.endpoint_url or "", tuple(part for part in folders if part))

    def __repr__(self) -> str:
        return f"S3Store({self.uri!r})"

    def __reduce__(self) -> tuple[Callable[[str, StorageOptions], Store], tuple[str, StorageOptions]]:
        return S3Store.from_uri, (self.uri, self._options)

    def at(self, path: str) -> "S3Store":
        address = replace(self._address, prefix=self._address.prefix + folder(path, self.uri))
        if S3Address.parse(address.uri) != address:
            raise StorageError(f"{self.uri}: {path!r} would read as an option of the URI; choose another name.")
        return S3Store(address, self._options, self._clients)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        # A page that waits for the service is not waited for by whoever has stopped reading.
        stopped = threading.Event()
        name = self._name(prefix)

        def page(after: str | None) -> Page:
            return self._with_retries(lambda: self._page(prefix, after), name, stopped=stopped)

        try:
            yield from list_in_parallel(page, prefix)
        except Exception as error:
            self._raise(error, name)
        finally:
            stopped.set()

    def _page(self, prefix: str, after: str | None) -> Page:
        """The first page of keys that start with `prefix` and lie above `after`."""
        root = self._address.prefix
        start: dict[str, Any] = {} if after is None else {"StartAfter": root + after}
        answer = self._clients.boto().list_objects_v2(
            Bucket=self._address.bucket, Prefix=root + prefix, MaxKeys=PAGE_KEYS, **start, **self._clients.payer
        )
        contents = answer.get("Contents", [])
        objects = [
            ObjectInfo(key, _bare(found.get("ETag")), found["Size"], found["LastModified"].astimezone(UTC))
            for found in contents
            if (key := found["Key"].removeprefix(root))
        ]
        more = answer["IsTruncated"] and contents
        return Page(objects, contents[-1]["Key"].removeprefix(root) if more else None)

    def get(
        self, key: str, *, size: int | None = None, etag: str | None = None, most_bytes: int | None = None
    ) -> bytes:
        deadline, pause = time.monotonic() + min(_STRANGE_SECONDS, self._options.retry_seconds), _STRANGE_PAUSE
        before: _Answer | None = None
        damaged: _Answer | None = None
        tries, equal = 0, 1
        while True:
            answer = self._fetch(key, most_bytes)
            if not answer.is_as_listed(etag, size):
                # Changed, or not the object at all: a page of some proxy, an error that says 200.
                if answer.has_other_etag(etag):
                    if before is not None and before.etag == answer.etag:
                        raise self._changed(key, str(etag))
                elif before is not None and (
                    time.monotonic() + pause > deadline or (etag is None and before.etag == answer.etag)
                ):
                    raise ObjectChanged(f"{self._name(key)} comes with another length than it was listed with.")
                log.warning("%s", key_values(unexpected_answer=self._name(key), bytes=answer.size))
                time.sleep(pause)
                pause, before = 2 * pause, answer
                continue
            if len(answer.data) == answer.size and self._is_intact(key, answer):
                return answer.data
            if damaged and answer == damaged:
                equal += 1
            damaged, tries = answer, tries + 1
            log.warning("%s", key_values(damaged_answer=self._name(key), bytes=len(answer.data)))
            if tries < _READ_TRIES:
                continue
            is_whole = equal == tries and len(answer.data) == answer.size
            if is_whole and self._clients.etags.accept_other(self._name(key), answer.etag):
                return answer.data
            raise StorageUnavailable(
                f"{self._name(key)} arrived damaged {tries} times; check the network or the object."
            )

    def _changed(self, key: str, etag: str) -> ObjectChanged:
        """What to say of an object that has another etag than the listed one: the listing may always be another."""
        try:
            listed = next(iter(self._with_retries(lambda: self._page(key, None), self._name(key)).objects), None)
        except StorageError:  # whoever may read objects need not be allowed to list them
            listed = None
        if listed is None or listed.key != key or listed.etag != etag:
            return ObjectChanged(f"{self._name(key)} has changed since it was listed.")
        self._clients.etags.listed_others()
        return ObjectChanged(
            f"{self._name(key)} has another etag than {self._clients.where} lists for it; give the keys with "
            "--key-list, without etags, so that each object is asked for its own."
        )

    def _fetch(self, key: str, most_bytes: int | None) -> _Answer:
        full = self._full(key)

        def ask() -> _Answer:
            if _obstore_serves(full):
                result = obstore.get(self._clients.rust(), full)
                check_size(self._name(key), result.meta["size"], most_bytes)
                return _Answer(bytes(result.bytes()), _bare(result.meta["e_tag"]), result.meta["size"])
            answer = self._clients.boto().get_object(Bucket=self._address.bucket, Key=full, **self._clients.payer)
            check_size(self._name(key), answer["ContentLength"], most_bytes)
            return _Answer(answer["Body"].read(), _bare(answer.get("ETag")), answer["ContentLength"])

        return self._with_retries(ask, self._name(key))

    def get_range(self, key: str, offset: int, length: int, *, etag: str | None = None) -> bytes:
        full = self._full(key)

        def ask() -> _Answer:
            if _obstore_serves(full):
                result = obstore.get(self._clients.rust(), full, options={"range": (offset, offset + length)})
                return _Answer(bytes(result.bytes()), _bare(result.meta["e_tag"]), result.meta["size"])
            span = f"bytes={offset}-{offset + length - 1}"
            answer = self._clients.boto().get_object(
                Bucket=self._address.bucket, Key=full, Range=span, **self._clients.payer
            )
            return _Answer(answer["Body"].read(), _bare(answer.get("ETag")), answer["ContentLength"])

        others: set[str] = set()
        for _ in range(_READ_TRIES):
            answer = self._with_retries(ask, self._name(key))
            if answer.has_other_etag(etag):
                if answer.etag in others:
                    raise self._changed(key, str(etag))
                others.add(answer.etag)  # it may be the page of a proxy: it is asked for again
            elif len(answer.data) == length:
                return answer.data
        raise ObjectChanged(
            f"{self._name(key)} gave {len(answer.data)} of the {length} bytes from byte {offset}, or another object."
        )

    def _is_intact(self, key: str, found: _Answer) -> bool:
        if self._clients.etags.proves(found.data, found.etag) is not False:
            return True
        # With a KMS or customer's key the etag looks like an MD5 and is none. obstore does not pass on the
        # header that tells, so ask; only such objects, and damaged ones, cost this second request.
        bucket, full = self._address.bucket, self._full(key)
        answer = self._with_retries(
            lambda: self._clients.boto().head_object(Bucket=bucket, Key=full, **self._clients.payer), self._name(key)
        )
        return "kms" in answer.get("ServerSideEncryption", "") or bool(answer.get("SSECustomerAlgorithm"))

    def head(self, key: str) -> ObjectInfo:
        full = self._full(key)

        def ask() -> ObjectInfo:
            if _obstore_serves(full):
                meta = obstore.head(self._clients.rust(), full)
                return ObjectInfo(key, _bare(meta["e_tag"]), meta["size"], meta["last_modified"])
            answer = self._clients.boto().head_object(Bucket=self._address.bucket, Key=full, **self._clients.payer)
            modified = answer["LastModified"].astimezone(UTC)
            return ObjectInfo(key, _bare(answer.get("ETag")), answer["ContentLength"], modified)

        return self._with_retries(ask, self._name(key))

    def put(self, key: str, data: bytes) -> None:
        self._write(key, data, once=False)

    def put_file(self, key: str, path: Path) -> None:
        full = self._full(key)

        def ask() -> None:
            if _obstore_serves(full):
                obstore.put(self._clients.rust(), full, path, chunk_size=parts_of(path))
            else:
                self._clients.boto().upload_file(
                    str(path), self._address.bucket, full, ExtraArgs=self._clients.payer or None
                )

        self._with_retries(ask, self._name(key))

    def create(self, key: str, data: bytes) -> None:
        self._write(key, data, once=True)

    def _write(self, key: str, data: bytes, *, once: bool) -> None:
        full = self._full(key)

        def ask() -> str | None:
            if _obstore_serves(full):
                return obstore.put(self._clients.rust(), full, data, mode="create" if once else "overwrite")["e_tag"]
            condition: dict[str, Any] = {"IfNoneMatch": "*"} if once else {}
            answer = self._clients.boto().put_object(
                Bucket=self._address.bucket, Key=full, Body=data, **condition, **self._clients.payer
            )
            return answer.get("ETag")

        self._clients.etags.written(data, _bare(self._with_retries(ask, self._name(key))))

    def delete(self, key: str) -> None:
        bucket, full = self._address.bucket, self._full(key)
        self._with_retries(
            lambda: self._clients.boto().delete_object(Bucket=bucket, Key=full, **self._clients.payer), self._name(key)
        )

    def check_readable(self) -> None:
        bucket, prefix = self._address.bucket, self._address.prefix
        self._check(
            lambda: self._clients.boto(for_check=True).list_objects_v2(
                Bucket=bucket, Prefix=prefix, MaxKeys=1, **self._clients.payer
            )
        )

    def check_writable(self) -> None:
        """Also proves that the service honours create-only writes, which everything that must not be lost
        relies on.
        """
        full = self._full(f".fcn-check-{uuid.uuid4().hex}")
        given: dict[str, Any] = {"Bucket": self._address.bucket, "Key": full}
        versions: list[str | None] = []
        exclusive = False
        for _ in range(2):
            try:
                made = self._check(
                    lambda: self._clients.boto(for_check=True).put_object(
                        **given, Body=b"", IfNoneMatch="*", **self._clients.payer
                    )
                )
                versions.append(made.get("VersionId"))
            except ObjectExists:
                exclusive = True  # the first, too, may be told so: by another try of a write that had worked
        # On a versioned bucket a plain DELETE would only hide it.
        for version in dict.fromkeys(versions or [None]):
            which = {"VersionId": version} if version and version != "null" else {}
            self._check(partial(self._delete_check, given | which))
        if not exclusive:
            raise StorageError(f"{self.uri}: this service ignores If-None-Match, so runs could overwrite one another.")

    def _delete_check(self, given: dict[str, Any]) -> None:
        self._clients.boto(for_check=True).delete_object(**given, **self._clients.payer)

    def _check(self, ask: Callable[[], Result]) -> Result:
        return self._with_retries(ask, self.uri, seconds=self._options.check_seconds)

    def _full(self, key: str) -> str:
        full = self._address.prefix + key
        try:
            length = len(full.encode())
        except UnicodeEncodeError:
            raise NameRefused(f"{self.uri}: {key!r} is not valid Unicode.") from None
        if not key or "\0" in key or length > 1024:
            raise NameRefused(f"{self.uri}: {key!r} cannot be a key (empty, with a NUL, or over 1,024 bytes).")
        return full

    def _name(self, key: str) -> str:
        return f"s3://{self._address.bucket}/{self._address.prefix}{key}"

    def _with_retries(
        self,
        ask: Callable[[], Result],
        name: str,
        *,
        seconds: float | None = None,
        stopped: threading.Event | None = None,
    ) -> Result:
        """What `ask` returns of the object `name`, tried again for `seconds`, or as long as the options say."""
        used: list[ReadOnlyCredentials | None] = [None]

        def with_keys() -> Result:
            used[0] = self._clients.keys()
            return ask()

        return ask_patiently(
            with_keys,
            lambda error: fault(error, name, self._clients.where),
            seconds=self._options.retry_seconds if seconds is None else seconds,
            attempts=1 if seconds is not None else self._clients.attempts,
            renew=lambda: self._clients.renew(used[0]),
            stopped=stopped,
        )

    def _raise(self, error: Exception, name: str) -> NoReturn:
        raise_fault(error, name, self._clients.where)


def _bare(etag: str | None) -> str:
    return (etag or "").strip('"')


def _obstore_serves(full: str) -> bool:
    """Whether obstore works in this process, and asks for just this key."""
    if is_forked() or _CONTROL.search(full):
        return False
    return all(part not in ("", ".", "..") for part in full.split("/"))
