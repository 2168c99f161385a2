"""S3 as a store: boto3 finds profile, role, region and endpoint as the AWS CLI does; obstore moves the bytes.

obstore does a request for a tenth of boto3's CPU time, but cannot spell every key (`a//b`, `/a`, `a/`, `..`,
control characters) and fails a whole listing that holds one; so listings, and objects with such keys, go
through boto3.

Bytes read are checked three ways: the answer's etag is the listed one (compared here, as some services answer
every If-Match with 412), the length is right, and so is the MD5 where the etag is one. Bytes written are
covered by the request's signature.
"""

import hashlib
import logging
import os
import random
import re
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC
from typing import Any, NoReturn, TypeVar

import obstore
from botocore.exceptions import ClientError

from pipeline.errors import NameRefused, ObjectChanged, StorageError, StorageUnavailable
from pipeline.storage.error_messages import fault, raise_fault
from pipeline.storage.forking import is_forked
from pipeline.storage.parallel_listing import Page, list_in_parallel
from pipeline.storage.s3_clients import Clients, S3Address
from pipeline.storage.store import Location, ObjectInfo, StorageOptions, Store, check_size, folder

log = logging.getLogger(__name__)

Result = TypeVar("Result")

_MD5 = re.compile(r"[0-9a-f]{32}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
PAGE_KEYS = 1000
"""Keys a listing's request may answer with; S3 gives no more."""

# An answer that fails its MD5 is asked for again this often; damage on the way is rare and rarely strikes
# twice.
_READ_TRIES = 3


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
        try:
            yield from list_in_parallel(lambda after: self._page(prefix, after), prefix)
        except Exception as error:
            self._raise(error, self._name(prefix))

    def _page(self, prefix: str, after: str | None) -> Page:
        """The first page of keys that start with `prefix` and lie above `after`."""
        root = self._address.prefix
        start: dict[str, Any] = {} if after is None else {"StartAfter": root + after}
        answer = self._clients.boto().list_objects_v2(
            Bucket=self._address.bucket, Prefix=root + prefix, MaxKeys=PAGE_KEYS, **start
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
        for _ in range(_READ_TRIES):
            data, found_etag, found_size = self._fetch(key, most_bytes)
            if (etag and found_etag and found_etag != etag) or (size is not None and found_size != size):
                raise ObjectChanged(f"{self._name(key)} has changed since it was listed.")
            if len(data) == found_size and self._is_intact(key, data, found_etag):
                return data
            log.warning("damaged_answer object=%r bytes=%d", self._name(key), len(data))
        raise StorageUnavailable(
            f"{self._name(key)} arrived damaged {_READ_TRIES} times; check the network or the object."
        )

    def _fetch(self, key: str, most_bytes: int | None) -> tuple[bytes, str, int]:
        """Body, etag and size of one answer."""
        full = self._full(key)

        def ask() -> tuple[bytes, str, int]:
            if _obstore_serves(full):
                result = obstore.get(self._clients.rust(), full)
                check_size(self._name(key), result.meta["size"], most_bytes)
                return bytes(result.bytes()), _bare(result.meta["e_tag"]), result.meta["size"]
            answer = self._clients.boto().get_object(Bucket=self._address.bucket, Key=full)
            check_size(self._name(key), answer["ContentLength"], most_bytes)
            return answer["Body"].read(), _bare(answer.get("ETag")), answer["ContentLength"]

        return self._with_retries(ask, key)

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        full = self._full(key)

        def ask() -> bytes:
            if _obstore_serves(full):
                return bytes(obstore.get_range(self._clients.rust(), full, start=offset, length=length))
            span = f"bytes={offset}-{offset + length - 1}"
            return self._clients.boto().get_object(Bucket=self._address.bucket, Key=full, Range=span)["Body"].read()

        data = self._with_retries(ask, key)
        if len(data) != length:
            raise ObjectChanged(f"{self._name(key)} gave {len(data)} of the {length} bytes from byte {offset}.")
        return data

    def _is_intact(self, key: str, data: bytes, etag: str) -> bool:
        if not _MD5.fullmatch(etag) or hashlib.md5(data, usedforsecurity=False).hexdigest() == etag:
            return True
        # With a KMS or customer's key the etag looks like an MD5 and is none. obstore does not pass on the
        # header that tells, so ask; only such objects, and damaged ones, cost this second request.
        bucket, full = self._address.bucket, self._full(key)
        answer = self._with_retries(lambda: self._clients.boto().head_object(Bucket=bucket, Key=full), key)
        return "kms" in answer.get("ServerSideEncryption", "") or bool(answer.get("SSECustomerAlgorithm"))

    def head(self, key: str) -> ObjectInfo:
        full = self._full(key)

        def ask() -> ObjectInfo:
            if _obstore_serves(full):
                meta = obstore.head(self._clients.rust(), full)
                return ObjectInfo(key, _bare(meta["e_tag"]), meta["size"], meta["last_modified"])
            answer = self._clients.boto().head_object(Bucket=self._address.bucket, Key=full)
            modified = answer["LastModified"].astimezone(UTC)
            return ObjectInfo(key, _bare(answer.get("ETag")), answer["ContentLength"], modified)

        return self._with_retries(ask, key)

    def put(self, key: str, data: bytes) -> None:
        full = self._full(key)

        def ask() -> None:
            if _obstore_serves(full):
                obstore.put(self._clients.rust(), full, data)
            else:
                self._clients.boto().put_object(Bucket=self._address.bucket, Key=full, Body=data)

        self._with_retries(ask, key)

    def create(self, key: str, data: bytes) -> None:
        full = self._full(key)

        def ask() -> None:
            if _obstore_serves(full):
                obstore.put(self._clients.rust(), full, data, mode="create")
            else:
                bucket = self._address.bucket
                self._clients.boto().put_object(Bucket=bucket, Key=full, Body=data, IfNoneMatch="*")

        self._with_retries(ask, key)

    def delete(self, key: str) -> None:
        bucket, full = self._address.bucket, self._full(key)
        self._with_retries(lambda: self._clients.boto().delete_object(Bucket=bucket, Key=full), key)

    def check_readable(self) -> None:
        bucket, prefix = self._address.bucket, self._address.prefix
        try:
            self._clients.boto(for_check=True).list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
        except Exception as error:
            self._raise(error, self.uri)

    def check_writable(self) -> None:
        """Also proves that the service honours create-only writes, which everything that must not be lost
        relies on.
        """
        bucket, full = self._address.bucket, self._full(f".fcn-check-{uuid.uuid4().hex}")
        try:
            client = self._clients.boto(for_check=True)
            versions: list[str | None] = []
            exclusive = False
            for _ in range(2):
                try:
                    made = client.put_object(Bucket=bucket, Key=full, Body=b"", IfNoneMatch="*")
                    versions.append(made.get("VersionId"))
                except ClientError as error:
                    # The first, too, may be told so: by boto3's retry of a write that had worked.
                    if error.response["ResponseMetadata"]["HTTPStatusCode"] not in (409, 412):
                        raise
                    exclusive = True
            # On a versioned bucket a plain DELETE would only hide it.
            for version in dict.fromkeys(versions or [None]):
                which: dict[str, Any] = {"VersionId": version} if version and version != "null" else {}
                client.delete_object(Bucket=bucket, Key=full, **which)
        except Exception as error:
            self._raise(error, self.uri)
        if not exclusive:
            raise StorageError(f"{self.uri}: this service ignores If-None-Match, so runs could overwrite one another.")

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

    def _with_retries(self, ask: Callable[[], Result], key: str) -> Result:
        """What `ask` returns, tried again for as long as the options say.

        Both clients retry most troubles themselves, but obstore gives up a create-only PUT whose connection
        breaks, and boto3 an answer that breaks off half-way.
        """
        deadline, pause = time.monotonic() + self._options.retry_seconds, 0.1
        while True:
            try:
                return ask()
            except Exception as error:
                trouble = fault(error, self._name(key), self._clients.where)
            if not isinstance(trouble, StorageUnavailable) or time.monotonic() + pause > deadline:
                raise trouble
            time.sleep(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, 15.0)

    def _raise(self, error: Exception, name: str) -> NoReturn:
        raise_fault(error, name, self._clients.where)


def _bare(etag: str | None) -> str:
    return (etag or "").strip('"')


def _obstore_serves(full: str) -> bool:
    """Whether obstore works in this process, and asks for just this key."""
    if is_forked() or _CONTROL.search(full):
        return False
    return all(part not in ("", ".", "..") for part in full.split("/"))
