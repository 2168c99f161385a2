"""Where the time of a shard goes: seconds in each stage, summed over threads."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class StageClock:
    """`with clock("fetch"): ...` adds to that stage; `take` returns the sums and starts anew."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
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

    def take(self) -> dict[str, float]:
        with self._lock:
            seconds, self._seconds = self._seconds, {}
        return seconds
