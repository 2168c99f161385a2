"""An elastic pool of Ray actors that works through shards: dispatch, retry, progress, stop.

Ray places the actors and tells of their deaths; this module only decides who gets which shard. It knows nothing of
images: what an actor does with a shard is a `Processor`, built inside the actor by a factory. A shard that is handed
out twice, to a lost actor and its successor, is harmless, because a shard commits once.
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError

from pipeline.errors import PipelineError, StorageUnavailable
from pipeline.plan import Shard

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""How often each actor is asked how far it is."""

SHARDS_IN_FLIGHT = 2
"""Shards an actor works on at once: the next one loads while the last one is being written."""

MAX_STORAGE_RETRIES = 5
"""How often a shard is tried again when the storage fails it, 2, 4, 8, ... seconds apart."""

MAX_DEATHS = 10
"""How many actors may die over one shard before the run gives up on it."""


class Processor(Protocol):
    """What runs inside an actor."""

    def process(self, shard: Shard) -> Any:
        """Work on a shard and commit it. Called from SHARDS_IN_FLIGHT threads."""

    def progress(self) -> dict[int, int]:
        """Images finished in each shard at work."""

    def close(self) -> None: ...


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


class _ShardWorker:
    """The actor. `setup` is apart from the constructor so that its exceptions arrive as they are."""

    def setup(self, factory: Callable[..., Processor], *args: Any) -> None:
        self._processor = factory(*args)

    def process(self, shard: Shard) -> Any:
        return self._processor.process(shard)

    @ray.method(concurrency_group="control")
    def progress(self) -> dict[int, int]:
        # The actor is reachable before `setup` has finished.
        processor = getattr(self, "_processor", None)
        return processor.progress() if processor else {}

    @ray.method(concurrency_group="control")
    def close(self) -> None:
        self._processor.close()


# Control calls have threads of their own, so that they never wait behind shards. Ray's type hints know nothing of this.
_SHARD_ACTOR: Any = ray.remote(concurrency_groups={"control": 2})(_ShardWorker)  # type: ignore[call-overload]


@dataclass(eq=False)
class _Actor:
    handle: Any
    setup_ref: Any
    ready: bool = False
    shards: dict[Any, "_Attempt"] = field(default_factory=dict)
    progress_ref: Any = None
    asked_at: float = 0.0
    images: int = 0


@dataclass(eq=False)
class _Attempt:
    shard: Shard
    deaths: int = 0
    storage_failures: int = 0
    not_before: float = 0.0


