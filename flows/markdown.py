"""Text from outside in Markdown, which Prefect's pages make of artifacts: descriptions and cells of tables, too.

A class that is called `[free GPUs](https://...)`, or an example `<img src=...>`, is shown as what it is called.
"""

import re
from collections.abc import Iterable

from fcn_core.text.printable import printable

_MARKUP = re.compile(
    r"[\\`*\[\]<>&|~#!$@]|(?<![a-z0-9])_|_(?![a-z0-9])|(?<=http):|(?<=https):|(?<=ftp):|(?<=www)\.", re.IGNORECASE
)
"""What can begin a markup or an address that becomes a link. An underscore within a word begins none."""

_FIRST = re.compile(r"^(\s*\d*)([-+=.)])")
"""What at the beginning of a text makes a list, a title or a line of it."""


def plain(text: object) -> str:
    """`text` as Markdown that shows it, on one line."""
    escaped = _MARKUP.sub(lambda found: "\\" + found[0], printable(str(text)))
    return _FIRST.sub(r"\1\\\2", escaped)


def code(text: object) -> str:
    """`text` as it is, set as code: for what is copied."""
    shown = printable(str(text))
    fence = "`" * (_longest_fence(shown) + 1)
    # Spaces keep backticks at its ends apart from the fence; a text of spaces alone keeps them.
    pad = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def block(lines: Iterable[str]) -> str:
    """Lines as they are, in a block."""
    shown = [printable(line) for line in lines]
    fence = "`" * max(3, _longest_fence("\n".join(shown)) + 1)
    return "\n".join([f"{fence}text", *shown, fence])


def _longest_fence(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
