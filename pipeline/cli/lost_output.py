"""Standard error that may go away: what cannot be written there is dropped, and the work goes on.

A run of hours must not end because the `tee` or `less` that shows its progress was closed, or a log's disk is full.
"""

import errno
import os
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

from pipeline.cli.terminal import unguarded


def survive_lost_stderr() -> None:
    """From now on, no write to standard error fails. Once is enough; more is no error."""
    if sys.stderr is not None and not isinstance(sys.stderr, _Dropping):
        sys.stderr = _Dropping(sys.stderr)  # has all of a TextIO by delegation


def lost_stderr() -> str | None:
    """Since when, and why, standard error could not be written; None where nothing was lost of it."""
    stream = unguarded(sys.stderr)
    return stream.lost if isinstance(stream, _Dropping) else None


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
