"""Which shards stand still, without Ray: what actors report is made up, and so is the time."""

from datetime import UTC, datetime

import pytest

from pipeline.actors import stalls
from pipeline.actors.backlog import Backlog
from pipeline.actors.pool_actors import PoolActor, ShardAttempt
from pipeline.actors.stalls import StallWatch
from pipeline.outputs.shard import Shard
from pipeline.storage.store import ObjectInfo

ENTRY = ObjectInfo("a.jpg", "e", 1, datetime(2026, 1, 1, tzinfo=UTC))


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(stalls, "time", clock)
    return clock


def at_work(clock: Clock, *numbers: int) -> PoolActor:
    """A ready actor that was handed these shards now."""
    actor = PoolActor(None, None, "node", ready=True, heard_at=clock.now)
    for number in numbers:
        attempt = ShardAttempt(Shard(number, (ENTRY,)), handed_at=clock.now, moved_at=clock.now)
        actor.shards[number] = attempt
    return actor


def still(watch: StallWatch, *actors: PoolActor) -> list[int]:
    return [attempt.shard.number for _, attempt, _ in watch.still(actors)]


def test_the_first_shard_may_take_its_time_and_later_ones_several_times_as_long_as_the_longest(clock: Clock) -> None:
    watch = StallWatch()
    actor = at_work(clock, 0)
    clock.now += stalls.UNKNOWN_SECONDS - 1
    assert still(watch, actor) == []
    clock.now += 2
    assert still(watch, actor) == [0]
    watch.finished(1000.0)
    assert still(watch, actor) == []
    clock.now += 1000.0 * stalls.SHARDS_LONG
    assert still(watch, actor) == [0]


def test_a_shard_that_moves_is_not_still_nor_one_that_waits_for_it(clock: Clock) -> None:
    watch = StallWatch()
    watch.finished(1.0)
    actor = at_work(clock, 0, 1)
    clock.now += 10 * stalls.LEAST_SECONDS
    actor.shards[0].moved_at = clock.now
    assert still(watch, actor) == []


def test_one_that_moves_does_not_hide_one_that_came_before_it(clock: Clock) -> None:
    watch = StallWatch()
    watch.finished(1.0)
    actor = at_work(clock, 0, 1)
    clock.now += 10 * stalls.LEAST_SECONDS
    actor.shards[1].moved_at = clock.now
    assert still(watch, actor) == [0]


def test_each_next_actor_has_twice_the_time_and_one_that_answers_has_more(clock: Clock) -> None:
    watch = StallWatch()
    actor = at_work(clock, 0)
    attempt = actor.shards[0]
    first = watch.patience(attempt, [actor])
    attempt.stalls = 3
    assert watch.patience(attempt, [actor]) == 8 * first
    attempt.stalls = 0
    clock.now += 3 * first
    assert watch.is_hopeless(actor, attempt, 3 * first, [actor])
    actor.heard_at = clock.now
    assert not watch.is_hopeless(actor, attempt, 3 * first, [actor])
    assert watch.is_hopeless(actor, attempt, (stalls.PATIENCE_WITH_TALKERS + 1) * first, [actor])


def test_many_actors_are_asked_seldom_and_not_taken_for_still_in_between(clock: Clock) -> None:
    watch = StallWatch()
    watch.finished(1.0)
    actors = [at_work(clock, number) for number in range(1600)]
    assert watch.patience(actors[0].shards[0], actors) >= 500


def test_an_actor_may_set_itself_up_for_several_times_as_long_as_others_once_it_has_its_place(clock: Clock) -> None:
    watch = StallWatch()
    waits_for_a_place, starts = PoolActor(None, None), PoolActor(None, None, placed_at=clock.now)
    actors = [waits_for_a_place, starts]
    assert watch.unready(actors, 0) == []
    clock.now += stalls.UNKNOWN_SECONDS + 1
    assert watch.unready(actors, 0) == [(starts, stalls.UNKNOWN_SECONDS + 1)]
    assert watch.unready(actors, 1) == [], "the next has twice the time"
    watch.set_up(stalls.UNKNOWN_SECONDS)
    assert watch.unready(actors, 0) == []
    clock.now += stalls.SHARDS_LONG * stalls.UNKNOWN_SECONDS
    assert [actor for actor, _ in watch.unready(actors, 0)] == [starts]
    starts.ready = True
    assert watch.unready(actors, 0) == []


def test_time_in_which_the_driver_itself_stood_still_is_held_against_nobody(clock: Clock) -> None:
    """A paused driver that was let go on ended every actor, for it had heard of none."""
    watch = StallWatch()
    watch.finished(1.0)
    worker, starts = at_work(clock, 0), PoolActor(None, None, placed_at=clock.now)
    actors = [worker, starts]
    watch.look(actors)
    clock.now += 1
    watch.look(actors)
    clock.now += 1000 * stalls.UNKNOWN_SECONDS
    watch.look(actors)
    assert still(watch, *actors) == []
    assert watch.unready(actors, 0) == []
    attempt = worker.shards[0]
    assert not watch.is_hopeless(worker, attempt, clock.now - attempt.moved_at, actors)
    assert clock.now - attempt.handed_at < 10, "nor does it make shards seem long"
    for _ in range(100):
        clock.now += 1
        watch.look(actors)
    assert still(watch, *actors) == [0]


def test_what_an_actor_failed_goes_to_another_and_waits_for_one_that_starts(clock: Clock) -> None:
    bad, good = at_work(clock), at_work(clock)
    backlog = Backlog()
    attempt = ShardAttempt(Shard(0, (ENTRY,)), avoid=[bad], avoid_until=clock.now + 60)
    backlog.add(attempt)
    assert backlog.take(bad, [bad, good], clock.now, may_be_alone=True, more_start=False) is None
    assert backlog.take(bad, [bad], clock.now, may_be_alone=True, more_start=True) is None
    assert backlog.take(good, [bad, good], clock.now, may_be_alone=True, more_start=False) is attempt
    backlog.add(attempt)
    assert backlog.take(bad, [bad], clock.now, may_be_alone=True, more_start=False) is attempt
    backlog.add(attempt)
    assert backlog.take(bad, [bad], clock.now + 61, may_be_alone=True, more_start=True) is attempt
    assert not backlog
