"""How the S3 store reaches its bucket: what an s3:// URI says, and the two clients made from it.

boto3 finds profile, role, region and endpoint as the AWS CLI does; obstore is told what boto3 found. Neither
reads a secret from the URI: one that holds a secret is refused.
"""

import os
import re
import threading
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.store import S3Store as RustS3

from pipeline.errors import AccessDenied, InputError
from pipeline.storage.s3_responses import read_fast
from pipeline.storage.store import StorageOptions
from pipeline.storage.uri import split_options

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from obstore.store import ClientConfig

_OPTIONS = ("endpoint_url", "profile", "region")
_SECRET_NAME = re.compile(r"secret|password|token|key|credential|signature", re.IGNORECASE)
# botocore hands out credentials with at least ten minutes to live; ask it again well within that.
_CREDENTIALS_TTL = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class S3Address:
    """What an s3:// URI says. `prefix` is "" or ends in "/"; None leaves a setting to the configuration."""

    bucket: str
    prefix: str
    endpoint_url: str | None = None
    profile: str | None = None
    region: str | None = None

    @classmethod
    def parse(cls, uri: str) -> "S3Address":
        """Raises InputError for a URI without bucket, with unknown options, or with a secret in it."""
        place, query = split_options(uri)
        bucket, _, prefix = place.partition("://")[2].partition("/")
        shown = f"s3://{bucket.rpartition('@')[2]}/{prefix}"
        if "@" in bucket or ":" in bucket:
            raise InputError(f"{shown}: credentials and ports do not belong here; use a profile or AWS_* variables.")
        if not bucket:
            raise InputError(f"{shown}: the bucket is missing; write s3://bucket/prefix.")
        given = dict(parse_qsl(query.removeprefix("?"), keep_blank_values=True))
        for name in given:
            if name in _OPTIONS:
                continue
            if _SECRET_NAME.search(name):
                raise InputError(f"{shown}: {name} does not belong into the URI; use a profile or AWS_* variables.")
            raise InputError(f"{shown}: there is no option {name!r}; there are {', '.join(_OPTIONS)}.")
        endpoint = given.get("endpoint_url")
        if endpoint is not None:
            parts = urlsplit(endpoint)
            if "@" in parts.netloc:
                raise InputError(f"{shown}: endpoint_url holds credentials; use a profile or AWS_* variables.")
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
        path = self.prefix if self.prefix == "/" or self.prefix.endswith("//") else self.prefix.removesuffix("/")
        return f"s3://{self.bucket}/{path}{query}" if path else f"s3://{self.bucket}{query}"


class Clients:
    """The clients of one bucket, made on first use and shared by all stores of it in this `process`."""

    def __init__(self, address: S3Address, options: StorageOptions) -> None:
        self._address = address
        self._options = options
        self.process = os.getpid()
        self._lock = threading.RLock()
        self._core: botocore.session.Session
        self._session: boto3.Session | None = None
        self._boto: dict[bool, S3Client] = {}
        self._rust: RustS3 | None = None

    def boto(self, *, for_check: bool = False) -> "S3Client":
        """boto3's client; the one for preflight checks gives up soon."""
        with self._lock:
            if for_check not in self._boto:
                self._boto[for_check] = self._make_boto(for_check)
            return self._boto[for_check]

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
            read_fast(self._core)
            self._session = boto3.Session(botocore_session=self._core, region_name=self._address.region)
        return self._session

    def _make_boto(self, for_check: bool) -> "S3Client":
        patience = self._options.check_seconds if for_check else self._options.retry_seconds
        connect = min(self._options.connect_seconds, patience)
        settings = Config(
            connect_timeout=connect,
            read_timeout=min(self._options.read_seconds, patience),
            # Its pauses are random, below 1, 2, 4, ... 20 s: about 3 s for 3 retries, then 10 s each.
            retries={"mode": "standard", "max_attempts": 2 if for_check else max(1, 4 + int(patience / 10))},
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
                f"s3://{bucket}: no credentials found; set AWS_PROFILE or AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or give this machine a role."
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
        client_options: ClientConfig = {
            "allow_http": endpoint.startswith("http://"),
            "connect_timeout": self._options.connect_seconds * seconds,
            "read_timeout": self._options.read_seconds * seconds,
            # The whole of one try: room for a large model on a slow line; `read_timeout` sees a dead one.
            "timeout": max(600.0, self._options.read_seconds) * seconds,
        }
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
            client_options=client_options,
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


def _is_aws(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws")) or host == "amazonaws.com"


def _bucket_region(client: "S3Client", bucket: str) -> str | None:
    """Where the bucket lives; boto3 would follow AWS's redirect there, obstore would not."""
    try:
        answer: Any = client.head_bucket(Bucket=bucket)
    except ClientError as error:
        answer = error.response
    region = answer.get("BucketRegion") or answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region")
    return str(region) if region else None
