"""A bounded parallel loop: a few calls at a time, results in order, never more in memory than a few."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def in_parallel(
    function: Callable[[T], R], items: Iterable[T], *, threads: int, ahead: int = 2, name: str = "parallel"
) -> Iterator[R]:
    """`function` of each item, in the order of the items, in `threads` threads.

    Works in slices of `threads` times `ahead` items: all results of a slice are taken before the next one begins, so no
    more than these are ever held. An exception of a call is raised in its turn, and no further call is begun.
    """
    rest = iter(items)
    with ThreadPoolExecutor(threads, name) as pool:
        while part := list(islice(rest, threads * ahead)):
            yield from pool.map(function, part)