class ShardPool:
    """Runs shards on actors. One use: build it, call `run`."""

    def __init__(self, spec: PoolSpec, factory: Callable[..., Processor], *args: Any) -> None:
        """`factory(*args)` builds the Processor inside each actor. `args` may be Ray object references."""
        self._spec = spec
        self._factory = factory
        self._args = args
        self._actors: list[_Actor] = []
        self._retries: deque[_Attempt] = deque()
        self._setup_failures = 0
        self._restarts = 0
        self._retry_count = 0

    def run(
        self,
        shards: Iterator[Shard],
        on_done: Callable[[Any], None],
        on_progress: Callable[[PoolProgress], None],
        should_stop: Callable[[], bool],
    ) -> bool:
        """Work through `shards`; True when all are committed, False when `should_stop` said so first.

        `on_done` gets what `Processor.process` returned, once a shard. Raises PipelineError when no actor can be placed
        or set up, when the storage stays down, or when a shard fails for a reason of the program's own.
        """
        started = time.monotonic()
        exhausted = False
        try:
            while True:
                if should_stop():
                    return False
                exhausted = self._assign(shards, exhausted)
                if exhausted and not self._retries and not any(actor.shards for actor in self._actors):
                    on_progress(self._state())
                    return True
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
                if not actor.ready or len(actor.shards) != depth:
                    continue
                attempt = self._next_retry(now)
                if attempt is None and not exhausted:
                    shard = next(shards, None)
                    exhausted = shard is None
                    attempt = _Attempt(shard) if shard else None
                if attempt:
                    actor.shards[actor.handle.process.remote(attempt.shard)] = attempt
        return exhausted

    def _next_retry(self, now: float) -> _Attempt | None:
        for attempt in self._retries:
            if attempt.not_before <= now:
                self._retries.remove(attempt)
                return attempt
        return None

    def _keep_up_actors(self, idle_tail: bool) -> None:
        """Replace lost actors; at the tail, when nothing is left to hand out, only as many as still have work."""
        wanted = self._spec.actors
        if idle_tail:
            for actor in [actor for actor in self._actors if actor.ready and not actor.shards]:
                self._drop(actor)
            return
        while len(self._actors) < wanted:
            options: dict[str, Any] = {
                "num_cpus": self._spec.cpus,
                "num_gpus": self._spec.gpus,
                "max_concurrency": SHARDS_IN_FLIGHT,
                "scheduling_strategy": "SPREAD",
                "max_restarts": 0,
            }
            handle = _SHARD_ACTOR.options(**options).remote()
            self._actors.append(_Actor(handle, handle.setup.remote(self._factory, *self._args)))

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
            except (RayActorError, GetTimeoutError, RayError) as error:
                self._actor_died(actor, error)
            else:
                if ref == actor.setup_ref:
                    actor.ready = True
                    self._setup_failures = 0
                elif ref == actor.progress_ref:
                    actor.images = sum(value.values())
                    actor.progress_ref = None
                else:
                    del actor.shards[ref]
                    yield value

    def _task_failed(self, actor: _Actor, ref: Any, error: RayTaskError) -> None:
        cause = error.cause if isinstance(error.cause, Exception) else error
        if ref == actor.progress_ref:
            actor.progress_ref = None
            return
        if ref == actor.setup_ref:
            raise PipelineError(f"an actor could not get ready: {cause}") from error
        attempt = actor.shards.pop(ref)
        if not isinstance(cause, StorageUnavailable):
            raise PipelineError(f"shard {attempt.shard.number} failed: {cause}") from error
        attempt.storage_failures += 1
        if attempt.storage_failures > MAX_STORAGE_RETRIES:
            raise PipelineError(
                f"storage stayed down through {MAX_STORAGE_RETRIES} retries of shard {attempt.shard.number}: {cause}; "
                "the same command resumes the run"
            ) from error
        delay = 2.0**attempt.storage_failures
        log.warning("shard=%d retry_in=%.0fs reason=storage error=%s", attempt.shard.number, delay, cause)
        attempt.not_before = time.monotonic() + delay
        self._retries.append(attempt)
        self._retry_count += 1

    def _actor_died(self, actor: _Actor, error: Exception) -> None:
        numbers = sorted(attempt.shard.number for attempt in actor.shards.values())
        log.warning("actor=lost ready=%s shards=%s error=%s", actor.ready, numbers, str(error).splitlines()[0])
        self._restarts += 1
        if not actor.ready:
            self._setup_failures += 1
            if self._setup_failures >= 3 * self._spec.actors:
                raise PipelineError(
                    f"actors die before they are ready, {self._setup_failures} in a row: {error}"
                ) from error
        for attempt in actor.shards.values():
            attempt.deaths += 1
            if attempt.deaths >= MAX_DEATHS:
                raise PipelineError(
                    f"shard {attempt.shard.number} lost {attempt.deaths} actors in a row; look at the Ray logs for the "
                    "reason (out of memory is the usual one), then run the same command to resume"
                ) from error
            self._retries.append(attempt)
            self._retry_count += 1
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
            images_in_flight=sum(actor.images for actor in self._actors if actor.shards),
            restarts=self._restarts,
            retries=self._retry_count,
        )

    def _check_placement(self, started: float) -> None:
        """Say what is missing when no actor could be placed in time."""
        if any(actor.ready for actor in self._actors) or self._setup_failures or self._restarts:
            return
        if time.monotonic() - started < self._spec.placement_timeout or not self._actors:
            return
        free, total = ray.available_resources(), ray.cluster_resources()
        missing = [
            f"{wanted:g} {name} (free: {free.get(name, 0):g}, in the whole cluster: {total.get(name, 0):g})"
            for name, wanted in (("CPU", self._spec.cpus), ("GPU", self._spec.gpus))
            if wanted > free.get(name, 0)
        ]
        if missing:
            raise PipelineError(
                f"no actor could be placed within {self._spec.placement_timeout:.0f} s: each needs "
                + " and ".join(missing)
            )

    def _drop(self, actor: _Actor) -> None:
        self._actors.remove(actor)
        ray.kill(actor.handle)

    def _shut_down(self) -> None:
        for actor in list(self._actors):
            self._drop(actor)
