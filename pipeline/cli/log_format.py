"""How a command's lines on standard error look where no person watches: key=value with a time stamp, or JSON.

With JSON every line is an object with `time`, whoever writes it: what is not a line of ours has its text as `message`.
So a collector of logs never meets anything else.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal

from pipeline.cli.terminal import behind_guard, unguarded

LogFormat = Literal["text", "json"]

VARIABLE = "FCN_LOG_FORMAT"
"""The format where no option gives it: of jobs that are started elsewhere, and of commands without the option."""


def use(log_format: LogFormat | None) -> None:
    """Write standard error in this format until the end of the `scope`; None is FCN_LOG_FORMAT, else text."""
    if (log_format or os.environ.get(VARIABLE)) == "json" and not isinstance(unguarded(sys.stderr), _JsonLines):
        behind_guard(_JsonLines(unguarded(sys.stderr)))


@contextmanager
def scope() -> Iterator[None]:
    """Standard error as it is, or as FCN_LOG_FORMAT wants it; at the end it is again as it was."""
    before = unguarded(sys.stderr)
    use(None)
    try:
        yield
    finally:
        now = unguarded(sys.stderr)
        if isinstance(now, _JsonLines) and now is not before:
            now.finish()
            behind_guard(before)


def time_warnings() -> None:
    """Give the warnings of libraries and of our own modules, which nobody handles, a time where nobody watches."""
    if logging.lastResort is not None and not sys.stderr.isatty():
        formatter = logging.Formatter("time=%(asctime)s.%(msecs)03dZ %(message)s", "%Y-%m-%dT%H:%M:%S")
        formatter.converter = time.gmtime
        logging.lastResort.setFormatter(formatter)


def is_json() -> bool:
    """Whether standard error is written as JSON now."""
    return isinstance(unguarded(sys.stderr), _JsonLines)


def stamp() -> str:
    """Now, in UTC, as lines have it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def json_line(**values: object) -> str:
    """An object on one line of ASCII; None is left out."""
    return json.dumps({name: _plain(value) for name, value in values.items() if value is not None})


def _plain(value: object) -> object:
    if isinstance(value, float):
        return round(value, 3) if abs(value) >= 0.1 or value == 0 else float(f"{value:.3g}")
    return value if isinstance(value, int | str) else str(value)


class _JsonLines:
    """A text stream each of whose lines is an object. It is no terminal, whatever is behind it."""

    def __init__(self, behind: Any) -> None:
        self._behind = behind
        self._begun = ""

    def write(self, text: str) -> int:
        *lines, self._begun = (self._begun + text).split("\n")
        for line in lines:
            self._write(line)
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        self.write("".join(lines))

    def finish(self) -> None:
        """Write a line that has not ended."""
        begun, self._begun = self._begun, ""
        self._write(begun)

    def isatty(self) -> bool:
        return False

    def _write(self, line: str) -> None:
        if line.startswith('{"time": '):
            self._behind.write(line + "\n")
        elif line.strip():
            self._behind.write(json_line(time=stamp(), message=line) + "\n")
        self._behind.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._behind, name)
