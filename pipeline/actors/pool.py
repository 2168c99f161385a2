"""An elastic pool of Ray actors that works through shards: dispatch, retry, progress, stop.

Ray places the actors and reports their deaths; this module only decides who gets which shard. It knows nothing of
images: what an actor does with a shard is a `Processor`, built inside the actor by a factory. A shard that is handed
out twice, to a lost actor and its successor, is harmless, because a shard commits once.
"""

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError

from pipeline.actors import cluster
from pipeline.actors.backlog import Backlog
from pipeline.actors.deaths import Deaths
from pipeline.actors.metrics import ACTOR_RESTARTS, SHARD_RETRIES, SHARD_SECONDS, JobKind, Recorder
from pipeline.actors.pool_actors import PoolActor, PoolActors, ShardAttempt
from pipeline.actors.pool_progress import PoolProgress
from pipeline.actors.pool_spec import PlacementWatch, PoolSpec
from pipeline.actors.ray_words import in_one_line
from pipeline.actors.read_ahead import SHARDS_IN_FLIGHT
from pipeline.actors.setups import MAX_STORAGE_RETRIES, Setups
from pipeline.actors.stalls import MAX_STALLS, StallWatch
from pipeline.actors.suspects import SUSPICIOUS_DEATHS, Suspects
from pipeline.actors.trust import Trust
from pipeline.actors.worker import Processor, WorkerSpec
from pipeline.errors import (
    PipelineError,
    ShardRefused,
    StorageUnavailable,
    TakenOver,
    UntrustedCertificate,
    WorkerBroken,
)
from pipeline.logfmt import key_values
from pipeline.outputs.shard import Shard

log = logging.getLogger(__name__)

PROGRESS_SECONDS = 0.2
"""How often progress is reported, and actors are checked for stalls."""

RETRY_SECONDS = 2.0
"""The pause before a shard is tried again after a failure that is not its own; twice as long after each further one."""

MAX_MEMORY_KILLS = 5
"""How often Ray may end a shard's actors for want of memory, 2, 4, 8, ... seconds apart, before the run ends."""


