"""Finds actors that live and do not move: a stopped process, a hung device, a network file system that never answers.

Nothing dies there, so Ray reports nothing. What an actor reports of its shards is watched instead: a shard in which no
image is finished for much longer than whole shards take is handed to another actor as well. The first commit wins.
"""

import time
from collections.abc import Iterator, Sequence

from pipeline.actors.crew import Attempt, Member, poll_interval

UNKNOWN_SECONDS = 300.0
"""How long a shard may stand still before any shard of the run is done."""

LEAST_SECONDS = 60.0
"""How long a shard may stand still at least."""

SHARDS_LONG = 5
"""How many times the longest shard so far it may stand still, where that is more."""

PATIENCE_WITH_TALKERS = 8
"""How many times longer an actor is left alone that still answers: it may only be slow, or its storage away."""

MAX_STALLS = 4
"""How many actors may stand still over a shard, each with twice the time of the one before, until the run ends."""


class StallWatch:
    """How long shards take, and which of those at work stand still. Not thread-safe."""

    def __init__(self) -> None:
        self._longest: float | None = None

    def finished(self, seconds: float) -> None:
        """Note how long a shard took that was done."""
        self._longest = max(seconds, self._longest or 0.0)

    def patience(self, attempt: Attempt, members: Sequence[Member]) -> float:
        """How long `attempt` may stand still, in seconds."""
        usual = UNKNOWN_SECONDS if self._longest is None else max(LEAST_SECONDS, SHARDS_LONG * self._longest)
        return float(max(usual, SHARDS_LONG * poll_interval(len(members))) * 2**attempt.stalls)

    def still(self, members: Sequence[Member]) -> Iterator[tuple[Member, Attempt, float]]:
        """The attempts that stand still for longer than they may, with their actors, and for how long, in seconds."""
        now = time.monotonic()
        for member in members:
            moved = 0.0
            # A shard may wait for those that the actor got before it.
            for attempt in member.shards.values():
                moved = max(moved, attempt.moved_at)
                if not attempt.forgotten and now - moved > self.patience(attempt, members):
                    yield member, attempt, now - moved

    def is_hopeless(self, member: Member, attempt: Attempt, seconds: float, members: Sequence[Member]) -> bool:
        """Whether an actor that stands still for so many `seconds` is to be ended though nobody did its work yet."""
        patience = self.patience(attempt, members)
        silent = time.monotonic() - member.heard_at > patience
        return seconds > patience * (2 if silent else PATIENCE_WITH_TALKERS)
