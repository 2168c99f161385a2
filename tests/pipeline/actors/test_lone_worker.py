"""A worker process without Ray: it does a shard as an actor does, and leaves all trouble to the actors."""

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline.actors import lone_worker
from pipeline.actors.lone_worker import SMALL_IMAGES, LoneWorker, WorkerLeft, is_small, may_do
from pipeline.actors.pool_progress import PoolProgress
from pipeline.actors.pool_spec import PoolSpec
from pipeline.errors import TakenOver
from pipeline.outputs.shard import Shard
from pipeline.storage.store import ObjectInfo
from tests.pipeline.actors.lone_processors import Counting


def shards(count: int) -> Iterator[Shard]:
    for number in range(count):
        yield Shard(number, tuple(ObjectInfo(f"{i}.jpg", "", 0, datetime(2026, 1, 1, tzinfo=UTC)) for i in range(3)))


def work(*arguments: Any, count: int = 5, patience: float = 600.0) -> tuple[bool, list[Any], list[PoolProgress]]:
    done: list[Any] = []
    told: list[PoolProgress] = []
    with LoneWorker(Counting.__module__) as lone:
        finished = lone.run(Counting, arguments, shards(count), done.append, told.append, lambda: False, patience)
    return finished, done, told


def test_every_shard_is_done_once_and_its_outcome_heard() -> None:
    files = {"model.bin": bytes(3 << 20)}  # more than a pipe holds
    finished, done, told = work("", "", files)
    assert finished
    assert sorted(done) == [(number, 3, 3 << 20) for number in range(5)]
    assert (told[0].ready, told[-1].ready) == (0, 1)
    assert {state.shards_in_flight for state in told} <= {0, 1, 2}


@pytest.mark.parametrize(
    ("trouble", "why"),
    [
        ("dies", "ended by SIGKILL"),
        ("exits", "the worker process ended: no more \\x1b[31mmemory"),
        ("stops", "stood still"),
        ("hangs", "stood still"),
        ("storage", "s3://bucket: no answer"),
        ("setup", "s3://bucket: no answer"),
        ("odd", "Unsendable: 1 of it"),
    ],
)
def test_whatever_goes_wrong_is_left_to_the_actors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str, why: str
) -> None:
    patience = 600.0
    if why == "stood still":
        monkeypatch.setattr(lone_worker, "STILL_SECONDS", 0.0)
        monkeypatch.setattr(lone_worker, "START_SECONDS", 600.0)
        patience = 1.0
    with pytest.raises(WorkerLeft, match=re.escape(why)):
        work(trouble, str(tmp_path), patience=patience)
    assert (tmp_path / "at-1").exists() == (trouble != "setup")


def test_who_was_taken_over_hears_it(tmp_path: Path) -> None:
    with pytest.raises(TakenOver, match="s3://labels"):
        work("taken over", str(tmp_path))


def test_a_stop_ends_the_process_in_the_midst_of_a_shard(tmp_path: Path) -> None:
    with LoneWorker(Counting.__module__) as lone:
        pid = lone._process.pid
        at_work = tmp_path / "at-1"
        assert not lone.run(
            Counting, ("hangs", str(tmp_path)), shards(5), lambda done: None, lambda told: None, at_work.exists
        )
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_worker_that_nobody_needs_is_gone_when_closed() -> None:
    lone = LoneWorker(Counting.__module__)
    lone.close()
    with pytest.raises(ProcessLookupError):
        os.kill(lone._process.pid, 0)


@pytest.mark.parametrize(
    ("address", "variable", "actors", "gpus", "expected"),
    [
        (None, "", None, None, True),
        (None, "", 1, 0.0, True),
        ("local", "", None, None, False),
        ("10.0.0.1:6379", "", None, None, False),
        (None, "10.0.0.1:6379", None, None, False),
        (None, "", 2, None, False),
        (None, "", None, 0.5, False),
    ],
)
def test_who_asks_for_a_ray_gets_one(
    monkeypatch: pytest.MonkeyPatch,
    address: str | None,
    variable: str,
    actors: int | None,
    gpus: float | None,
    expected: bool,
) -> None:
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", variable)
    assert may_do(address, actors, gpus) is expected


def test_only_what_one_actor_would_do_is_small() -> None:
    assert is_small(PoolSpec(actors=1, cpus=2), shards=9, images=SMALL_IMAGES)
    assert not is_small(PoolSpec(actors=1, cpus=2), shards=9, images=SMALL_IMAGES + 1)
    assert is_small(PoolSpec(actors=8, cpus=8), shards=1, images=16)
    assert not is_small(PoolSpec(actors=8, cpus=8), shards=2, images=32)
    assert not is_small(PoolSpec(actors=1, cpus=2, gpus=1), shards=1, images=1)
