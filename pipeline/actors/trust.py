"""Whom to believe where an actor could read nothing of a shard: it may be the shard, or that actor's machine.

Another actor tries the shard, and tells them apart. Nothing is committed before.
"""

import time
from collections.abc import Sequence
from dataclasses import replace

from pipeline.actors.pool_actors import PoolActor, ShardAttempt

REFUSALS_TO_PAUSE = 2
"""An actor that could do nothing with so many shards in a row gets no more until others have tried them."""

OTHERS_SECONDS = 60.0
"""How long such an actor, and what it refused, wait for actors that are about to start; they may never find a place."""

REFUSALS_TO_INSIST = 2
"""When so many actors could do nothing with a shard, it is the shard, and the next commits what it finds."""

AGREEMENTS = 3
"""After so many shards in a row that nobody could do anything with, one actor's word is enough for the next."""


class Trust:
    """What actors could do nothing with, and what others made of that. Not thread-safe."""

    def __init__(self) -> None:
        self._agreements = 0

    def able(self, actors: Sequence[PoolActor], more_start: bool) -> list[PoolActor]:
        """Who may be handed a shard. Who refused several gets no more until others, if any, have tried them."""
        able = [actor for actor in actors if actor.gets_work]
        trusted = [actor for actor in able if actor.refusals < REFUSALS_TO_PAUSE]
        if trusted or not more_start:
            return trusted or able
        return [actor for actor in able if time.monotonic() >= actor.refused_at + OTHERS_SECONDS]

    def refused(self, actor: PoolActor, attempt: ShardAttempt) -> None:
        """Note that `actor` could do nothing with a shard; decides whether the next is to insist."""
        actor.refusals += 1
        actor.refused_at = time.monotonic()
        attempt.refusals += 1
        attempt.avoid.append(actor)
        attempt.avoid_until = actor.refused_at + OTHERS_SECONDS
        if attempt.refusals >= REFUSALS_TO_INSIST or self._agreements >= AGREEMENTS:
            attempt.shard = replace(attempt.shard, insist=True)
            actor.refusals = 0

    def done(self, actor: PoolActor, attempt: ShardAttempt, actors: Sequence[PoolActor]) -> list[PoolActor]:
        """Note that `actor` did a shard; returns those of `actors` that had refused it and were wrong."""
        if attempt.shard.insist:
            # Nobody could do more: those who had refused it were right.
            self._agreements += 1
            for other in actors:
                other.refusals = 0
            return []
        actor.refusals = self._agreements = 0
        return [other for other in attempt.avoid if attempt.refusals and other in actors]
