"""Where requests to S3 go: botocore decides, once, and obstore is told.

botocore knows what URI, profile and environment say of endpoints, addressing, proxies and certificates, as the AWS CLI
does. obstore has rules of its own for each of these; so it gets a finished address, and a proxy or none.
"""

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import botocore.session
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.httpsession import ProxyConfiguration
from botocore.utils import get_environ_proxies

from pipeline.errors import StorageError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from obstore.store import ClientConfig

ONLY_OBSTORE_READS = (
    "AWS_ALLOW_HTTP",
    "AWS_ALLOW_INVALID_CERTIFICATES",
    "AWS_CHECKSUM_ALGORITHM",
    "AWS_CONDITIONAL_PUT",
    "AWS_COPY_IF_NOT_EXISTS",
    "AWS_DISABLE_BULK_DELETE",
    "AWS_DISABLE_TAGGING",
    "AWS_PROXY_URL",
    "AWS_REQUEST_PAYER",
    "AWS_S3_EXPRESS",
    "AWS_SERVER_SIDE_ENCRYPTION",
    "AWS_SKIP_SIGNATURE",
    "AWS_SSE_BUCKET_KEY_ENABLED",
    "AWS_SSE_CUSTOMER_KEY_BASE64",
    "AWS_SSE_KMS_KEY_ID",
    "AWS_UNSIGNED_PAYLOAD",
    "AWS_VIRTUAL_HOSTED_STYLE_REQUEST",
)
"""Variables that would make obstore ask in another way than boto3 does."""

_NO_PROXY: "ClientConfig" = {"proxy_url": "http://proxy.invalid", "proxy_excludes": "*,0.0.0.0/0,::/0"}
"""A proxy for no host at all: where none is named, obstore looks for one in the environment by rules of its own."""


def is_aws(endpoint: str) -> bool:
    """Whether an endpoint is one of AWS's own."""
    host = urlsplit(endpoint).hostname or ""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws")) or host == "amazonaws.com"


def address_of(client: "S3Client", bucket: str) -> str:
    """The URL under which `client` asks for the keys of `bucket`, without a slash at the end. Sends no request.

    `client` is not to be used for anything else.
    """
    asked: list[str] = []

    def answer(request: Any, **_: object) -> Any:
        asked.append(request.url)
        return AWSResponse(request.url, 200, HTTPHeaders(), io.BytesIO())

    client.meta.events.register("before-send.s3", answer)
    client.get_object(Bucket=bucket, Key="k")
    url = urlsplit(asked[0])
    return urlunsplit((url.scheme.lower(), url.netloc, url.path.removesuffix("/k"), "", ""))


def proxy_settings(endpoint: str) -> "ClientConfig":
    """The proxy for requests to `endpoint` as botocore chooses it, or none, for obstore."""
    chosen = ProxyConfiguration(get_environ_proxies(endpoint)).proxy_url_for(endpoint)
    return {"proxy_url": str(chosen)} if chosen else _NO_PROXY


def certificates(core: botocore.session.Session) -> bytes | None:
    """The certificates that the user trusts, PEM, from where botocore looks for them; None where it says nothing.

    Raises StorageError where they cannot be read.
    """
    name = core.get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE")
    if not name:
        return None
    path = Path(name).expanduser()
    try:
        files = sorted(each for each in path.iterdir() if each.is_file()) if path.is_dir() else [path]
        return b"\n".join(each.read_bytes() for each in files)
    except OSError as error:
        raise StorageError(
            f"the certificates at {path} cannot be read ({error.strerror}); correct AWS_CA_BUNDLE, "
            "REQUESTS_CA_BUNDLE or the profile's ca_bundle"
        ) from None
