"""Text from outside made fit to be shown: what does not print is written as an escape.

Names of classes, keys, notes and messages may hold anything: sequences that clear a terminal, marks that turn the
direction of the text, line breaks after which a line seems to be somebody else's. What shows such text passes it
through here.
"""

import re
from collections.abc import Sequence

_LONGEST_NAME = 60
_LONGEST_ESCAPED = 12  # characters of a name whose escapes, of up to ten characters each, would fill a page
_LONGEST_QUOTED = 120

LONGEST_WORD = 600
"""Characters of a path or a value that a message repeats in full. Paths have 4,096 at most, values any number."""


def printable(text: str) -> str:
    """`text` on one line, with what does not print as an escape: a newline as \\n, a turn of direction as \\u202e."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def printable_lines(text: str) -> str:
    """The same with line breaks left as they are: for text that may have several lines."""
    return "\n".join(printable(line) for line in text.split("\n"))


def shortened(text: str, most: int) -> str:
    """`text`, or its beginning and end where it has more than `most` characters."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}[... {len(text) - most // 2 - most // 4:,} characters ...]{text[-(most // 4) :]}"


def shortened_words(text: str) -> str:
    """`text` with every word (a path, a value) that is too long to be read shortened."""
    return re.sub(rf"\S{{{LONGEST_WORD + 1},}}", lambda word: shortened(word[0], LONGEST_WORD), text)


def listed(names: Sequence[str], most: int = 12) -> str:
    """The first `most` of names that come from a file, quoted, and how many more. A name takes 150 characters at most:
    the middle of longer ones is left out."""
    shown = ", ".join(_quoted(name) for name in names[:most])
    return f"{shown} and {len(names) - most:,} more" if len(names) > most else shown


def _quoted(name: str) -> str:
    quoted = repr(shortened(name, _LONGEST_NAME))
    return quoted if len(quoted) <= _LONGEST_QUOTED else repr(shortened(name, _LONGEST_ESCAPED))
