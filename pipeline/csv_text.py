"""CSV that a spreadsheet shows and does not run.

A spreadsheet takes a cell that begins with `=`, `+`, `-`, `@`, a tab or a line break for a formula, also where the file
says that it is text; and keys are text of strangers. Such a cell is written with an apostrophe before it, and so is
one that would otherwise pass for a cell with an apostrophe before it: `original` gives back any text as it was.
"""

import re
from collections.abc import Iterable
from numbers import Number

RUN = "=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20"
"""What begins a formula, as a set of a regular expression; the last four are wide forms, taken by some."""

MARKED = f"^'(['{RUN}])"
"""A cell with an apostrophe before it; the group is what stands behind that."""

_TO_MARK = re.compile(f"[{RUN}]|'['{RUN}]")
_MARKED = re.compile(MARKED)
_QUOTED = re.compile(r'[,;"\s]')
"""Text that goes between quotes. Semicolons and tabs, too: they end a cell where a spreadsheet is set so."""


def csv_line(values: Iterable[object]) -> str:
    """One line of CSV, its end included. None is an empty cell; numbers are as they are, all else is text."""
    return ",".join(map(_cell, values)) + "\n"


def original(cell: str) -> str:
    """The text of a cell that `csv_line` wrote."""
    return _MARKED.sub(r"\1", cell)


def delimiter_of(text: str) -> str:
    """What stands between the columns of a CSV text, by its first line: a comma, unless there is none."""
    first = text.lstrip("\ufeff\r\n").partition("\n")[0]
    return next((char for char in ",\t;" if char in first), ",")


def _cell(value: object) -> str:
    if value is None:
        return ""
    text = str(value)
    if isinstance(value, Number):
        return text
    if _TO_MARK.match(text):
        text = f"'{text}"
    return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text
