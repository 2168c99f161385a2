"""Requests to an S3 server that are signed with its one key pair; all others are refused, as moto itself does not.

A server on loopback is within reach of every user of the machine, and of every web page that one of them looks at. What
is checked is AWS's Signature Version 4, of the headers: method, path, query, host, time and what is signed besides.
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote, unquote

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]

FRESH = timedelta(minutes=15)
"""How far a request's time may lie from now, as at AWS."""

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/,]+)/(?P<scope>(?P<day>\d{8})/(?P<region>[^/,]+)/s3/aws4_request),\s*"
    r"SignedHeaders=(?P<headers>[a-z0-9;-]+),\s*Signature=(?P<signature>[0-9a-f]{64})"
)

_REFUSAL = (
    b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>not signed with this server's key</Message></Error>"
)


def only_signed(application: Application, key_id: str, secret: str) -> Application:
    """`application`, for requests that are signed with this key pair and no others: they get 403."""

    def checked(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if is_signed(environ, key_id, secret, datetime.now(UTC)):
            return application(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", str(len(_REFUSAL)))])
        return [_REFUSAL]

    return checked


def is_signed(environ: dict[str, Any], key_id: str, secret: str, now: datetime) -> bool:
    """Whether the request is signed with this key pair, for its host, about now."""
    given = _AUTHORIZATION.fullmatch(environ.get("HTTP_AUTHORIZATION", ""))
    time = environ.get("HTTP_X_AMZ_DATE", "")
    if given is None or not hmac.compare_digest(given["key"].encode(), key_id.encode()):
        return False
    names = given["headers"].split(";")
    if not {"host", "x-amz-date", "x-amz-content-sha256"} <= set(names) or not _is_about(time, now):
        return False
    to_sign = "\n".join(("AWS4-HMAC-SHA256", time, given["scope"], _sha256(_canonical(environ, names))))
    key = f"AWS4{secret}".encode()
    for part in (given["day"], given["region"], "s3", "aws4_request"):
        key = _hmac(key, part)
    return hmac.compare_digest(_hmac(key, to_sign).hex(), given["signature"])


def _canonical(environ: dict[str, Any], names: list[str]) -> str:
    """The request as it is signed. S3's paths are signed as they are sent."""
    path, _, query = str(environ["REQUEST_URI"]).partition("?")
    headers = "".join(f"{name}:{_header(environ, name)}\n" for name in names)
    payload = environ.get("HTTP_X_AMZ_CONTENT_SHA256", "")
    return "\n".join((environ["REQUEST_METHOD"], path, _canonical_query(query), headers, ";".join(names), payload))


def _canonical_query(query: str) -> str:
    pairs = (part.partition("=") for part in query.split("&") if part)
    return "&".join(sorted(f"{_encoded(name)}={_encoded(value)}" for name, _, value in pairs))


def _encoded(text: str) -> str:
    return quote(unquote(text, errors="surrogateescape").encode(errors="surrogateescape"), safe="-_.~")


def _header(environ: dict[str, Any], name: str) -> str:
    variable = name.upper().replace("-", "_")
    value = environ.get(variable if variable in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{variable}", "")
    return " ".join(str(value).split())


def _is_about(time: str, now: datetime) -> bool:
    try:
        return abs(datetime.strptime(time, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC) - now) <= FRESH
    except ValueError:
        return False


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()
