"""JSON that somebody else may have written: a value of bounded depth and size, or a ValueError of one sentence.

The one thing to know: Python's own reader takes anything that is JSON, and more. 100,000 brackets end it with a
RecursionError, which no caller expects; NaN, half a surrogate pair or a number of 4,000 digits come through, and fail
where the value is used.
"""

import codecs
import json
from collections.abc import Callable
from typing import Any

LARGEST_BYTES = 8 << 20
"""A model.json has some kilobytes."""
DEEPEST = 100
LONGEST_NUMBER = 400
"""In digits. The largest float has 309."""


def parse_json(
    data: bytes,
    *,
    most_bytes: int = LARGEST_BYTES,
    object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """The value of a JSON text in UTF-8. Raises ValueError, in the words of a message after "is not JSON", for what is
    none, or more than anybody means.

    `object_pairs_hook`: as `json.loads` takes it.
    """
    if len(data) > most_bytes:
        raise ValueError(f"{len(data)} bytes, over {most_bytes}")
    try:
        value = json.loads(
            # Windows' editors begin with a mark. Not by the codec for that: importing it takes a look at files, which a
            # process that has given them up cannot do.
            str(bytes(data).removeprefix(codecs.BOM_UTF8), "utf-8"),
            object_pairs_hook=object_pairs_hook,
            parse_int=_whole,
            parse_float=_number,
            parse_constant=_constant,
        )
    except RecursionError:
        raise _too_deep() from None
    _check(value)
    return value


def _check(value: Any) -> None:
    level = [value]
    for _ in range(DEEPEST):
        below: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                below += each.keys()
                below += each.values()
            elif isinstance(each, list):
                below += each
            elif isinstance(each, str) and not each.isascii():
                each.encode()  # half a surrogate pair is a UnicodeEncodeError, which is a ValueError
        if not below:
            return
        level = below
    raise _too_deep()


def _too_deep() -> ValueError:
    return ValueError(f"values nested more than {DEEPEST} deep")


def _whole(text: str) -> int:
    return int(_bounded(text))


def _number(text: str) -> float:
    number = float(_bounded(text))
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:40]} is larger than any number")
    return number


def _bounded(text: str) -> str:
    if len(text) > LONGEST_NUMBER:
        raise ValueError(f"a number of {len(text)} digits")
    return text


def _constant(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")
