"""One thread, the first comer first."""

import threading
from concurrent.futures import CancelledError, Future

import pytest

from pipeline.actors.priority_thread import RankedThread


def test_lower_ranks_come_first_and_equal_ones_in_their_order() -> None:
    thread, go, done = RankedThread("test"), threading.Event(), list[str]()
    blocker = thread.submit(9, go.wait)
    jobs = [
        thread.submit(rank, lambda name=name: done.append(name))  # type: ignore[misc]
        for rank, name in [(2, "c"), (1, "a"), (2, "d"), (1, "b")]
    ]
    go.set()
    for job in jobs:
        job.result()
    assert blocker.result()
    assert done == ["a", "b", "c", "d"]
    thread.close()


def test_a_job_may_fail_and_the_next_runs() -> None:
    thread = RankedThread("test")
    failing: Future[float] = thread.submit(0, lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        failing.result()
    assert thread.submit(0, lambda: 7).result() == 7
    thread.close()


def test_a_job_that_was_cancelled_is_left_out() -> None:
    thread, go, done = RankedThread("test"), threading.Event(), list[int]()
    thread.submit(0, go.wait)
    unwanted = thread.submit(1, lambda: done.append(1))
    wanted = thread.submit(2, lambda: done.append(2))
    assert unwanted.cancel()
    go.set()
    wanted.result()
    assert done == [2]
    thread.close()


def test_closing_lets_nobody_wait_for_ever() -> None:
    thread, go = RankedThread("test"), threading.Event()
    running = thread.submit(0, go.wait)
    waiting = thread.submit(1, lambda: 1)
    thread.close()
    with pytest.raises(CancelledError):
        waiting.result(timeout=10)
    go.set()
    assert running.result(timeout=10)
    with pytest.raises(RuntimeError):
        thread.submit(0, lambda: 1)
