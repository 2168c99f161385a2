"""`DATASET@3` and `DATASET@latest`: which version of a data set is meant."""

import re

from pipeline.errors import InputError
from pipeline.storage.uri import split_options, split_prefix

LATEST = "latest"

_REFERENCE = re.compile(r"(?P<place>.+)@(?P<version>latest|[0-9]{1,9})", re.DOTALL)


def split_reference(dataset: str) -> tuple[str, str | None]:
    """The data set's place, as `open_store` takes it, and the version as it was written; None where none was."""
    if split_prefix(dataset)[0]:  # an output has runs, not versions
        return dataset, None
    place, options = split_options(dataset)
    match = _REFERENCE.fullmatch(place)
    return (match["place"] + options, match["version"]) if match else (dataset, None)


def with_version(place: str, version: int) -> str:
    """The reference to a version of the data set at a place."""
    bare, options = split_options(place)
    return f"{bare}@{version}{options}"


def version_number(text: str) -> int:
    """A version as a person writes it: "3" or "@3". Raises InputError."""
    digits = text.removeprefix("@")
    if not digits.isascii() or not digits.isdecimal() or len(digits) > 9 or int(digits) < 1:
        raise InputError(f"{text!r} is no version of a data set; versions are 1, 2, 3, ...")
    return int(digits)
