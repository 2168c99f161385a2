"""A bounded parallel loop: a few calls at a time, results in order, never more in memory than a few."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_parallel(
    function: Callable[[T], R], items: Iterable[T], *, threads: int, ahead: int = 2, name: str = "parallel"
) -> Iterator[R]:
    """`function` of each item, in the order of the items, in `threads` threads.

    At most `threads` times `ahead` calls are begun before the result of the first is taken. An exception of a call is
    raised in its turn, and no further call is begun.
    """
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads, name) as pool:
        try:
            for item in items:
                if len(waiting) == threads * ahead:
                    yield waiting.popleft().result()
                waiting.append(pool.submit(function, item))
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
