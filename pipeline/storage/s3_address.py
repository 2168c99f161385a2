"""What an s3:// URI says: bucket, prefix, and options for the service. It holds no secret: one that does is refused."""

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit

from pipeline.errors import InputError
from pipeline.storage.uri import split_options

OPTIONS = ("endpoint_url", "profile", "region", "unsigned", "request_payer")
_SECRET_NAME = re.compile(r"secret|password|token|key|credential|signature", re.IGNORECASE)
_ACCESS_POINT = re.compile(
    r"(?P<bucket>arn:aws[a-z-]*:s3[a-z-]*:(?P<region>[a-z0-9-]*):[0-9]*:"
    r"(?:outpost[/:][a-z0-9-]+[/:])?accesspoint[/:][A-Za-z0-9.-]+)(?:/(?P<prefix>.*))?",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class S3Address:
    """What an s3:// URI says. `prefix` is "" or ends in "/"; None leaves a setting to the configuration."""

    bucket: str
    """A bucket's name, or the ARN of an access point."""
    prefix: str
    endpoint_url: str | None = None
    profile: str | None = None
    region: str | None = None
    unsigned: bool | None = None
    request_payer: str | None = None

    @classmethod
    def parse(cls, uri: str) -> "S3Address":
        """Raises InputError for a URI without bucket, with unknown options, or with a secret in it."""
        place, query = split_options(uri)
        rest = place.partition("://")[2]
        access_point = _ACCESS_POINT.fullmatch(rest)
        if access_point:
            bucket, prefix = access_point["bucket"], access_point["prefix"] or ""
            if not access_point["region"]:
                raise InputError(
                    f"s3://{bucket}: access points of several regions want signatures that obstore cannot make; give "
                    "the bucket, or an access point of one region."
                )
        else:
            bucket, _, prefix = rest.partition("/")
        shown = f"s3://{bucket.rpartition('@')[2]}/{prefix}"
        if not access_point and ("@" in bucket or ":" in bucket):
            raise InputError(f"{shown}: credentials and ports do not belong here; use a profile or AWS_* variables.")
        if not bucket:
            raise InputError(f"{shown}: the bucket is missing; write s3://bucket/prefix.")
        given = dict(parse_qsl(query.removeprefix("?"), keep_blank_values=True))
        for name in given:
            if name in OPTIONS:
                continue
            if _SECRET_NAME.search(name):
                raise InputError(f"{shown}: {name} does not belong into the URI; use a profile or AWS_* variables.")
            raise InputError(f"{shown}: there is no option {name!r}; there are {', '.join(OPTIONS)}.")
        if prefix and not prefix.endswith("/"):
            prefix += "/"
        return cls(
            bucket,
            prefix,
            _endpoint(given.get("endpoint_url"), shown),
            given.get("profile") or None,
            given.get("region") or None,
            _unsigned(given.get("unsigned"), shown),
            _payer(given.get("request_payer"), shown),
        )

    @property
    def uri(self) -> str:
        options = {
            name: "true" if value is True else "false" if value is False else value
            for name in OPTIONS
            if (value := getattr(self, name)) is not None
        }
        query = "?" + urlencode(options, safe=":/") if options else ""
        # One slash at the end is understood; a prefix that is "/" or ends in "//" needs it said.
        path = self.prefix if self.prefix == "/" or self.prefix.endswith("//") else self.prefix.removesuffix("/")
        return f"s3://{self.bucket}/{path}{query}" if path else f"s3://{self.bucket}{query}"


def _endpoint(given: str | None, shown: str) -> str | None:
    if given is None:
        return None
    try:
        parts = urlsplit(given)
    except ValueError:
        raise InputError(f"{shown}: endpoint_url must look like https://host:port.") from None
    if "@" in parts.netloc:
        raise InputError(f"{shown}: endpoint_url holds credentials; use a profile or AWS_* variables.")
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query:
        raise InputError(f"{shown}: endpoint_url must look like https://host:port.")
    # urlsplit has the scheme in lower case, as obstore wants it.
    return parts.scheme + given[len(parts.scheme) :]


def _unsigned(given: str | None, shown: str) -> bool | None:
    if given is None:
        return None
    if given.lower() not in ("true", "false"):
        raise InputError(f"{shown}: unsigned is true or false, not {given!r}.")
    return given.lower() == "true"


def _payer(given: str | None, shown: str) -> str | None:
    if given is not None and given != "requester":
        raise InputError(f"{shown}: request_payer can only be requester, not {given!r}.")
    return given
