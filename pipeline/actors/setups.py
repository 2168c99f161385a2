"""Actors that fail before they are ready: when the next may start, and when to give up.

Two kinds are told apart. A machine that cannot do what is asked will not do it the next time either, so few failures in
a row end the run. A storage that is away comes back, so it is waited for as long as shards wait for it.
"""

import time
from collections.abc import Callable

from pipeline.actors.ray_words import in_one_line
from pipeline.errors import PipelineError, StorageUnavailable
from pipeline.storage.store import StorageOptions

MAX_SETUP_FAILURES = 5
"""How many times as many actors as are wanted may fail, in a row, before one is ready."""

RESTART_SECONDS = 1.0
"""The pause before another actor is started after one that did not get ready; twice as long after each further one."""

MAX_STORAGE_RETRIES = 5
"""How often a shard is tried again when the storage fails it, 2, 4, 8, ... seconds apart."""

SETUP_STORAGE_SECONDS = (MAX_STORAGE_RETRIES + 1) * StorageOptions().retry_seconds
"""How long actors may find no storage as they get ready, while none is: as long as a shard is tried."""

STORAGE_FAILURES_TO_NOTE = 3
"""After so many of them people are told what is waited for."""


class Setups:
    """Counts the failures in a row. `next_start`: when another actor may be started, on the monotonic clock."""

    def __init__(self, actors: int) -> None:
        """`actors`: how many are wanted."""
        self.next_start = 0.0
        self.failures = 0
        self._most = MAX_SETUP_FAILURES * actors
        self._without_storage = 0
        self._away_since: float | None = None

    @property
    def all_failures(self) -> int:
        """Of both kinds."""
        return self.failures + self._without_storage

    def succeeded(self) -> None:
        """An actor is ready."""
        self.failures = self._without_storage = 0
        self._away_since = None

    def failed(self, error: Exception, why: str) -> None:
        """Let the next actor wait a little. Raises PipelineError where too many have failed in a row."""
        self.failures += 1
        if self.failures >= self._most:
            raise PipelineError(f"actors fail before they are ready, {self.failures} in a row: {why}") from error
        self.next_start = time.monotonic() + min(30.0, RESTART_SECONDS * 2.0 ** (self.failures - 1))

    def found_no_storage(self, error: StorageUnavailable, on_note: Callable[[str], None], *, any_ready: bool) -> None:
        """Let the next actor wait a little. Raises PipelineError where the storage was away for as long as it may be,
        unless another actor is ready."""
        now = time.monotonic()
        self._without_storage += 1
        self._away_since = self._away_since or now
        if self._without_storage == STORAGE_FAILURES_TO_NOTE:
            on_note(f"the storage is away, so actors cannot start; waiting for it: {in_one_line(error)}")
        if now - self._away_since > SETUP_STORAGE_SECONDS and not any_ready:
            raise PipelineError(
                f"storage stayed down for {now - self._away_since:.0f} s while actors started: {in_one_line(error)}; "
                "the same command resumes the run"
            ) from error
        self.next_start = now + min(15.0, RESTART_SECONDS * 2.0 ** (self._without_storage - 1))
