"""S3 as a store: boto3 finds profile, role, region and endpoint as the AWS CLI does; obstore moves the bytes.

obstore does a request for a tenth of boto3's CPU time, but cannot spell every key (`a//b`, `/a`, `a/`, `..`, control
characters) and fails a whole listing that holds one; so listings, and objects with such keys, go through boto3.

Bytes read are checked three ways: the answer's etag is the listed one (compared here, as some services answer every
If-Match with 412), the length is right, and so is the MD5 where the etag is one. Bytes written are covered by the
request's signature.
"""

import hashlib
import logging
import re
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import parse_qsl, urlencode, urlsplit

import boto3
import botocore.session
import obstore
from botocore.config import Config
from botocore.exceptions import ClientError
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.store import S3Store as RustS3

from pipeline.errors import AccessDenied, InputError, ObjectChanged, StorageError, StorageUnavailable
from pipeline.storage import ObjectInfo, StorageOptions, Store, folder, open_store
from pipeline.storage_faults import raise_fault

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = logging.getLogger(__name__)

_OPTIONS = ("endpoint_url", "profile", "region")
_SECRET_NAME = re.compile(r"secret|password|token|key|credential|signature", re.IGNORECASE)
_MD5 = re.compile(r"[0-9a-f]{32}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# An answer that fails its MD5 is asked for again this often; damage on the way is rare and rarely strikes twice.
_READ_TRIES = 3
# botocore hands out credentials with at least ten minutes to live; ask it again well within that.
_CREDENTIALS_TTL = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class S3Address:
    """What an s3:// URI says. `prefix` is "" or ends in "/"; None leaves a setting to the AWS configuration."""

    bucket: str
    prefix: str
    endpoint_url: str | None = None
    profile: str | None = None
    region: str | None = None

    @classmethod
    def parse(cls, uri: str) -> "S3Address":
        """Raises InputError for a URI without bucket, with unknown options, or with a secret in it."""
        rest = uri.split("://", 1)[1]
        place, mark, query = rest.rpartition("?")
        if not mark or not re.match(r"[A-Za-z0-9_.-]+=", query):
            place, query = rest, ""  # a question mark in the prefix, no option
        bucket, _, prefix = place.partition("/")
        shown = f"s3://{bucket.rpartition('@')[2]}/{prefix}"
        if "@" in bucket or ":" in bucket:
            raise InputError(
                f"{shown}: credentials and ports do not belong into the URI; use a profile or AWS_* variables."
            )
        if not bucket:
            raise InputError(f"{shown}: the bucket is missing; write s3://bucket/prefix.")
        given = dict(parse_qsl(query, keep_blank_values=True))
        for name in given:
            if name in _OPTIONS:
                continue
            if _SECRET_NAME.search(name):
                raise InputError(
                    f"{shown}: {name} does not belong into the URI; use a profile or AWS_* variables."
                )
            raise InputError(f"{shown}: there is no option {name!r}; there are {', '.join(_OPTIONS)}.")
        endpoint = given.get("endpoint_url")
        if endpoint is not None:
            parts = urlsplit(endpoint)
            if "@" in parts.netloc:
                raise InputError(
                    f"{shown}: endpoint_url holds credentials; use a profile or AWS_* variables."
                )
            if parts.scheme not in ("http", "https") or not parts.netloc or parts.query:
                raise InputError(f"{shown}: endpoint_url must look like https://host:port.")
        if prefix and not prefix.endswith("/"):
            prefix += "/"
        return cls(bucket, prefix, endpoint, given.get("profile") or None, given.get("region") or None)

    @property
    def uri(self) -> str:
        options = {name: getattr(self, name) for name in _OPTIONS if getattr(self, name) is not None}
        query = "?" + urlencode(options, safe=":/") if options else ""
        # One slash at the end is understood; a prefix that is "/" or ends in "//" needs it said.
        path = (
            self.prefix if self.prefix == "/" or self.prefix.endswith("//") else self.prefix.removesuffix("/")
        )
        return f"s3://{self.bucket}/{path}{query}" if path else f"s3://{self.bucket}{query}"


class _Clients:
    """The clients of one bucket, made on first use and shared by all stores of it in this process."""

    def __init__(self, address: S3Address, options: StorageOptions) -> None:
        self._address = address
        self._options = options
        self._lock = threading.RLock()
        self._core: botocore.session.Session
        self._session: boto3.Session | None = None
        self._boto: dict[bool, S3Client] = {}
        self._rust: RustS3 | None = None

    def boto(self, *, hasty: bool = False) -> "S3Client":
        """boto3's client; the hasty one, for preflight checks, gives up soon."""
        with self._lock:
            if hasty not in self._boto:
                self._boto[hasty] = self._make_boto(hasty)
            return self._boto[hasty]

    def rust(self) -> RustS3:
        with self._lock:
            if self._rust is None:
                self._rust = self._make_rust()
            return self._rust

    @property
    def where(self) -> str:
        """The service, for messages."""
        try:
            return str(self.boto().meta.endpoint_url)
        except Exception:  # the message at hand is about why there is no client
            return self._address.endpoint_url or "S3"

    def _open_session(self) -> boto3.Session:
        if self._session is None:
            self._core = botocore.session.Session(profile=self._address.profile)
            self._session = boto3.Session(botocore_session=self._core, region_name=self._address.region)
        return self._session

    def _make_boto(self, hasty: bool) -> "S3Client":
        patience = self._options.check_seconds if hasty else self._options.retry_seconds
        connect = min(self._options.connect_seconds, patience)
        settings = Config(
            connect_timeout=connect,
            read_timeout=min(self._options.read_seconds, patience),
            # Its pauses are random, below 1, 2, 4, ... 20 s: about 3 s for 3 retries, then 10 s each.
            retries={"mode": "standard", "max_attempts": 2 if hasty else max(1, 4 + int(patience / 10))},
            max_pool_connections=64,
            # Other services than AWS know the newer checksums only in part.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        session, endpoint = self._open_session(), self._address.endpoint_url
        client = session.client("s3", endpoint_url=endpoint, config=settings)
        if not _is_aws(client.meta.endpoint_url):
            settings = settings.merge(Config(s3={"addressing_style": "path"}))
            client = session.client("s3", endpoint_url=endpoint, config=settings)
        return client

    def _make_rust(self) -> RustS3:
        session, client, bucket = self._open_session(), self.boto(), self._address.bucket
        if session.get_credentials() is None:
            raise AccessDenied(
                f"s3://{bucket}: no credentials found; set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                "or give this machine a role."
            )
        endpoint, region = client.meta.endpoint_url, client.meta.region_name
        virtual = False
        if _is_aws(endpoint):
            region = _bucket_region(client, bucket) or region
            # A dot in the bucket's name would break the certificate check of bucket.s3.amazonaws.com.
            virtual = "." not in bucket
            endpoint = self._endpoint_in(region)
            if virtual:
                endpoint = endpoint.replace("://", f"://{bucket}.", 1)
        seconds = timedelta(seconds=1)
        client_options: dict[str, Any] = {}
        if bundle := self._core.get_config_variable("ca_bundle"):
            client_options["root_certificate"] = Path(bundle).read_bytes()
        return RustS3(
            bucket,
            region=region,
            endpoint=endpoint,
            # obstore reads this variable by itself and would prefer it to `endpoint`.
            aws_endpoint_url_s3=endpoint,
            virtual_hosted_style_request=virtual,
            disable_bulk_delete=True,
            credential_provider=Boto3CredentialProvider(session, ttl=_CREDENTIALS_TTL),
            client_options=client_options
            | {
                "allow_http": endpoint.startswith("http://"),
                "connect_timeout": self._options.connect_seconds * seconds,
                "read_timeout": self._options.read_seconds * seconds,
                # The whole of one try: room for a large model over a slow line; `read_timeout` sees a dead one.
                "timeout": max(600.0, self._options.read_seconds) * seconds,
            },
            retry_config={
                "max_retries": 1000,
                "retry_timeout": self._options.retry_seconds * seconds,
                "backoff": {"init_backoff": 0.1 * seconds, "max_backoff": 15 * seconds, "base": 2},
            },
        )

    def _endpoint_in(self, region: str) -> str:
        client = self.boto()
        if client.meta.region_name == region:
            return str(client.meta.endpoint_url)
        return str(self._open_session().client("s3", region_name=region).meta.endpoint_url)


class S3Store:
    """See `pipeline.storage.Store`. The object named exactly like the prefix (`photos/`), a console's folder marker,
    has no key in here and is not listed; markers further down (`sub/`) are objects like any other.
    """

    def __init__(self, address: S3Address, options: StorageOptions, clients: _Clients | None = None) -> None:
        self._address = address
        self._options = options
        self._clients = clients or _Clients(address, options)

    @classmethod
    def from_uri(cls, uri: str, options: StorageOptions) -> "S3Store":
        return cls(S3Address.parse(uri), options)

    @property
    def uri(self) -> str:
        return self._address.uri

    def __repr__(self) -> str:
        return f"S3Store({self.uri!r})"

    def __reduce__(self) -> tuple[Callable[[str, StorageOptions], Store], tuple[str, StorageOptions]]:
        return open_store, (self.uri, self._options)

    def at(self, path: str) -> "S3Store":
        address = replace(self._address, prefix=self._address.prefix + folder(path, self.uri))
        if S3Address.parse(address.uri) != address:
            raise StorageError(
                f"{self.uri}: {path!r} would read as an option of the URI; choose another name."
            )
        return S3Store(address, self._options, self._clients)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        root, last = self._address.prefix, ""
        try:
            pages = self._clients.boto().get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._address.bucket, Prefix=root + prefix):
                for found in page.get("Contents", ()):
                    key = found["Key"].removeprefix(root)
                    if not key:
                        continue
                    # Code points order as UTF-8 bytes do. What resumes and merges relies on the order, so a service
                    # that has another (S3 Express) must not pass unnoticed.
                    if key <= last:
                        raise StorageError(
                            f"{self.uri}: this service does not list keys in order ({last!r}, {key!r})."
                        )
                    last = key
                    etag, modified = found.get("ETag", "").strip('"'), found["LastModified"].astimezone(UTC)
                    yield ObjectInfo(key, etag, found["Size"], modified)
        except Exception as error:
            self._raise(error, self._name(prefix))

    def get(self, key: str, *, size: int | None = None, etag: str | None = None) -> bytes:
        for _ in range(_READ_TRIES):
            data, found_etag, found_size = self._fetch(key)
            if (etag and found_etag and found_etag != etag) or (size is not None and found_size != size):
                raise ObjectChanged(f"{self._name(key)} has changed since it was listed.")
            if len(data) == found_size and self._is_intact(key, data, found_etag):
                return data
            log.warning("damaged_answer object=%r bytes=%d", self._name(key), len(data))
        raise StorageUnavailable(
            f"{self._name(key)} arrived damaged {_READ_TRIES} times; check the network or the object."
        )

    def _fetch(self, key: str) -> tuple[bytes, str, int]:
        """Body, etag and size of one answer."""
        full = self._full(key)
        try:
            if _obstore_spells(full):
                result = obstore.get(self._clients.rust(), full)
                return bytes(result.bytes()), (result.meta["e_tag"] or "").strip('"'), result.meta["size"]
            answer = self._clients.boto().get_object(Bucket=self._address.bucket, Key=full)
            return answer["Body"].read(), answer.get("ETag", "").strip('"'), answer["ContentLength"]
        except Exception as error:
            self._raise(error, self._name(key))

    def _is_intact(self, key: str, data: bytes, etag: str) -> bool:
        if not _MD5.fullmatch(etag) or hashlib.md5(data, usedforsecurity=False).hexdigest() == etag:
            return True
        # With a KMS or customer's key the etag looks like an MD5 and is none. obstore does not pass on the header
        # that tells, so ask; only such objects, and damaged ones, cost this second request.
        try:
            answer = self._clients.boto().head_object(Bucket=self._address.bucket, Key=self._full(key))
        except Exception as error:
            self._raise(error, self._name(key))
        return "kms" in answer.get("ServerSideEncryption", "") or bool(answer.get("SSECustomerAlgorithm"))

    def head(self, key: str) -> ObjectInfo:
        full = self._full(key)
        try:
            if _obstore_spells(full):
                meta = obstore.head(self._clients.rust(), full)
                return ObjectInfo(key, (meta["e_tag"] or "").strip('"'), meta["size"], meta["last_modified"])
            answer = self._clients.boto().head_object(Bucket=self._address.bucket, Key=full)
            etag, modified = answer.get("ETag", "").strip('"'), answer["LastModified"].astimezone(UTC)
            return ObjectInfo(key, etag, answer["ContentLength"], modified)
        except Exception as error:
            self._raise(error, self._name(key))

    def put(self, key: str, data: bytes) -> None:
        full = self._full(key)
        try:
            if _obstore_spells(full):
                obstore.put(self._clients.rust(), full, data)
            else:
                self._clients.boto().put_object(Bucket=self._address.bucket, Key=full, Body=data)
        except Exception as error:
            self._raise(error, self._name(key))

    def create(self, key: str, data: bytes) -> None:
        full = self._full(key)
        try:
            if _obstore_spells(full):
                obstore.put(self._clients.rust(), full, data, mode="create")
            else:
                self._clients.boto().put_object(
                    Bucket=self._address.bucket, Key=full, Body=data, IfNoneMatch="*"
                )
        except Exception as error:
            self._raise(error, self._name(key))

    def delete(self, key: str) -> None:
        try:
            self._clients.boto().delete_object(Bucket=self._address.bucket, Key=self._full(key))
        except Exception as error:
            self._raise(error, self._name(key))

    def check_readable(self) -> None:
        bucket, prefix = self._address.bucket, self._address.prefix
        try:
            self._clients.boto(hasty=True).list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
        except Exception as error:
            self._raise(error, self.uri)

    def check_writable(self) -> None:
        """Also proves that the service honours create-only writes, which everything that must not be lost relies on."""
        bucket, full = self._address.bucket, self._full(f".fcn-check-{uuid.uuid4().hex}")
        try:
            client = self._clients.boto(hasty=True)
            made = client.put_object(Bucket=bucket, Key=full, Body=b"", IfNoneMatch="*")
            versions = [made.get("VersionId")]
            try:
                made = client.put_object(Bucket=bucket, Key=full, Body=b"", IfNoneMatch="*")
                versions.append(made.get("VersionId"))
                exclusive = False
            except ClientError as error:
                exclusive = error.response["ResponseMetadata"]["HTTPStatusCode"] in (409, 412)
            # On a versioned bucket a plain DELETE would only hide it.
            for version in dict.fromkeys(versions):
                which: dict[str, Any] = {"VersionId": version} if version and version != "null" else {}
                client.delete_object(Bucket=bucket, Key=full, **which)
        except Exception as error:
            self._raise(error, self.uri)
        if not exclusive:
            raise StorageError(
                f"{self.uri}: this service ignores If-None-Match, so runs could overwrite each other; use another."
            )

    def _full(self, key: str) -> str:
        full = self._address.prefix + key
        try:
            length = len(full.encode())
        except UnicodeEncodeError:
            raise StorageError(f"{self.uri}: {key!r} is not valid Unicode.") from None
        if not key or "\0" in key or length > 1024:
            raise StorageError(
                f"{self.uri}: {key!r} cannot be a key (empty, with a NUL, or over 1,024 bytes)."
            )
        return full

    def _name(self, key: str) -> str:
        return f"s3://{self._address.bucket}/{self._address.prefix}{key}"

    def _raise(self, error: Exception, name: str) -> NoReturn:
        raise_fault(error, name, self._clients.where)


def _obstore_spells(full: str) -> bool:
    """Whether obstore asks for just this key."""
    return not _CONTROL.search(full) and all(part not in ("", ".", "..") for part in full.split("/"))


def _is_aws(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws")) or host == "amazonaws.com"


def _bucket_region(client: "S3Client", bucket: str) -> str | None:
    """Where the bucket lives; boto3 would follow AWS's redirect there, obstore would not."""
    try:
        answer: Any = client.head_bucket(Bucket=bucket)
    except ClientError as error:
        answer = error.response
    region = answer.get("BucketRegion") or answer["ResponseMetadata"]["HTTPHeaders"].get(
        "x-amz-bucket-region"
    )
    return str(region) if region else None
