"""An elastic pool of Ray actors that works through shards: dispatch, retry, progress, stop.

Ray places the actors and tells of their deaths; this module only decides who gets which shard. It knows nothing of
images: what an actor does with a shard is a `Processor`, built inside the actor by a factory. A shard that is handed
out twice, to a lost actor and its successor, is harmless, because a shard commits once.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from fcn_core.errors import FcnError
from pipeline.actors.quarantine import Quarantine
from pipeline.actors.worker import SHARDS_IN_FLIGHT, Processor, WorkerSpec, start_worker
from pipeline.errors import PipelineError, StorageUnavailable, WorkerBroken
from pipeline.outputs.plan import Shard

log = logging.getLogger(__name__)

NOTICE_SECONDS = 45.0
"""When no actor is there after so long, people are told what is missing."""

POLL_SECONDS = 1.0
"""How often each actor is asked how far it is."""

MAX_SETUP_FAILURES = 5
"""How many times as many actors as are wanted may fail, in a row, before one is ready."""

MAX_STORAGE_RETRIES = 5
"""How often a shard is tried again when the storage fails it, 2, 4, 8, ... seconds apart."""

SUSPICIOUS_DEATHS = 2
"""After so many actors died over a shard, its images are examined one at a time."""

MAX_EXAMINATIONS = 3
"""How often a shard may be examined before the run gives up on it: it dies only as a whole, of memory for instance."""


@dataclass(frozen=True)
class PoolSpec:
    """How many actors, and what each needs."""

    actors: int
    cpus: float
    gpus: float = 0.0
    placement_timeout: float = 60.0


@dataclass(frozen=True)
class PoolProgress:
    """Where the pool stands: `images_in_flight` are finished in shards that are not committed yet."""

    ready: int
    wanted: int
    shards_in_flight: int
    images_in_flight: int
    restarts: int
    retries: int


@dataclass(eq=False)
class _Actor:
    handle: Any
    setup_ref: Any
    node_id: str | None = None
    ready: bool = False
    shards: dict[Any, "_Attempt"] = field(default_factory=dict)
    progress_ref: Any = None
    asked_at: float = 0.0
    images: dict[int, int] = field(default_factory=dict)  # by shard number


@dataclass(eq=False)
class _Attempt:
    shard: Shard
    deaths: int = 0
    examinations: int = 0
    alone: bool = False  # after an examination, so that no shard dies of another's doing
    storage_failures: int = 0
    not_before: float = 0.0


class ShardPool:
    """Runs shards on actors. One use: build it, call `run`."""

    def __init__(self, spec: PoolSpec, factory: Callable[..., Processor], *args: Any) -> None:
        """`factory(*args)` builds the Processor inside each actor. `args` may be Ray object references."""
        self._spec = spec
        self._worker = WorkerSpec(spec.cpus, spec.gpus, factory, args)
        self._quarantine: tuple[_Attempt, Quarantine] | None = None
        self._suspects: deque[_Attempt] = deque()
        self._actors: list[_Actor] = []
        self._retries: deque[_Attempt] = deque()
        self._setup_failures = 0
        self._next_start = 0.0
        self._restarts = 0
        self._retry_count = 0
        self._notified = False
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

        `on_done` gets what `Processor.process` returned, once a shard. Raises PipelineError when no actor can be placed
        or set up, when the storage stays down, or when a shard fails for a reason of the program's own.
        """
        started = time.monotonic()
        exhausted = False
        self._on_note = on_note
        try:
            while True:
                if should_stop():
                    return False
                exhausted = self._assign(shards, exhausted)
                if exhausted and not self._unfinished():
                    on_progress(self._state())
                    return True
                self._examine_suspects()
                self._keep_up_actors(idle_tail=exhausted and not self._retries)
                for result in self._collect():
                    on_done(result)
                self._ask_progress()
                on_progress(self._state())
                self._check_placement(started)
        finally:
            self._shut_down()

    def _assign(self, shards: Iterator[Shard], exhausted: bool) -> bool:
        """Give work to every ready actor with room, least busy first. Returns whether `shards` is used up."""
        now = time.monotonic()
        for depth in range(SHARDS_IN_FLIGHT):
            for actor in self._actors:
                busy_alone = any(attempt.alone for attempt in actor.shards.values())
                if not actor.ready or len(actor.shards) != depth or busy_alone:
                    continue
                attempt = self._next_retry(now, may_be_alone=depth == 0)
                if attempt is None and not exhausted:
                    shard = next(shards, None)
                    exhausted = shard is None
                    attempt = _Attempt(shard) if shard else None
                if attempt:
                    actor.shards[actor.handle.process.remote(attempt.shard)] = attempt
        return exhausted

    def _next_retry(self, now: float, may_be_alone: bool) -> _Attempt | None:
        for attempt in self._retries:
            if attempt.not_before <= now and (may_be_alone or not attempt.alone):
                self._retries.remove(attempt)
                return attempt
        return None

    def _keep_up_actors(self, idle_tail: bool) -> None:
        """Replace lost actors; at the tail, when nothing is left to hand out, only as many as still have work."""
        # The quarantine's actor takes the place of one of ours, else it might never be placed.
        wanted = max(1, self._spec.actors - 1) if self._quarantine and self._spec.actors > 1 else self._spec.actors
        if self._quarantine and self._spec.actors == 1:
            wanted = 0
        spare = [actor for actor in self._actors if actor.ready and not actor.shards]
        if idle_tail:
            for actor in spare:
                self._drop(actor)
            return
        while len(self._actors) > wanted and spare:
            self._drop(spare.pop())
        while len(self._actors) < wanted and time.monotonic() >= self._next_start:
            self._actors.append(_Actor(*start_worker(self._worker)))

    def _unfinished(self) -> bool:
        return bool(self._retries or self._suspects or self._quarantine or any(actor.shards for actor in self._actors))

    def _examine_suspects(self) -> None:
        """Take the next suspicious shard into quarantine, or one that comes out of it back to work."""
        if self._quarantine is None:
            if self._suspects:
                attempt = self._suspects.popleft()
                log.warning("shard=%d quarantine=begins deaths=%d", attempt.shard.number, attempt.deaths)
                self._quarantine = (attempt, Quarantine(attempt.shard, self._worker))
            return
        attempt, quarantine = self._quarantine
        if quarantine.culprits is None:
            return
        self._quarantine = None
        log.warning("shard=%d quarantine=ends culprits=%s", attempt.shard.number, sorted(quarantine.culprits))
        attempt.examinations += 1
        attempt.deaths = 0
        attempt.alone = True
        if not quarantine.culprits and attempt.examinations >= MAX_EXAMINATIONS:
            raise PipelineError(
                f"shard {attempt.shard.number} kills its actors, though each of its images alone does not; look at the "
                "Ray logs for the reason (out of memory is the usual one), then run the same command to resume"
            )
        attempt.shard = replace(attempt.shard, culprits=attempt.shard.culprits | quarantine.culprits)
        self._retries.append(attempt)

    def _collect(self) -> Iterator[Any]:
        """Results of finished shards; failures are turned into retries here."""
        owners = {ref: actor for actor in self._actors for ref in actor.shards}
        owners |= {actor.setup_ref: actor for actor in self._actors if not actor.ready}
        owners |= {actor.progress_ref: actor for actor in self._actors if actor.progress_ref is not None}
        if not owners:
            time.sleep(0.1)
            return
        done, _ = ray.wait(list(owners), num_returns=len(owners), timeout=0)
        if not done:
            done, _ = ray.wait(list(owners), num_returns=1, timeout=0.25)
        for ref in done:
            actor = owners[ref]
            if actor not in self._actors:
                continue  # dropped while handling an earlier result of this round
            try:
                value = ray.get(ref, timeout=30)
            except RayTaskError as error:
                self._task_failed(actor, ref, error)
            except RayError as error:  # also a reference that cannot be had: its owner is gone
                self._actor_died(actor, error)
            else:
                if ref == actor.setup_ref:
                    actor.ready = True
                    actor.node_id = value
                    self._setup_failures = 0
                elif ref == actor.progress_ref:
                    actor.images = value
                    actor.progress_ref = None
                else:
                    actor.images.pop(actor.shards.pop(ref).shard.number, None)
                    yield value

    def _task_failed(self, actor: _Actor, ref: Any, error: RayTaskError) -> None:
        cause = error.cause if isinstance(error.cause, Exception) else error
        if ref == actor.progress_ref:
            actor.progress_ref = None
        elif ref == actor.setup_ref:
            # One bad machine, or a moment without storage, is no reason to end what others are doing.
            if not isinstance(cause, StorageUnavailable) and not any(other.ready for other in self._actors):
                raise PipelineError(f"an actor could not get ready: {_text(cause)}") from error
            self._actor_died(actor, cause)
        elif isinstance(cause, WorkerBroken):
            self._actor_died(actor, cause)
        else:
            self._shard_failed(actor.shards.pop(ref), cause)

    def _shard_failed(self, attempt: "_Attempt", cause: Exception) -> None:
        if not isinstance(cause, StorageUnavailable):
            raise PipelineError(f"shard {attempt.shard.number} failed: {_text(cause)}") from cause
        attempt.storage_failures += 1
        if attempt.storage_failures > MAX_STORAGE_RETRIES:
            raise PipelineError(
                f"storage stayed down through {MAX_STORAGE_RETRIES} retries of shard {attempt.shard.number}: {cause}; "
                "the same command resumes the run"
            ) from cause
        delay = 2.0**attempt.storage_failures
        log.warning("shard=%d retry_in=%.0fs reason=storage error=%s", attempt.shard.number, delay, cause)
        attempt.not_before = time.monotonic() + delay
        self._retries.append(attempt)
        self._retry_count += 1

    def _actor_died(self, actor: _Actor, error: Exception) -> None:
        numbers = sorted(attempt.shard.number for attempt in actor.shards.values())
        log.warning("actor=lost ready=%s shards=%s error=%s", actor.ready, numbers, _text(error))
        self._restarts += 1
        if not actor.ready:
            self._setup_failures += 1
            if self._setup_failures >= MAX_SETUP_FAILURES * self._spec.actors:
                raise PipelineError(
                    f"actors fail before they are ready, {self._setup_failures} in a row: {_text(error)}"
                ) from error
            self._next_start = time.monotonic() + min(30.0, 2.0 ** (self._setup_failures - 1))
        lost_node = not _is_alive(actor.node_id)
        for attempt in actor.shards.values():
            # A death with its node says nothing about the shard. Ray may not know of the node's end yet; then the
            # shard is examined in vain, and no harm is done.
            attempt.deaths += not lost_node
            self._retry_count += 1
            (self._suspects if attempt.deaths >= SUSPICIOUS_DEATHS else self._retries).append(attempt)
        actor.shards.clear()
        self._drop(actor)

    def _ask_progress(self) -> None:
        now = time.monotonic()
        for actor in self._actors:
            if actor.ready and actor.progress_ref is None and now - actor.asked_at >= POLL_SECONDS:
                actor.asked_at = now
                actor.progress_ref = actor.handle.progress.remote()

    def _state(self) -> PoolProgress:
        return PoolProgress(
            ready=sum(actor.ready for actor in self._actors),
            wanted=self._spec.actors,
            shards_in_flight=sum(len(actor.shards) for actor in self._actors),
            images_in_flight=sum(self._images(actor) for actor in self._actors),
            restarts=self._restarts,
            retries=self._retry_count,
        )

    @staticmethod
    def _images(actor: _Actor) -> int:
        """Images finished in shards that the actor still works on; its last report may name others."""
        at_work = {attempt.shard.number for attempt in actor.shards.values()}
        return sum(count for number, count in actor.images.items() if number in at_work)

    def _check_placement(self, started: float) -> None:
        """Say what is missing when no actor has been placed for a while, and give up in the end."""
        if any(actor.ready for actor in self._actors) or self._restarts or not self._actors:
            return
        waited = time.monotonic() - started
        if waited < NOTICE_SECONDS and waited < self._spec.placement_timeout:
            return
        missing = missing_resources(self._spec)
        if waited >= self._spec.placement_timeout:
            raise PipelineError(f"no actor could be placed within {self._spec.placement_timeout:.0f} s: {missing}")
        if not self._notified:
            self._notified = True
            self._on_note(f"still waiting for the first actor: {missing}")

    def _drop(self, actor: _Actor) -> None:
        self._actors.remove(actor)
        ray.kill(actor.handle)

    def _shut_down(self) -> None:
        if self._quarantine:
            self._quarantine[1].stop()
        for actor in list(self._actors):
            self._drop(actor)


def _is_alive(node_id: str | None) -> bool:
    return any(node["NodeID"] == node_id and node["Alive"] for node in ray.nodes())


def missing_resources(spec: PoolSpec) -> str:
    """What keeps an actor from being placed, in words."""
    total, free = ray.cluster_resources(), ray.available_resources()
    needs = [(name, amount) for name, amount in (("CPU", spec.cpus), ("GPU", spec.gpus)) if amount]
    wanted = " and ".join(f"{amount:g} {name}" for name, amount in needs)
    have = ", ".join(f"{name}: {free.get(name, 0):g} of {total.get(name, 0):g} free" for name, _ in needs)
    return f"each needs {wanted} on one node, and the cluster has {have}"


def _text(error: BaseException) -> str:
    """The first line of an error, with its type where it is not one of ours."""
    line = (str(error).strip() or "no message").splitlines()[0]
    return line if isinstance(error, PipelineError | FcnError | RayError) else f"{type(error).__name__}: {line}"
