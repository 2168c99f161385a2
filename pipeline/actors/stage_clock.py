"""Where the time of a shard goes: seconds in each stage, summed over threads; and the bytes that went by."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class StageClock:
    """`with clock("fetch"): ...` adds to that stage; `take` returns the sums and starts anew. Thread-safe."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._totals: dict[str, float] = {}
        self._read_bytes = 0
        self._written_bytes = 0
        self._lock = threading.Lock()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            with self._lock:
                self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds
                self._totals[stage] = self._totals.get(stage, 0.0) + seconds

    def moved(self, *, read: int = 0, written: int = 0) -> None:
        """Count bytes that came from storage, or went there."""
        with self._lock:
            self._read_bytes += read
            self._written_bytes += written

    def take(self) -> dict[str, float]:
        with self._lock:
            seconds, self._seconds = self._seconds, {}
        return seconds

    def take_bytes(self) -> tuple[int, int]:
        """Bytes read and written since the last call."""
        with self._lock:
            moved = self._read_bytes, self._written_bytes
            self._read_bytes = self._written_bytes = 0
        return moved

    def total(self, stage: str) -> float:
        """Seconds in a stage since the clock was made, whatever was taken since."""
        with self._lock:
            return self._totals.get(stage, 0.0)
