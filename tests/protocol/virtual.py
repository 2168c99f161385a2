"""Clocks, random numbers, machines and threads that depend on the participant alone, so that it can be run again.

Each participant is on a machine of its own, whose clock stands still while it works, and is as far ahead as its name
says: to whoever comes hours later, every heartbeat is old. Heartbeats are never sent, as if they were held up: nothing
but create-only writes keeps participants apart. What the code does in threads of a pool is done at once.
"""

import hashlib
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline import parallel
from pipeline.actors import meter
from pipeline.outputs import (
    checked,
    compact,
    gc,
    generation,
    index,
    lease,
    masks,
    order,
    plan,
    reconfirm,
    results,
    standing,
    verify,
)
from pipeline.segmentation import job, selection
from tests.protocol.memory import asking

TODAY = datetime(2026, 5, 1, 12, tzinfo=UTC)

_CLOCKED = (order, lease, standing, gc, generation, job, meter)
_READING = (results, checked, compact, index, masks, plan, reconfirm, verify)
_POOLED = (parallel, plan, gc, verify, selection)


def clock() -> datetime:
    """What the clock of this thread's participant says: names that end in "+2h" are two hours ahead."""
    _, _, hours = asking.name.partition("+")
    return TODAY + timedelta(hours=int(hours.removesuffix("h") or 0))


class _Clock(datetime):
    @classmethod
    def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
        return clock()


class _AtOnce:
    """A pool of threads that has none: what is submitted is done."""

    def __init__(self, *args: object) -> None:
        pass

    def __enter__(self) -> "_AtOnce":
        return self

    def __exit__(self, *exc: object) -> None:
        pass

    def submit(self, work: Callable[..., Any], *args: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(work(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def map(self, work: Callable[..., Any], *args: Iterable[Any]) -> Iterator[Any]:
        futures = [self.submit(work, *each) for each in zip(*args, strict=True)]
        return (future.result() for future in futures)


class _NeverBeats:
    """The thread of a heartbeat that is held up for ever."""

    def __init__(self, **kwargs: object) -> None:
        pass

    def start(self) -> None:
        pass

    def join(self, timeout: float) -> None:
        pass


class _NoProgress:
    """Progress is for watching alone; none of it is written."""

    def __init__(self, *args: object) -> None:
        pass

    def update(self, progress: object) -> None:
        pass

    def close(self) -> None:
        pass


def virtual(patch: pytest.MonkeyPatch) -> None:
    """Have the real code depend on nothing but its participant's name and the responses that it gets."""
    for module in _CLOCKED:
        patch.setattr(module, "datetime", _Clock)
    for module in _POOLED:
        patch.setattr(module, "ThreadPoolExecutor", _AtOnce)
    for module in (order, lease):
        patch.setattr(module, "secrets", SimpleNamespace(token_hex=_token))
    # Each look at the time finds a minute gone: of a watch for heartbeats only one more look is left.
    ticks = itertools.count(0.0, 60.0)
    patch.setattr(lease, "time", SimpleNamespace(monotonic=lambda: next(ticks), sleep=lambda seconds: None))
    patch.setattr(lease, "threading", SimpleNamespace(Thread=_NeverBeats, Event=threading.Event))
    patch.setattr(lease, "_machine", lambda: f"machine of {asking.name}")
    patch.setattr(job, "time", SimpleNamespace(monotonic=lambda: 0.0))
    patch.setattr(job, "ProgressWriter", _NoProgress)
    # A table is read, and written, thousands of times: it is parsed once. Both are functions of what they are given.
    parse = results.read_table
    reads: dict[tuple[bytes, tuple[str, ...] | None], Any] = {}

    def read(data: bytes, key: str, columns: Sequence[str] | None = None) -> Any:
        wanted = data, None if columns is None else tuple(columns)
        if wanted not in reads:
            reads[wanted] = parse(data, key, columns)
        return reads[wanted]

    for module in _READING:
        patch.setattr(module, "read_table", read)


def _token(size: int) -> str:
    return hashlib.sha256(asking.name.encode()).hexdigest()[: 2 * size]