class ShardPool:
    """Runs shards on actors. One use: build it, call `run`."""

    def __init__(
        self, spec: PoolSpec, factory: Callable[..., Processor], *args: Any, kind: JobKind = "segment"
    ) -> None:
        """`factory(*args)` builds the Processor inside each actor. `args` may be Ray object references. `kind` says
        for what kind of job its metrics are.
        """
        self._spec = spec
        self._wanted = spec.actors
        self._worker = WorkerSpec(spec.cpus, spec.gpus, factory, args, kind)
        self._recorder = Recorder(kind)
        self._pool = PoolActors(self._worker)
        self._suspects = Suspects(self._worker)
        self._backlog = Backlog()
        self._stalls = StallWatch()
        self._trust = Trust()
        self._deaths = Deaths()
        self._told_causes: set[str] = set()
        self._setups = Setups(spec.actors)
        self._restarts = 0
        self._retry_count = 0
        self._told_at = float("-inf")
        self._on_note: Callable[[str], None] = lambda text: None

    def run(
        self,
        shards: Iterator[Shard],
        on_done: Callable[[Any], None],
        on_progress: Callable[[PoolProgress], None],
        should_stop: Callable[[], bool],
        on_note: Callable[[str], None] = lambda text: None,
    ) -> bool:
        """Work through `shards`; True when all are committed, False when `should_stop` said so first.

        `on_done` gets what `Processor.process` returned, once per shard. Raises PipelineError when no actor can be
        placed or set up, when the storage stays down, or when a shard fails for a reason of the program's own.
        """
        exhausted = False
        self._on_note = on_note
        placement = PlacementWatch(self._spec, on_note)
        self._recorder.begin((ACTOR_RESTARTS, SHARD_RETRIES))
        try:
            while True:
                if should_stop():
                    return False
                self._pool.watch_nodes()
                exhausted = self._assign(shards, exhausted)
                if exhausted and not self._unfinished():
                    on_progress(self._state())
                    return True
                examined = self._suspects.look(self._stalls)
                if examined is not None:
                    self._backlog.add(examined)
                self._keep_up_actors(idle_tail=exhausted and not self._backlog)
                for result in self._collect():
                    on_done(result)
                self._pool.ask_progress()
                if time.monotonic() - self._told_at >= PROGRESS_SECONDS:
                    self._told_at = time.monotonic()
                    on_progress(self._state())
                    self._stalls.look(self._pool.actors)
                    self._end_unready()
                    self._replace_still()
                placement.look(
                    has_place=self._has_place(),
                    failures=self._setups.all_failures,
                    again=self._restarts > 0,
                )
        finally:
            self._suspects.stop()
            self._pool.close()

    def _assign(self, shards: Iterator[Shard], exhausted: bool) -> bool:
        """Give work to every ready actor with room, least busy first. Returns whether `shards` is used up."""
        now = time.monotonic()
        more_start = any(not actor.ready for actor in self._pool.actors)
        able = self._trust.able(self._pool.actors, more_start)
        for depth in range(SHARDS_IN_FLIGHT):
            for actor in able:
                if len(actor.shards) != depth or actor.works_alone:
                    continue
                attempt = self._backlog.take(actor, able, now, may_be_alone=depth == 0, more_start=more_start)
                if attempt is None and not exhausted:
                    shard = next(shards, None)
                    exhausted = shard is None
                    attempt = ShardAttempt(shard) if shard else None
                if attempt:
                    self._pool.hand(actor, attempt)
        return exhausted

    def _keep_up_actors(self, idle_tail: bool) -> None:
        """Replace lost and leaving actors; at the tail, when nothing is left to hand out, drop who has no work."""
        pool = self._pool
        if self._spec.grow_to is not None:
            # Never fewer than there were: what waits for a place tells an autoscaler to replace a lost node.
            room = cluster.count_fitting(pool.nodes, self._spec.cpus, self._spec.gpus)
            self._wanted = max(self._wanted, min(room, self._spec.grow_to))
        # The quarantine's actor takes the place of one of ours, else it might never be placed.
        wanted = self._wanted - 1 if self._suspects.is_examining else self._wanted
        for actor in [actor for actor in pool.actors if actor.leaving and not actor.shards]:
            pool.drop(actor)
        spare = [actor for actor in pool.actors if actor.ready and not actor.shards]
        if idle_tail:
            for actor in spare:
                pool.drop(actor)
            return
        staying = sum(not actor.leaving and not actor.is_stalled for actor in pool.actors)
        while staying > wanted and spare:
            pool.drop(spare.pop())
            staying -= 1
        while staying < wanted and time.monotonic() >= self._setups.next_start:
            pool.start()
            staying += 1

    def _unfinished(self) -> bool:
        at_work = (attempt for actor in self._pool.actors for attempt in actor.shards.values())
        return bool(self._backlog or self._suspects or any(not attempt.forgotten for attempt in at_work))

    def _end_unready(self) -> None:
        """Replace actors that hang while they set themselves up."""
        for actor, seconds in self._stalls.unready(self._pool.actors, self._setups.failures):
            self._on_note(f"an actor has not got ready in {seconds:.0f} s; another is started in its place")
            self._actor_died(actor, WorkerBroken(f"an actor was not ready after {seconds:.0f} s"))

    def _replace_still(self) -> None:
        """Hand shards that stand still to other actors as well; end actors that nobody can be had for."""
        actors = list(self._pool.actors)
        for actor, attempt, seconds in list(self._stalls.still(actors)):
            number = attempt.shard.number
            if actor not in self._pool.actors:
                continue  # ended on the way, for another shard of its
            if attempt.twin is None:
                self._warn(attempt, stands_still_s=round(seconds), node=actor.node_id)
                self._on_note(
                    f"shard {number} stands still for {seconds:.0f} s on an actor of node {actor.short_node_id}; "
                    "another actor gets it, too"
                )
                twin = ShardAttempt(
                    attempt.shard, stalls=attempt.stalls + 1, avoid=[*attempt.avoid, actor], twin=attempt
                )
                attempt.twin = twin
                twin.tries = attempt.tries
                self._backlog.add(twin)
                self._count_retry("is_stalled")
            elif (attempt.twin in self._backlog or self._is_still(attempt.twin)) and self._stalls.is_hopeless(
                actor, attempt, seconds, actors
            ):
                if attempt.stalls >= MAX_STALLS:
                    keys = ", ".join(entry.key for entry in attempt.shard.entries[:3])
                    raise PipelineError(
                        f"shard {number} ({keys}, ...) stands still on every actor, {attempt.stalls + 1} so far; look "
                        "at the Ray logs and at the storage, then run the same command to resume"
                    )
                self._end(actor, "stands still")

    def _is_still(self, attempt: ShardAttempt) -> bool:
        return any(found is attempt for _, found, _ in self._stalls.still(self._pool.actors))

    def _end(self, actor: PoolActor, reason: str) -> None:
        """End an actor that is at fault. What it had goes to others, unless they have it already."""
        log.warning("%s", key_values(actor="ended", reason=reason, node=actor.node_id))
        self._restarts += 1
        self._recorder.add(ACTOR_RESTARTS, 1)
        for attempt in actor.shards.values():
            if not attempt.is_left_to_others():
                self._backlog.add(attempt)
        self._pool.drop(actor)

    def _collect(self) -> Iterator[Any]:
        """Results of finished shards; failures are turned into retries here."""
        for ref in self._pool.wait():
            actor = self._pool.owner(ref)
            if actor is None:
                continue  # dropped while handling an earlier result of this round
            try:
                value = ray.get(ref, timeout=30)
            except RayTaskError as error:
                self._task_failed(actor, ref, error)
            except RayError as error:  # also a reference that cannot be had: its owner is gone
                self._actor_died(actor, error)
            else:
                asked_for_progress = ref == actor.progress_ref
                attempt = self._pool.complete(ref)
                if attempt:
                    actor.images.pop(attempt.shard.number, None)
                    if self._shard_done(actor, attempt):
                        yield value
                elif asked_for_progress:
                    self._pool.heard(actor, value)
                else:
                    node_id, oom_kills = value
                    self._deaths.note(node_id, oom_kills)
                    self._stalls.set_up(self._pool.is_ready(actor, node_id))
                    self._setups.succeeded()

    def _shard_done(self, actor: PoolActor, attempt: ShardAttempt) -> bool:
        """Take note of a shard that is committed. False where its twin was heard before."""
        if attempt.forgotten:
            return False
        seconds = time.monotonic() - attempt.handed_at
        self._recorder.observe(SHARD_SECONDS, seconds)
        self._stalls.finished(seconds)
        self._suspects.known_good = attempt.shard.first_worked_on() or self._suspects.known_good
        twin = attempt.part()
        if twin is not None:
            self._backlog.discard(twin)
            twin.forgotten = True
            if twin.stalls < attempt.stalls:  # the one that stood still, and what it does now is in vain
                for slow in [other for other in self._pool.actors if twin in other.shards.values()]:
                    self._end(slow, "stands still")
        for other in self._trust.done(actor, attempt, self._pool.actors):
            self._on_note(
                f"an actor of node {other.short_node_id} could read nothing of shard {attempt.shard.number}, "
                "another could; it is replaced"
            )
            self._end(other, "refuses what others can do")
        return True

    def _task_failed(self, actor: PoolActor, ref: Any, error: RayTaskError) -> None:
        cause = error.cause if isinstance(error.cause, Exception) else error
        if ref == actor.progress_ref:
            self._pool.complete(ref)
        elif ref == actor.setup_ref:
            # One bad machine, or a moment without storage, is no reason to end what others are doing.
            waits = isinstance(cause, StorageUnavailable) and not isinstance(cause, UntrustedCertificate)
            if not waits and not any(other.ready for other in self._pool.actors):
                raise PipelineError(f"an actor could not get ready: {in_one_line(cause)}") from error
            self._actor_died(actor, cause)
        elif isinstance(cause, WorkerBroken):
            self._actor_died(actor, cause)
        else:
            attempt = self._pool.complete(ref)
            assert attempt is not None, "what is neither progress nor setup is a shard"
            if isinstance(cause, ShardRefused):
                self._shard_refused(actor, attempt, cause)
            else:
                self._shard_failed(attempt, cause)

    def _shard_refused(self, actor: PoolActor, attempt: ShardAttempt, cause: ShardRefused) -> None:
        """Let another actor try a shard that one could do nothing with; when that cannot either, it is the shard."""
        if attempt.is_left_to_others():
            return
        self._trust.refused(actor, attempt)
        self._warn(attempt, retry_in_s=0, reason="refused", error=cause)
        self._backlog.add(attempt)
        self._count_retry("refused")

    def _shard_failed(self, attempt: ShardAttempt, cause: Exception) -> None:
        if (attempt.forgotten or isinstance(cause, StorageUnavailable)) and attempt.is_left_to_others():
            return
        if isinstance(cause, TakenOver):
            raise cause
        if not isinstance(cause, StorageUnavailable):
            raise PipelineError(f"shard {attempt.shard.number} failed: {in_one_line(cause)}") from cause
        attempt.storage_failures += 1
        if attempt.storage_failures > MAX_STORAGE_RETRIES:
            raise PipelineError(
                f"storage stayed down through {MAX_STORAGE_RETRIES} retries of shard {attempt.shard.number}: {cause}; "
                "the same command resumes the run"
            ) from cause
        delay = RETRY_SECONDS * 2.0 ** (attempt.storage_failures - 1)
        self._warn(attempt, retry_in_s=delay, reason="storage", error=cause)
        attempt.not_before = time.monotonic() + delay
        self._backlog.add(attempt)
        self._count_retry("storage")

    def _warn(self, attempt: ShardAttempt, **values: object) -> None:
        log.warning("%s", key_values(shard=attempt.shard.number, attempt=attempt.tries, **values))

    def _count_retry(self, reason: str) -> None:
        self._retry_count += 1
        self._recorder.add(SHARD_RETRIES, 1, reason=reason)

    def _actor_died(self, actor: PoolActor, error: Exception) -> None:
        numbers = ",".join(str(number) for number in sorted(attempt.shard.number for attempt in actor.shards.values()))
        why = self._why_died(actor, error)
        log.warning("%s", key_values(actor="lost", ready=actor.ready, shards=numbers or None, error=why))
        self._restarts += 1
        self._recorder.add(ACTOR_RESTARTS, 1)
        if not actor.ready and isinstance(error, StorageUnavailable):
            any_ready = any(each.ready for each in self._pool.actors)
            self._setups.found_no_storage(error, self._on_note, any_ready=any_ready)
        elif not actor.ready:
            self._setups.failed(error, why)
        preempted = isinstance(error, RayActorError) and error.preempted
        for attempt in actor.shards.values():
            attempt.last_death = why
            if attempt.is_left_to_others():
                continue
            if isinstance(error, OutOfMemoryError):
                self._out_of_memory(attempt, error)
                continue
            if actor.node_id and not preempted:
                attempt.death_nodes.append(actor.node_id)
            # A death with its node says nothing about the shard. Ray may learn of a node's end only seconds after its
            # actors', so earlier deaths are judged once more, by what is known now. Should even that be too early, the
            # shard is examined in vain, and no harm is done.
            attempt.death_nodes = [node for node in attempt.death_nodes if not self._pool.will_be_lost(node)]
            self._count_retry("actor_lost")
            (self._suspects if len(attempt.death_nodes) >= SUSPICIOUS_DEATHS else self._backlog).add(attempt)
        self._pool.drop(actor)

    def _why_died(self, actor: PoolActor, error: Exception) -> str:
        """Why an actor died, in words. Memory or disk that ran out is noted once for people, too."""
        cause = self._deaths.cause(actor.node_id, error) if isinstance(error, RayError) else None
        if cause is None:
            return in_one_line(error)
        if cause.lacks not in self._told_causes:
            self._told_causes.add(cause.lacks)
            self._on_note(f"an actor of node {actor.short_node_id} was lost: {cause}")
        return str(cause)

    def _out_of_memory(self, attempt: ShardAttempt, error: OutOfMemoryError) -> None:
        """Ray ended the actor because its node ran out of memory. It chooses whom, so that is no fault of the shard."""
        attempt.memory_kills += 1
        if attempt.memory_kills > MAX_MEMORY_KILLS:
            raise PipelineError(
                f"Ray ended {attempt.memory_kills} actors over shard {attempt.shard.number} for want of memory "
                f"({in_one_line(error)}); give fewer --actors, a lower --image-memory or --batch-size, or machines "
                "with more memory, then run the same command to resume"
            ) from error
        attempt.alone = True  # with half as many images in memory
        attempt.not_before = time.monotonic() + RETRY_SECONDS * 2.0 ** (attempt.memory_kills - 1)
        self._backlog.add(attempt)
        self._count_retry("out_of_memory")

    def _state(self) -> PoolProgress:
        actors = self._pool.actors
        return PoolProgress(
            ready=sum(actor.ready for actor in actors),
            wanted=self._wanted,
            shards_in_flight=sum(len(actor.shards) for actor in actors),
            images_in_flight=sum(actor.images_in_flight for actor in actors),
            restarts=self._restarts,
            retries=self._retry_count,
        )

    def _has_place(self) -> bool:
        """Whether an actor is placed, as far as is known, or none is looked for."""
        if any(actor.placed_at is not None for actor in self._pool.actors):
            return True
        if self._suspects.is_examining:  # whose actor may have the only place
            return not self._suspects.wait_for_place
        return not self._pool.actors
