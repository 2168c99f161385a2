"""One thread for many callers, of whom the one who came first is served first."""

import heapq
import itertools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")


class RankedThread:
    """A thread that does what it is given: the lowest rank first, and within a rank in the order of submission."""

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, name)
        self._waiting: list[tuple[int, int, Future[Any], Callable[[], Any]]] = []
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def submit(self, rank: int, job: Callable[[], Result]) -> Future[Result]:
        """`job()`, when nothing of lower rank waits. Raises RuntimeError once the thread is closed."""
        future: Future[Result] = Future()
        with self._lock:
            heapq.heappush(self._waiting, (rank, next(self._numbers), future, job))
        self._thread.submit(self._do_next)
        return future

    def close(self) -> None:
        """Begin nothing more; who waits for what has not begun gets a CancelledError."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        with self._lock:
            for _, _, future, _ in self._waiting:
                future.cancel()
            self._waiting.clear()

    def _do_next(self) -> None:
        with self._lock:
            if not self._waiting:
                return  # closed
            _, _, future, job = heapq.heappop(self._waiting)
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = job()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)
