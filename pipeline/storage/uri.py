"""URIs of folders and objects as text: their schemes, names and options, and that none holds a secret.

The one thing to know: options of a job end up in records, logs and task parameters, so a URI with a secret is refused
before anything else is done with it.
"""

import re
from typing import Annotated
from urllib.parse import unquote, urlsplit, urlunsplit

from pydantic import AfterValidator, Field

from pipeline.errors import InputError

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_REMOTE_SCHEME = re.compile(r"(?!file:)" + _SCHEME.pattern, re.IGNORECASE)
_S3_OPTIONS = re.compile(r"(?P<place>s3a?://.*)(?P<options>\?[a-z0-9_.-]+=[^?]*)", re.IGNORECASE | re.DOTALL)

OUTPUT_PREFIX = "output:"
"""Before the place of an output of `fcn segment` where a data set is named."""

_USER = re.compile(r"://[^/?#\s]*@")
_SECRET_OPTION = re.compile(
    r"[?&](?:sig|[a-z0-9_.-]*(?:secret|password|token|signature|credential|key)[a-z0-9_.-]*)=", re.IGNORECASE
)
_SECRET_PLACE = rf"(?i)^(?=({OUTPUT_PREFIX})?{_REMOTE_SCHEME.pattern})(?=.*({_USER.pattern}|{_SECRET_OPTION.pattern}))"


def refuse_secrets(uri: str) -> str:
    """`uri` as it is. Raises InputError, which does not repeat it, when a password, token or signature is in it."""
    scheme = _REMOTE_SCHEME.match(split_prefix(uri)[1])
    if scheme and (_USER.search(uri) or _SECRET_OPTION.search(uri)):
        raise InputError(
            f"{scheme.group()}...: credentials do not belong into a URI, which is written into records; use a profile, "
            "the environment's variables, or this machine's role."
        )
    return uri


def without_user(url: str) -> str:
    """`url` fit to be shown and recorded: without user name and password."""
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        return urlunsplit(parts._replace(netloc=host)) if "@" in parts.netloc else url
    except ValueError:
        return url.partition("://")[0] + "://..."


def _refuse_nothing(uri: str) -> str:
    # Not Field(min_length=1): for that pydantic wants text that is UTF-8, and stores name a path better that is not.
    if not uri:
        raise ValueError("should be a path or URI")
    return uri


Uri = Annotated[
    str,
    Field(
        # For who checks a form by its schema, before any of this code runs: Prefect's server.
        json_schema_extra={
            "minLength": 1,
            "not": {"pattern": _SECRET_PLACE},
        },
    ),
    AfterValidator(_refuse_nothing),
    AfterValidator(refuse_secrets),
]
"""A path or URI, refused as soon as it is given when it is empty or holds a secret."""


def scheme_of(uri: str) -> str:
    """The scheme in lower case; that of a plain path is "file"."""
    match = _SCHEME.match(uri)
    return match.group().removesuffix("://").lower() if match else "file"


def is_uri(text: str) -> bool:
    """Whether a text begins with a scheme, be it a known one or not."""
    return _SCHEME.match(text) is not None


def is_absolute(place: str) -> bool:
    """Whether a place means the same in every folder: a URI, or an absolute path."""
    return is_uri(place) or place.startswith("/")


def split_prefix(place: str) -> tuple[str, str]:
    """OUTPUT_PREFIX and what follows it; ("", place) where it does not begin so."""
    bare = place.removeprefix(OUTPUT_PREFIX)
    return ("", place) if bare == place else (OUTPUT_PREFIX, bare)


def split_options(uri: str) -> tuple[str, str]:
    """An s3:// URI without its options, and these with their question mark; ("...", "") where there are none."""
    match = _S3_OPTIONS.fullmatch(uri)
    return (match["place"], match["options"]) if match else (uri, "")


def split_uri(uri: str) -> tuple[str, str]:
    """The folder of one file or object, as `open_store` takes it, and its name there."""
    place, options = split_options(uri)
    folder, slash, name = place.rpartition("/")
    if uri.lower().startswith("file://"):
        name = unquote(name)
    # A single "/" before the name is the root folder; without any, the file is in the current folder.
    return (folder or slash or ".") + options, name
