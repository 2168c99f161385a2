"""Shards that were handed out and came back, and which actor may have them next."""

from collections.abc import Sequence

from pipeline.actors.pool_actors import PoolActor, ShardAttempt


class Backlog:
    """Attempts that wait for an actor, first come, first served. Not thread-safe."""

    def __init__(self) -> None:
        self._waiting: list[ShardAttempt] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __contains__(self, attempt: ShardAttempt) -> bool:
        return attempt in self._waiting

    def add(self, attempt: ShardAttempt) -> None:
        self._waiting.append(attempt)

    def discard(self, attempt: ShardAttempt) -> None:
        """Forget an attempt, if it is here."""
        if attempt in self._waiting:
            self._waiting.remove(attempt)

    def take(
        self, actor: PoolActor, able: Sequence[PoolActor], now: float, *, may_be_alone: bool, more_start: bool
    ) -> ShardAttempt | None:
        """The next attempt for `actor`, removed from here; None where there is none.

        `able`: all that get work now. `more_start`: whether other actors are about to start.

        A shard that an actor failed goes to another one. Where every other failed it too, it goes to any.
        """
        for attempt in self._waiting:
            if attempt.not_before > now or (attempt.alone and not may_be_alone):
                continue
            if actor in attempt.avoid:
                awaited = more_start and now < attempt.avoid_until
                if awaited or any(other not in attempt.avoid for other in able):
                    continue
            self._waiting.remove(attempt)
            return attempt
        return None
