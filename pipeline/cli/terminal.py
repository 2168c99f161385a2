"""What reaches the terminal: no control character that came from outside, whoever prints it.

`guard` stands before standard output and standard error, and lets through what prints and line breaks; so it holds for
`print`, for warnings and tracebacks, and for what Ray tells from a thread. Colours and moves of the cursor are drawn by
a `Screen` alone, which looks at each piece of text itself.
"""

import os
import re
import sys
from collections.abc import Iterable
from typing import IO, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from fcn_core.text.printable import printable_lines

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
"""As Ray writes them around what it tells; left out, for they are no more than decoration."""


def guard() -> None:
    """From now on, what is written to standard output and standard error is shown, and drives no terminal.

    Bytes, written to their `buffer`, are left alone. Once is enough; more is no error.
    """
    # Closed by who started us (`fcn ... >&-`, some daemons), they are None in Python. What is opened next would get
    # their number and be written into.
    if sys.stdout is None:
        sys.stdout = _nowhere()
    if sys.stderr is None:
        sys.stderr = _nowhere()
    if not isinstance(sys.stdout, _Guarded):
        sys.stdout = _Guarded(sys.stdout)  # has all of a TextIO by delegation
    if not isinstance(sys.stderr, _Guarded):
        sys.stderr = _Guarded(sys.stderr)


def _nowhere() -> IO[str]:
    return open(os.devnull, "w", encoding="utf-8")


def unguarded(stream: Any) -> Any:
    """The stream behind a guard: for data that a program reads, and for those who draw."""
    return stream.behind if isinstance(stream, _Guarded) else stream


def behind_guard(stream: Any) -> None:
    """Put `stream` where standard error's own stands: behind its guard, where it has one."""
    if isinstance(sys.stderr, _Guarded):
        sys.stderr.behind = stream
    else:
        sys.stderr = stream


class _Guarded:
    """A text stream that writes what does not print as escapes."""

    def __init__(self, behind: IO[str]) -> None:
        self.behind = behind

    def write(self, text: str) -> int:
        self.behind.write(printable_lines(_COLOURS.sub("", text)))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.behind, name)


class Screen(Console):
    """A Rich console for text that may hold what came from outside.

    No `:x:` in it becomes a picture. Markup is left to the caller, who escapes text from outside
    or passes markup=False.
    """

    def __init__(
        self, *, stderr: bool = False, soft_wrap: bool = False, width: int | None = None, highlight: bool = False
    ) -> None:
        super().__init__(emoji=False, highlight=highlight, stderr=stderr, soft_wrap=soft_wrap, width=width)

    @property
    def file(self) -> IO[str]:
        """Where it writes: behind the guard, for what it draws is its own."""
        behind: IO[str] = unguarded(super().file)
        return behind

    @file.setter
    def file(self, file: IO[str]) -> None:
        self._file = file

    def on_broken_pipe(self) -> None:
        """Called where nobody reads any more. Rich would end the program with 1; the program has a code for it."""
        raise

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Rich's segments, in whose text there is no control character but line breaks."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
                continue
            style = segment.style
            # A link is drawn by control characters around an address; ours have none.
            yield Segment(printable_lines(segment.text), style.update_link(None) if style and style.link else style)
