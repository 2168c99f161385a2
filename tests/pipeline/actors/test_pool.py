"""The pool hands out every shard, whatever becomes of the actors, and says why when it cannot."""

import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.exceptions import RayActorError

from pipeline.actors import cluster, pool_spec, quarantine, setups, stalls, suspects
from pipeline.actors import pool as pools
from pipeline.actors.pool import ShardPool
from pipeline.actors.pool_actors import ShardAttempt
from pipeline.actors.pool_progress import PoolProgress
from pipeline.actors.pool_spec import PoolSpec
from pipeline.actors.quarantine import Quarantine
from pipeline.actors.worker import WorkerSpec
from pipeline.errors import PipelineError, StorageUnavailable
from pipeline.outputs.shard import Earlier, Shard
from pipeline.storage.store import ObjectInfo
from tests.pipeline.actors.processors import (
    PATIENCE,
    AwayAtTheStart,
    AwayForTheFirst,
    Buggy,
    CannotStart,
    DiesAlways,
    DiesOfCompany,
    DiesOnce,
    DiesThrice,
    Forbidden,
    Freezes,
    Hangs,
    KilledFromOutside,
    Locked,
    NeverReady,
    Poisoned,
    Steady,
    StorageAway,
    StuckAtStart,
    StuckInQuarantine,
    Troubled,
    WaitsForCompany,
    WaitsForLeave,
)

pytestmark = pytest.mark.usefixtures("ray_cluster")

ENTRY = ObjectInfo("a.jpg", "e", 1, datetime(2026, 1, 1, tzinfo=UTC))


def shards(count: int) -> Iterator[Shard]:
    return (Shard(number, (ENTRY,)) for number in range(count))


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long the pool pauses after a failure is no claim of these tests; that it goes on after the pause is."""
    monkeypatch.setattr(pools, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(setups, "RESTART_SECONDS", 0.05)


@pytest.fixture(autouse=True)
def all_cpus(ray_cluster: object) -> None:
    """What another test's actors had is free again: that it is waited for would be one note more."""
    given_up = time.monotonic() + PATIENCE
    while ray.available_resources().get("CPU", 0.0) < ray.cluster_resources()["CPU"] and time.monotonic() < given_up:
        time.sleep(0.05)


def work(pool: ShardPool, count: int, should_stop: Any = lambda: False) -> tuple[bool, list[Any], list[PoolProgress]]:
    done: list[Any] = []
    states: list[PoolProgress] = []
    complete = pool.run(shards(count), done.append, states.append, should_stop)
    return complete, done, states


def test_every_shard_is_done_once_by_several_actors(tmp_path: Path) -> None:
    complete, done, _ = work(ShardPool(PoolSpec(actors=2, cpus=1), WaitsForCompany, tmp_path), 40)
    assert complete
    assert Counter(number for number, _ in done) == Counter(range(40))
    assert len({pid for _, pid in done}) == 2


def test_a_killed_actor_loses_nothing(tmp_path: Path) -> None:
    complete, done, states = work(ShardPool(PoolSpec(actors=2, cpus=1), DiesOnce, tmp_path), 12)
    assert complete
    assert {number for number, _ in done} == set(range(12))
    assert states[-1].restarts == 1
    assert states[-1].retries >= 1


def test_an_image_that_kills_its_process_is_found_and_the_rest_is_done() -> None:
    """Even where there is room for one actor: the quarantine's takes its place."""
    done: list[tuple[int, frozenset[str]]] = []
    keys = ["a", "poison", "b"]
    poisoned = Shard(1, tuple(replace(ENTRY, key=key) for key in keys))
    work = iter([Shard(0, (ENTRY,)), poisoned, Shard(2, (ENTRY,))])
    pool = ShardPool(PoolSpec(actors=1, cpus=8), Poisoned)
    assert pool.run(work, done.append, lambda state: None, lambda: False)
    assert sorted(done) == [(0, frozenset()), (1, frozenset({"poison"})), (2, frozenset())]


