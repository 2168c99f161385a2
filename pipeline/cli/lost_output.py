"""Standard streams that may go away. What cannot be written to standard error is dropped, and the work goes on.

A run of hours must not end because the `tee` or `less` that shows its progress was closed, or a log's disk is full.
Standard output is for results: where it cannot be written the command says so, and its exit code.
"""

import errno
import io
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TextIO

from pipeline.cli.terminal import unguarded


def survive_lost_stderr() -> None:
    """From now on, no write to standard error fails. Once is enough; more is no error."""
    if sys.stderr is not None and not isinstance(sys.stderr, _Dropping):
        sys.stderr = _Dropping(sys.stderr)  # has all of a TextIO by delegation


def lost_stderr() -> str | None:
    """Since when, and why, standard error could not be written; None where nothing was lost of it."""
    lost: str | None = getattr(unguarded(sys.stderr), "lost", None)
    return lost


class OutputLost(Exception):
    """Standard output could not be written, by no fault of the work; the message is why."""


def tell_lost_stdout() -> None:
    """From now on, a write to standard output that fails raises OutputLost, or BrokenPipeError where nobody reads.

    Nor does one fail for its characters: to a file or a pipe goes UTF-8, unless PYTHONIOENCODING says otherwise, and to
    a terminal that has not all of them, escapes. Once is enough; more is no error.
    """
    if sys.stdout is None or isinstance(sys.stdout, _Telling):
        return
    if isinstance(sys.stdout, io.TextIOWrapper):
        keep = sys.stdout.isatty() or bool(os.environ.get("PYTHONIOENCODING"))
        sys.stdout.reconfigure(encoding=sys.stdout.encoding if keep else "utf-8", errors="backslashreplace")
    sys.stdout = _Telling(sys.stdout)  # has all of a TextIO by delegation


class _Telling:
    """A stream, of text or of bytes, whose failures are told from those of other files."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    @property
    def buffer(self) -> "_Telling":
        return _Telling(self._stream.buffer)

    def write(self, text: Any) -> Any:
        return self._do(self._stream.write, text)

    def writelines(self, lines: Any) -> None:
        self._do(self._stream.writelines, lines)

    def flush(self) -> None:
        self._do(self._stream.flush)

    def _do(self, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputLost(error.strerror or str(error)) from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Dropping:
    """A text stream that drops what cannot be written. `lost` says since when, and why."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.lost: str | None = None

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
            self._stream.flush()  # here, where it can be dropped, and not when Python ends
        except OSError as error:
            self._drop(error)
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        self.write("".join(lines))

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        """Leave nothing in the buffer, which would be written again, and fail again, for ever."""
        self.lost = self.lost or f"since {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}: {error.strerror or error}"
        try:
            kept = os.dup(self._stream.fileno())
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            self._stream.flush()
            if error.errno != errno.EPIPE:  # a full disk may have room again; a reader that has gone does not come back
                os.dup2(kept, self._stream.fileno())
            os.close(kept)
        except (OSError, ValueError):
            return  # there is no file behind it, or none is left to be had

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
