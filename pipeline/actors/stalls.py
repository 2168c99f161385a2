"""Finds actors that live and do not move: a stopped process, a hung device, a network file system that never answers.

Nothing dies there, so Ray reports nothing. What an actor reports of its shards is watched instead: a shard in which no
image is finished for much longer than whole shards take is handed to another actor as well. The first commit wins. One
that does not get ready for much longer than others took is ended. Time in which the driver itself did not look, because
its own machine was paused, counts for nobody.
"""

import time
from collections.abc import Iterator, Sequence

from pipeline.actors.pool_actors import PoolActor, ShardAttempt, poll_interval

UNKNOWN_SECONDS = 300.0
"""How long a shard may stand still before any shard of the run is done; and an actor before any got ready."""

LEAST_SECONDS = 60.0
"""How long a shard, or an actor's start, may stand still at least."""

SHARDS_LONG = 5
"""How many times the longest shard, or start, so far it may stand still, where that is more."""

PATIENCE_WITH_TALKERS = 8
"""How many times longer an actor is left alone that still answers: it may only be slow, or its storage away."""

MAX_STALLS = 4
"""How many actors may stand still over a shard, each with twice the time of the one before, until the run ends."""


MAX_SETUP_DOUBLINGS = 2
"""How often actors have twice the time of the one before to get ready."""

UNWATCHED_SECONDS = 10.0
"""From so long between two looks on, it was the driver that stood still."""


class StallWatch:
    """How long shards take, and which of those at work stand still. Not thread-safe."""

    def __init__(self) -> None:
        self._longest: float | None = None
        self._longest_setup: float | None = None
        self._looked_at: float | None = None

    def look(self, actors: Sequence[PoolActor]) -> None:
        """To be called all the time: time between two calls that was far too long is taken off everybody's account."""
        now = time.monotonic()
        gap = 0.0 if self._looked_at is None else now - self._looked_at
        self._looked_at = now
        if gap < UNWATCHED_SECONDS:
            return
        for actor in actors:
            actor.heard_at = min(now, actor.heard_at + gap)
            if actor.placed_at is not None:
                actor.placed_at = min(now, actor.placed_at + gap)
            for attempt in actor.shards.values():
                attempt.handed_at = min(now, attempt.handed_at + gap)
                attempt.moved_at = min(now, attempt.moved_at + gap)

    def finished(self, seconds: float) -> None:
        """Note how long a shard took that was done."""
        self._longest = max(seconds, self._longest or 0.0)

    def set_up(self, seconds: float) -> None:
        """Note how long an actor took to get ready once it had its place."""
        self._longest_setup = max(seconds, self._longest_setup or 0.0)

    def patience(self, attempt: ShardAttempt, actors: Sequence[PoolActor]) -> float:
        """How long `attempt` may stand still, in seconds."""
        return float(max(self.image_patience(), SHARDS_LONG * poll_interval(len(actors))) * 2**attempt.stalls)

    def image_patience(self) -> float:
        """How long an actor that is asked nothing else may work on one image, in seconds."""
        return _usual(self._longest)

    def setup_patience(self, failures: int = 0) -> float:
        """How long an actor may set itself up, in seconds, after so many in a row that did not get ready."""
        return float(_usual(self._longest_setup) * 2 ** min(failures, MAX_SETUP_DOUBLINGS))

    def unready(self, actors: Sequence[PoolActor], failures: int) -> list[tuple[PoolActor, float]]:
        """The actors that set themselves up for longer than they may, and for how long, in seconds."""
        now = time.monotonic()
        ages = [(each, now - each.placed_at) for each in actors if each.placed_at is not None and not each.ready]
        return [(actor, age) for actor, age in ages if age > self.setup_patience(failures)]

    def still(self, actors: Sequence[PoolActor]) -> Iterator[tuple[PoolActor, ShardAttempt, float]]:
        """The attempts that stand still for longer than they may, with their actors, and for how long, in seconds."""
        now = time.monotonic()
        for actor in actors:
            moved = 0.0
            # A shard may wait for those that the actor got before it.
            for attempt in actor.shards.values():
                moved = max(moved, attempt.moved_at)
                if not attempt.forgotten and now - moved > self.patience(attempt, actors):
                    yield actor, attempt, now - moved

    def is_hopeless(self, actor: PoolActor, attempt: ShardAttempt, seconds: float, actors: Sequence[PoolActor]) -> bool:
        """Whether an actor that stands still for so many `seconds` is to be ended though nobody did its work yet."""
        patience = self.patience(attempt, actors)
        silent = time.monotonic() - actor.heard_at > patience
        return seconds > patience * (2 if silent else PATIENCE_WITH_TALKERS)


def _usual(longest: float | None) -> float:
    return UNKNOWN_SECONDS if longest is None else max(LEAST_SECONDS, SHARDS_LONG * longest)
