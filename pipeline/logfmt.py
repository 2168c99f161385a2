"""Log lines as key=value pairs, which people read and machines take apart.

A value is bare where it can be, and else a JSON string. So a line stays one line, whatever a key or a message holds,
and no control character reaches a terminal.
"""

import json
import re

_BARE = re.compile(r"[!#-<>-\[\]-~]+")
"""Printable ASCII without space, quote, equals sign and backslash."""


def key_values(**values: object) -> str:
    """`run=a shard=7 note="two words"`. None is left out; a float has three decimals, a small one three digits."""
    return " ".join(f"{name}={_text(value)}" for name, value in values.items() if value is not None)


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) >= 0.1 or value == 0 else f"{value:.3g}"
    text = str(value)
    if _BARE.fullmatch(text):
        return text
    # JSON leaves some characters as they are that end a line or drive a terminal.
    return "".join(
        char if char.isprintable() else json.dumps(char)[1:-1] for char in json.dumps(text, ensure_ascii=False)
    )
