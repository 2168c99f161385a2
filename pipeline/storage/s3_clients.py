"""How the S3 store reaches its bucket: the two clients made from what an s3:// URI says.

boto3 finds profile, role, region and endpoint as the AWS CLI does; obstore is told what boto3 found. Both try each
request once: `pipeline.storage.patience` tries again.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

import boto3
import botocore.session
from botocore import UNSIGNED
from botocore.config import Config
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import ClientError
from obstore.store import S3Store as RustS3

from pipeline.errors import AccessDenied
from pipeline.storage.endpoints import (
    ONLY_OBSTORE_READS,
    address_of,
    certificates,
    is_aws,
    proxy_settings,
)
from pipeline.storage.s3_address import S3Address
from pipeline.storage.s3_credentials import RenewedCredentials
from pipeline.storage.s3_etags import Etags
from pipeline.storage.s3_responses import read_fast
from pipeline.storage.store import StorageOptions
from pipeline.storage.uri import without_user

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from obstore.store import ClientConfig

_QUICK_RETRIES = 2
"""obstore's own, within a few seconds: a connection that broke costs no way from Rust to Python and back."""

_environment = threading.Lock()


class Clients:
    """The clients of one bucket, made on first use and shared by all stores of it in this `process`."""

    def __init__(self, address: S3Address, options: StorageOptions) -> None:
        self._address = address
        self._options = options
        self.process = os.getpid()
        self._lock = threading.RLock()
        self._core: botocore.session.Session
        self._keys: RenewedCredentials
        self._session: boto3.Session | None = None
        self._boto: dict[bool, S3Client] = {}
        self._rust: RustS3 | None = None
        self.etags = Etags(address.bucket)

    def boto(self, *, for_check: bool = False) -> "S3Client":
        """boto3's client; the one for preflight checks gives up soon."""
        with self._lock:
            if for_check not in self._boto:
                self._boto[for_check] = self._make_boto(for_check)
            return self._boto[for_check]

    def rust(self) -> RustS3:
        """obstore's client, with keys that are still valid. Raises RenewalFailed."""
        if self._rust is None:
            with self._lock:
                if self._rust is None:
                    self._rust = self._make_rust()
        # What cannot be renewed is reported by obstore as a refusal of the service.
        self.keys()
        return self._rust

    def keys(self) -> ReadOnlyCredentials | None:
        """What the next request will be signed with; None where requests are not signed. Raises RenewalFailed."""
        with self._lock:
            self._open_session()
        return None if self.is_unsigned else self._keys.get_frozen_credentials()

    def renew(self, used: ReadOnlyCredentials | None) -> None:
        """Have other keys than `used`, which the service does not accept. Raises RenewalFailed."""
        if not self.is_unsigned:
            self._keys.renew(used)

    @cached_property
    def is_unsigned(self) -> bool:
        """Whether requests are sent without a signature, as public buckets allow."""
        given = self._address.unsigned
        return self._told("unsigned", "no_sign_request") == "true" if given is None else given

    @cached_property
    def payer(self) -> dict[str, Any]:
        """The argument of boto3's calls that says who pays; none where it is the bucket's owner."""
        payer = self._address.request_payer or self._told("request_payer")
        return {"RequestPayer": "requester"} if payer == "requester" else {}

    @cached_property
    def attempts(self) -> int:
        """How often the profile, or the environment, wants a request tried at least."""
        try:
            with self._lock:
                self._open_session()
                return int(self._core.get_config_variable("max_attempts") or 1)
        except Exception:  # the request itself will say what is wrong with the configuration
            return 1

    @property
    def where(self) -> str:
        """The service, for messages."""
        try:
            return without_user(str(self.boto().meta.endpoint_url))
        except Exception:  # the message at hand is about why there is no client
            return without_user(self._address.endpoint_url or "S3")

    def _told(self, *names: str) -> str | None:
        """What the profile, or its section `s3`, says under the first of `names` that is there; in lower case."""
        with self._lock:
            self._open_session()
            scoped = self._core.get_scoped_config()
        section = scoped.get("s3")
        places = [scoped, section] if isinstance(section, dict) else [scoped]
        return next((str(place[name]).lower() for name in names for place in places if name in place), None)

    def _open_session(self) -> boto3.Session:
        if self._session is None:
            self._core = botocore.session.Session(profile=self._address.profile)
            read_fast(self._core)
            self._keys = RenewedCredentials(self._address.profile)
            self._core.register_component("credential_provider", self._keys)
            self._session = boto3.Session(botocore_session=self._core, region_name=self._address.region)
        return self._session

    def _make_boto(self, for_check: bool) -> "S3Client":
        patience = self._options.check_seconds if for_check else self._options.retry_seconds
        session, endpoint = self._open_session(), self._address.endpoint_url
        certificates(self._core)  # says that a file is missing, which would be waited for
        settings = Config(
            connect_timeout=min(self._options.connect_seconds, patience),
            read_timeout=min(self._options.read_seconds, patience),
            retries={"total_max_attempts": 1},
            max_pool_connections=64,
            # Other services than AWS know the newer checksums only in part.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        if self.is_unsigned:
            settings = settings.merge(Config(signature_version=UNSIGNED))
        client = session.client("s3", endpoint_url=endpoint, config=settings)
        if not is_aws(client.meta.endpoint_url) and not self._has_style():
            settings = settings.merge(Config(s3={"addressing_style": "path"}))
            client = session.client("s3", endpoint_url=endpoint, config=settings)
        return client

    def _has_style(self) -> bool:
        section = self._core.get_scoped_config().get("s3")
        return isinstance(section, dict) and "addressing_style" in section

    def _make_rust(self) -> RustS3:
        session, client, bucket = self._open_session(), self.boto(), self._address.bucket
        signed = not self.is_unsigned
        if signed and not self._keys.exist():
            raise AccessDenied(
                f"s3://{bucket}: no credentials found; set AWS_PROFILE or AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, give this machine a role, or say ?unsigned=true for a public bucket."
            )
        endpoint, region = client.meta.endpoint_url, client.meta.region_name
        style: dict[str, Any] = {"s3": {"addressing_style": "path"}}
        if is_aws(endpoint):
            # A dot in the bucket's name would break the certificate check of bucket.s3.amazonaws.com.
            style = {} if "." not in bucket else style
            region = _arn_region(bucket) or _bucket_region(client, bucket) or region
        probe = session.client(
            "s3",
            region_name=region,
            endpoint_url=self._address.endpoint_url,
            config=Config(signature_version=UNSIGNED, **({} if self._has_style() else style)),
        )
        address = address_of(probe, bucket)
        seconds = timedelta(seconds=1)
        client_options: ClientConfig = {
            "allow_http": address.startswith("http://"),
            "connect_timeout": self._options.connect_seconds * seconds,
            "read_timeout": self._options.read_seconds * seconds,
            # The whole of one try: room for a large model on a slow line; `read_timeout` sees a dead one.
            "timeout": max(600.0, self._options.read_seconds) * seconds,
        }
        client_options.update(proxy_settings(endpoint))
        if (trusted := certificates(self._core)) is not None:
            client_options["root_certificate"] = trusted
        with _own_variables_off():
            return RustS3(
                bucket,
                region=region,
                # The bucket's own address, wherever its name stands in it.
                endpoint=address,
                # obstore reads this variable by itself and would prefer it to `endpoint`.
                aws_endpoint_url_s3=address,
                virtual_hosted_style_request=True,
                disable_bulk_delete=True,
                request_payer=bool(self.payer),
                skip_signature=not signed,
                credential_provider=self._keys if signed else None,
                client_options=client_options,
                retry_config={
                    "max_retries": _QUICK_RETRIES,
                    "retry_timeout": min(5.0, self._options.retry_seconds) * seconds,
                    "backoff": {"init_backoff": 0.1 * seconds, "max_backoff": 1 * seconds, "base": 2},
                },
            )


@contextmanager
def _own_variables_off() -> Iterator[None]:
    """obstore does not see its own variables meanwhile, some of which it has no argument to overrule for."""
    with _environment:
        found = {name: os.environ.pop(name) for name in ONLY_OBSTORE_READS if name in os.environ}
        try:
            yield
        finally:
            os.environ.update(found)


def _arn_region(bucket: str) -> str | None:
    return bucket.split(":")[3] if bucket.startswith("arn:") else None


def _bucket_region(client: "S3Client", bucket: str) -> str | None:
    """Where the bucket lives; boto3 would follow AWS's redirect there, obstore would not."""
    try:
        answer: Any = client.head_bucket(Bucket=bucket)
    except ClientError as error:
        answer = error.response
        if answer["ResponseMetadata"]["HTTPStatusCode"] >= 500:
            raise  # it is no answer, and the bucket may be elsewhere
    region = answer.get("BucketRegion") or answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region")
    return str(region) if region else None