def test_an_image_is_not_blamed_where_other_images_kill_actors_as_well(tmp_path: Path) -> None:
    done: list[tuple[int, frozenset[str]]] = []
    pool = ShardPool(PoolSpec(actors=1, cpus=8), KilledFromOutside, tmp_path)
    work = iter(
        [Shard(number, tuple(replace(ENTRY, key=f"{number}{name}.jpg") for name in "ab")) for number in range(3)]
    )
    assert pool.run(work, done.append, lambda state: None, lambda: False)
    assert sorted(done) == [(number, frozenset()) for number in range(3)]
    assert len(list(tmp_path.glob("probe*"))) >= 6, "three deaths over the first image, each with its control"


def test_a_shard_that_dies_only_as_a_whole_ends_the_run_with_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suspects, "MAX_EXAMINATIONS", 2)
    with pytest.raises(PipelineError, match=r"shard 1 kills its actors, though none of its images alone is to blame"):
        work(ShardPool(PoolSpec(actors=1, cpus=1), DiesOfCompany), 3)


def test_deaths_with_their_node_are_never_held_against_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "is_alive", lambda node_id: False)
    complete, done, states = work(ShardPool(PoolSpec(actors=1, cpus=1), DiesThrice, tmp_path), 3)
    assert complete
    assert {number for number, _ in done} == {0, 1, 2}
    assert states[-1].restarts == 3
    assert not (tmp_path / "probed").exists(), "nobody is suspected, so nothing is examined"


def test_an_actor_whose_node_is_announced_to_go_finishes_what_it_has_and_gets_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One node, said to go for as long as its first actor lives. tests/faults/test_nodes.py has several."""
    node = ray.get_runtime_context().get_node_id()
    looks: list[bool] = []

    def draining() -> set[str]:
        held = [mark for mark in tmp_path.iterdir() if mark.name != "go"]
        goes = len(held) >= 2 and not has_ended(int(held[0].name.partition(".")[0]))
        looks.append(goes)
        if sum(looks) > 1:  # what the first look found has been heeded
            (tmp_path / "go").touch()
        return {node} if goes else set()

    monkeypatch.setattr(cluster, "draining_nodes", draining)
    # So much for each that there is room for one.
    complete, done, states = work(ShardPool(PoolSpec(actors=1, cpus=8), WaitsForLeave, tmp_path), 8)
    assert complete
    assert sorted(number for number, _ in done) == list(range(8))
    assert sorted(Counter(pid for _, pid in done).values()) == [2, 6]
    assert (states[-1].restarts, states[-1].retries) == (0, 0)


def test_storage_that_is_away_for_a_while_and_a_broken_worker_cost_retries_and_no_shard(tmp_path: Path) -> None:
    complete, done, states = work(ShardPool(PoolSpec(actors=1, cpus=1), Troubled, tmp_path), 8)
    assert complete
    assert Counter(number for number, _ in done) == Counter(range(8))
    assert {mark.name for mark in tmp_path.iterdir()} == {"start", "storage", "broken"}
    assert states[-1].restarts == 2, "of the process without storage, and of the broken one"
    assert states[-1].retries >= 2, "of shard 1, and of what the broken one had"


def test_storage_that_stays_down_ends_the_run_and_says_how_to_resume(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pools, "MAX_STORAGE_RETRIES", 0)
    with pytest.raises(PipelineError, match=r"storage stayed down .* the same command resumes"):
        work(ShardPool(PoolSpec(actors=1, cpus=1), StorageAway), 4)


def test_a_shard_that_the_storage_fails_again_and_again_is_not_tried_for_ever() -> None:
    pool = ShardPool(PoolSpec(actors=1, cpus=1), StorageAway)
    attempt = ShardAttempt(Shard(1, ()))
    away = StorageUnavailable("s3://bucket: no answer")
    for failures in range(1, pools.MAX_STORAGE_RETRIES + 1):
        pool._shard_failed(attempt, away)
        assert attempt.storage_failures == failures
    with pytest.raises(PipelineError, match=f"stayed down through {pools.MAX_STORAGE_RETRIES} retries of shard 1"):
        pool._shard_failed(attempt, away)


def test_a_mistake_in_the_program_is_not_retried() -> None:
    with pytest.raises(PipelineError, match=r"shard \d failed: .*a mistake in the program"):
        work(ShardPool(PoolSpec(actors=1, cpus=1), Buggy), 3)


def test_an_actor_that_cannot_start_says_why() -> None:
    with pytest.raises(PipelineError, match="could not get ready: precision bfloat16 is not to be had here"):
        work(ShardPool(PoolSpec(actors=1, cpus=1), CannotStart), 3)


def test_stopping_ends_the_work_within_the_running_shards() -> None:
    at_work: list[PoolProgress] = []

    def on_progress(state: PoolProgress) -> None:
        if state.shards_in_flight:
            at_work.append(state)

    done: list[Any] = []
    pool = ShardPool(PoolSpec(actors=1, cpus=1), Steady, 600.0)
    assert not pool.run(shards(10), done.append, on_progress, lambda: bool(at_work))
    assert done == []


def test_actors_that_fit_nowhere_are_said_to_lack_what() -> None:
    with pytest.raises(PipelineError, match=r"within 2 s: each needs 1 CPU and 3 GPU on one node.* GPU: 2 of 2"):
        work(ShardPool(PoolSpec(actors=1, cpus=1, gpus=3, placement_timeout=2), Steady), 1)


def test_what_no_node_can_ever_hold_is_refused_long_before_the_time_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    deadline = time.monotonic() + PATIENCE
    while not cluster.is_fixed() and time.monotonic() < deadline:  # Ray's head tells of its nodes after some seconds
        time.sleep(0.05)
    monkeypatch.setattr(pool_spec, "NOTICE_SECONDS", 0.5)
    spec = PoolSpec(actors=1, cpus=1, gpus=3, placement_timeout=600)
    with pytest.raises(PipelineError, match=r"GPU: 2 of 2 free; no node is large enough, .* no autoscaler"):
        work(ShardPool(spec, Steady), 1)


def test_storage_that_is_away_while_actors_start_is_waited_for_as_for_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counted as actors that fail, five in a row of which end the run: within a minute and a half."""
    monkeypatch.setattr(setups, "MAX_SETUP_FAILURES", 1)
    notes: list[str] = []
    done: list[Any] = []
    pool = ShardPool(PoolSpec(actors=1, cpus=1), AwayForTheFirst, tmp_path)
    assert pool.run(shards(4), done.append, lambda state: None, lambda: False, notes.append)
    assert {number for number, _ in done} == set(range(4))
    assert notes == ["the storage is away, so actors cannot start; waiting for it: s3://bucket: no answer"]


