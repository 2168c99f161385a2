"""Shards that were handed out and came back, and which actor may have them next."""

from collections.abc import Sequence

from pipeline.actors.pool_actors import Attempt, PoolActor


class Backlog:
    """Attempts that wait for an actor, first come, first served. Not thread-safe."""

    def __init__(self) -> None:
        self._waiting: list[Attempt] = []

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def __contains__(self, attempt: Attempt) -> bool:
        return attempt in self._waiting

    def add(self, attempt: Attempt) -> None:
        self._waiting.append(attempt)

    def discard(self, attempt: Attempt) -> None:
        """Forget an attempt, if it is here."""
        if attempt in self._waiting:
            self._waiting.remove(attempt)

    def take(
        self, member: PoolActor, able: Sequence[PoolActor], now: float, *, may_be_alone: bool, more_start: bool
    ) -> Attempt | None:
        """The next attempt for `member`, removed from here; None where there is none.

        `able`: all that get work now. `more_start`: whether other actors are about to start.

        A shard that an actor failed goes to another one. Where every other failed it too, it goes to any.
        """
        for attempt in self._waiting:
            if attempt.not_before > now or (attempt.alone and not may_be_alone):
                continue
            if member in attempt.avoid:
                awaited = more_start and now < attempt.avoid_until
                if awaited or any(other not in attempt.avoid for other in able):
                    continue
            self._waiting.remove(attempt)
            return attempt
        return None
