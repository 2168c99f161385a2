"""Shards over which actors keep dying: they wait here, and are examined one after the other in quarantine."""

import logging
from collections import deque
from dataclasses import replace

from pipeline.actors.pool_actors import ShardAttempt
from pipeline.actors.quarantine import Quarantine
from pipeline.actors.stalls import StallWatch
from pipeline.actors.worker import WorkerSpec
from pipeline.errors import PipelineError
from pipeline.logfmt import key_values
from pipeline.storage.store import ObjectInfo

log = logging.getLogger(__name__)

SUSPICIOUS_DEATHS = 2
"""After so many actors died over a shard, its images are examined one at a time."""

MAX_EXAMINATIONS = 3
"""How often a shard may be examined before the run gives up on it: it dies only as a whole, of memory for instance."""


class Suspects:
    """The shards that wait for their examination, and the one in it. Not thread-safe.

    `known_good` is an image that an actor has lived through, for the examinations to come.
    """

    def __init__(self, worker: WorkerSpec) -> None:
        self.known_good: ObjectInfo | None = None
        self._worker = worker
        self._waiting: deque[ShardAttempt] = deque()
        self._at_work: tuple[ShardAttempt, Quarantine] | None = None

    def __bool__(self) -> bool:
        return bool(self._waiting) or self.is_examining

    @property
    def is_examining(self) -> bool:
        """Whether an examination is at work, which has an actor of its own."""
        return self._at_work is not None

    @property
    def wait_for_place(self) -> bool:
        """Whether the examination at work cannot go on because nothing has room for its actor."""
        return self._at_work is not None and self._at_work[1].waits_for_place

    def add(self, attempt: ShardAttempt) -> None:
        self._waiting.append(attempt)

    def look(self, stalls: StallWatch) -> ShardAttempt | None:
        """Begin the next examination where none is at work; returns a shard that comes out of one, to be tried again.

        Raises PipelineError where that was its last.
        """
        if self._at_work is None:
            if self._waiting:
                attempt = self._waiting.popleft()
                _warn(attempt, quarantine="begins", deaths=len(attempt.death_nodes))
                examination = Quarantine(
                    attempt.shard,
                    self._worker,
                    self.known_good,
                    image_seconds=stalls.image_patience(),
                    setup_seconds=stalls.setup_patience(),
                )
                self._at_work = (attempt, examination)
            return None
        attempt, examination = self._at_work
        culprits = examination.culprits
        if culprits is None:
            return None
        self._at_work = None
        _warn(attempt, quarantine="ends", culprits=sorted(culprits))
        attempt.examinations += 1
        attempt.death_nodes.clear()
        attempt.alone = True
        if not culprits and attempt.examinations >= MAX_EXAMINATIONS:
            raise PipelineError(
                f"shard {attempt.shard.number} kills its actors, though none of its images alone is to blame "
                f"({attempt.last_death or 'out of memory is the usual reason'}); look at the Ray logs, then run the "
                "same command to resume"
            )
        attempt.shard = replace(attempt.shard, culprits=attempt.shard.culprits | culprits)
        return attempt

    def stop(self) -> None:
        """End the examination at work."""
        if self._at_work is not None:
            self._at_work[1].stop()


def _warn(attempt: ShardAttempt, **values: object) -> None:
    log.warning("%s", key_values(shard=attempt.shard.number, attempt=attempt.tries, **values))