def test_storage_that_stays_away_while_actors_start_ends_the_run_and_says_how_to_resume(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(setups, "SETUP_STORAGE_SECONDS", 0.0)
    with pytest.raises(
        PipelineError, match=r"storage stayed down for .* while actors started: .* the same command resumes"
    ):
        work(ShardPool(PoolSpec(actors=1, cpus=1), AwayAtTheStart), 1)


@ray.remote(num_cpus=0, num_gpus=1)
class Tenant:
    """Has a GPU, so that no actor which needs both of them has room."""

    def came(self) -> None: ...


@pytest.mark.parametrize(("factory", "losses"), [(AwayAtTheStart, 1), (DiesAlways, suspects.SUSPICIOUS_DEATHS)])
def test_when_all_room_is_lost_after_a_failure_the_run_says_so(
    factory: type[Steady], losses: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failed start, and in an examination, too: it waited there for ever, without a word."""
    monkeypatch.setattr(pools, "PROGRESS_SECONDS", 0.0)
    tenants: list[Any] = []
    notes: list[str] = []

    def on_progress(state: PoolProgress) -> None:
        if state.restarts == losses and not tenants:
            tenants.append(Tenant.remote())
            ray.get(tenants[0].came.remote())
            monkeypatch.setattr(pool_spec, "NOTICE_SECONDS", 0.5)

    deadline = time.monotonic() + PATIENCE
    pool = ShardPool(PoolSpec(actors=1, cpus=1, gpus=2, placement_timeout=2 * PATIENCE), factory)
    try:
        pool.run(
            shards(1),
            on_done=lambda value: None,
            on_progress=on_progress,
            should_stop=lambda: bool(notes) or time.monotonic() > deadline,
            on_note=notes.append,
        )
    finally:
        for tenant in tenants:
            ray.kill(tenant)
    assert len(notes) == 1
    assert notes[0].startswith("still waiting for an actor again: each needs 1 CPU and 2 GPU on one node"), notes
    assert "GPU: 1 of 2 free" in notes[0]


def test_more_actors_than_fit_still_make_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "PROGRESS_SECONDS", 0.0)
    complete, done, states = work(ShardPool(PoolSpec(actors=4, cpus=1, gpus=1), WaitsForCompany, tmp_path), 20)
    assert complete
    assert len(done) == 20
    assert max(state.ready for state in states) == 2


def test_a_pool_that_grows_grows_to_the_nodes_but_not_beyond_its_shards() -> None:
    grows = PoolSpec(actors=1, cpus=1, grow_to=100)
    assert grows.limited_to(3) == PoolSpec(actors=1, cpus=1, grow_to=3)
    assert PoolSpec(actors=8, cpus=1).limited_to(3) == PoolSpec(actors=3, cpus=1)
    complete, done, states = work(ShardPool(grows.limited_to(2), Steady), 2)
    assert complete
    assert len(done) == 2
    assert max(state.wanted for state in states) == 2, "there is room for eight, and work for two"


# Actors that live and do not move


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stalls, "UNKNOWN_SECONDS", 1.0)
    monkeypatch.setattr(stalls, "LEAST_SECONDS", 1.0)
    monkeypatch.setattr(stalls, "SHARDS_LONG", 1)


def state_of(pid: int) -> str:
    """By Linux's letters: T is stopped; Z where there is no such process, too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


def has_ended(pid: int) -> bool:
    return state_of(pid) == "Z"


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("trouble", "spec"),
    [(Hangs, PoolSpec(actors=2, cpus=1)), (Freezes, PoolSpec(actors=1, cpus=8, placement_timeout=4 * PATIENCE))],
    ids=["a hung one of two", "a stopped one where there is room for one"],
)
def test_an_actor_that_does_not_move_is_noted_and_its_shard_done_by_another(
    trouble: type[Freezes], spec: PoolSpec, tmp_path: Path
) -> None:
    done: list[tuple[int, int]] = []
    notes: list[str] = []
    pool = ShardPool(spec, trouble, tmp_path)
    assert pool.run(shards(8), done.append, lambda state: None, lambda: False, notes.append)
    assert Counter(number for number, _ in done) == Counter(range(8))
    assert any(note.startswith("shard 3 stands still for") for note in notes)
    (stuck,) = (int(mark.name) for mark in tmp_path.iterdir())
    assert stuck not in {pid for number, pid in done if number == 3}
    deadline = time.monotonic() + PATIENCE
    while not has_ended(stuck):
        assert time.monotonic() < deadline, "the actor that stood still was never ended"
        time.sleep(0.1)


@pytest.mark.parametrize("signal_number", [None, signal.SIGSTOP], ids=["hung", "stopped"])
def test_an_actor_that_hangs_while_it_sets_itself_up_is_noted_and_replaced(
    signal_number: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[int, int]] = []
    notes: list[str] = []
    marks, placed = tmp_path / "marks", tmp_path / "placed"
    marks.mkdir()

    def hangs() -> bool:
        return any(not signal_number or state_of(int(mark.name)) == "T" for mark in marks.iterdir())

    def on_progress(state: PoolProgress) -> None:  # time is up when it hangs, and not before, nor for the next
        if any(actor.placed_at is not None for actor in pool._pool.actors):
            placed.touch()  # it has answered once; before that it would count as one without a place
        monkeypatch.setattr(stalls, "UNKNOWN_SECONDS", 0.0 if hangs() and not notes else 10 * PATIENCE)

    monkeypatch.setattr(pools, "PROGRESS_SECONDS", 0.0)
    spec = PoolSpec(actors=1, cpus=8, placement_timeout=4 * PATIENCE)
    pool = ShardPool(spec, StuckAtStart, marks, placed, signal_number)
    assert pool.run(shards(4), done.append, on_progress, lambda: False, notes.append)
    assert Counter(number for number, _ in done) == Counter(range(4))
    assert [note for note in notes if "an actor has not got ready in" in note] == notes != []
    (stuck,) = (int(mark.name) for mark in marks.iterdir())
    assert stuck not in {pid for _, pid in done}


def examined(factory: type[Steady], *args: Any, seconds: float = PATIENCE) -> frozenset[str] | None:
    """The culprits of a shard of a, poison and b."""
    shard = Shard(1, tuple(replace(ENTRY, key=key) for key in ("a", "poison", "b")))
    examination = Quarantine(shard, WorkerSpec(1, 0, factory, args), image_seconds=seconds, setup_seconds=seconds)
    examination._thread.join(2 * PATIENCE)
    return examination.culprits


@pytest.mark.parametrize("where", ["setup", "probe"])
def test_an_actor_that_hangs_in_quarantine_is_ended_and_its_image_not_blamed(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quarantine, "MAX_IN_VAIN", 100)
    monkeypatch.setattr(quarantine, "PAUSE_SECONDS", 0.0)
    assert examined(StuckInQuarantine, tmp_path, where, seconds=3.0) == {"poison"}
    assert (tmp_path / where).exists()


def test_an_examination_in_which_no_actor_gets_ready_ends_without_a_culprit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "MAX_STORAGE_PAUSES", 1)
    monkeypatch.setattr(quarantine, "STORAGE_PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(quarantine, "MAX_IN_VAIN", 2)
    monkeypatch.setattr(quarantine, "PAUSE_SECONDS", 0.0)
    assert examined(NeverReady) == frozenset()


# Actors that Ray ends because their node runs out of memory: in these tests it names every death so


def test_no_image_is_blamed_for_actors_that_ray_ended_for_want_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pools, "OutOfMemoryError", RayActorError)
    complete, done, states = work(ShardPool(PoolSpec(actors=1, cpus=1), DiesThrice, tmp_path), 3)
    assert complete
    assert {number for number, _ in done} == {0, 1, 2}
    assert states[-1].restarts == 3
    assert not (tmp_path / "probed").exists(), "nobody is suspected, so nothing is examined"
    monkeypatch.setattr(quarantine, "OutOfMemoryError", RayActorError)
    monkeypatch.setattr(quarantine, "PAUSE_SECONDS", 0.0)
    assert examined(Poisoned) == frozenset()


