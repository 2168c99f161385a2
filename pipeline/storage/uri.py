"""A place as an option of a job: text that holds no secret, for options end up in records, logs and task parameters."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from pipeline.errors import InputError

_SCHEME = re.compile(r"(?!file:)[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_USER = re.compile(r"://[^/?#\s]*@")
_SECRET_OPTION = re.compile(
    r"[?&](?:sig|[a-z0-9_.-]*(?:secret|password|token|signature|credential|key)[a-z0-9_.-]*)=", re.IGNORECASE
)


def refuse_secrets(uri: str) -> str:
    """`uri` as it is. Raises InputError, which does not repeat it, when a password, token or signature is in it."""
    scheme = _SCHEME.match(uri)
    if scheme and (_USER.search(uri) or _SECRET_OPTION.search(uri)):
        raise InputError(
            f"{scheme.group()}...: credentials do not belong into a URI, which is written into records; use a profile, "
            "the environment's variables, or this machine's role."
        )
    return uri


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
            "not": {"pattern": f"(?i)^(?={_SCHEME.pattern})(?=.*({_USER.pattern}|{_SECRET_OPTION.pattern}))"},
        },
    ),
    AfterValidator(_refuse_nothing),
    AfterValidator(refuse_secrets),
]
"""A path or URI, refused as soon as it is given when it is empty or holds a secret."""