def test_a_machine_that_is_out_of_memory_again_and_again_ends_the_run_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pools, "OutOfMemoryError", RayActorError)
    monkeypatch.setattr(pools, "MAX_MEMORY_KILLS", 1)
    with pytest.raises(PipelineError, match=r"ended 2 actors over shard 1 for want of memory .* --actors"):
        work(ShardPool(PoolSpec(actors=1, cpus=1), DiesOfCompany), 3)


def test_an_image_that_no_actor_has_worked_on_is_no_control() -> None:
    """The first of a shard may be the very one that kills: it was left out."""
    a, b, c = (replace(ENTRY, key=key) for key in "abc")
    shard = Shard(0, (a, b, c), culprits=frozenset("a"), earlier=(Earlier(1, "run", 0),))
    assert shard.first_worked_on() == c
    assert replace(shard, culprits=frozenset("ac")).first_worked_on() is None


# Actors that can do nothing with what they get


def test_a_machine_whose_credentials_have_gone_bad_does_not_eat_the_queue(tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    notes: list[str] = []
    states: list[PoolProgress] = []
    pool = ShardPool(PoolSpec(actors=2, cpus=1), Locked, tmp_path)
    assert pool.run(shards(40), done.append, states.append, lambda: False, notes.append)
    assert Counter(number for number, _ in done) == Counter(range(40))
    assert any("could read nothing of shard" in note for note in notes)
    assert states[-1].restarts >= 1


@pytest.mark.parametrize("actors", [1, 2])
def test_what_no_actor_can_read_is_committed_as_it_is_found(actors: int) -> None:
    done: list[tuple[int, bool]] = []
    notes: list[str] = []
    pool = ShardPool(PoolSpec(actors=actors, cpus=1), Forbidden)
    assert pool.run(shards(6), done.append, lambda state: None, lambda: False, notes.append)
    assert sorted(done) == [(number, number == 1) for number in range(6)]
    assert notes == [], "it is nobody's fault"
