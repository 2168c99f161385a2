"""The actors that a pool has at the moment: started, ready, at work, about to lose their node, gone.

Whatever Ray owes us (an actor that gets ready, a shard's outcome, a report of progress) is a reference, and one map
says whose it is. Who gets which shard, and what a failure means, is for the pool to say.
"""

import logging
import time
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.exceptions import RayError

from pipeline.actors import cluster
from pipeline.actors.worker import WorkerSpec, start_worker
from pipeline.logfmt import key_values
from pipeline.outputs.shard import Shard

log = logging.getLogger(__name__)

WAIT_SECONDS = 0.25
"""How long at most a pool waits for something to happen before it looks around."""

POLL_SECONDS = 1.0
"""How often each actor is asked how far it is, while there are few of them."""

ASKED_PER_SECOND = 16
"""How many actors are asked in a second, when there are many: the driver's work must not grow with their number."""

NODES_SECONDS = 2.0
"""How often Ray is asked which nodes there are and which are being drained."""


@dataclass(eq=False)
class ShardAttempt:
    """A shard on its way through the pool, with what happened to it so far."""

    shard: Shard
    death_nodes: list[str] = field(default_factory=list)  # where actors died over it, nodes known as lost left out
    examinations: int = 0
    alone: bool = False  # after an examination, so that no shard dies of another's doing
    storage_failures: int = 0
    memory_kills: int = 0  # how many actors Ray ended over it because their node ran out of memory
    refusals: int = 0  # how many actors could do nothing with it
    stalls: int = 0  # how many actors stood still over it
    avoid: "list[PoolActor]" = field(default_factory=list)  # who had it and failed it
    avoid_until: float = 0.0  # how long to wait for others that are about to start
    twin: "ShardAttempt | None" = None  # the same shard, handed out once more because one of the two stands still
    forgotten: bool = False  # its twin is done, so nobody waits for it
    not_before: float = 0.0
    handed_at: float = 0.0
    moved_at: float = 0.0  # when it was handed out, or an image of it was last reported as finished
    tries: int = 0
    last_death: str = ""  # why the last actor died over it, as far as is known

    def part(self) -> "ShardAttempt | None":
        """Have no twin any more; returns the one it had."""
        twin, self.twin = self.twin, None
        if twin is not None:
            twin.twin = None
        return twin

    def is_left_to_others(self) -> bool:
        """Whether nobody waits for this attempt, because its twin is done or goes on alone from now on."""
        return self.forgotten or self.part() is not None


@dataclass(eq=False)
class PoolActor:
    """An actor. `leaving`: its node is being drained, so it finishes what it has and gets nothing more."""

    handle: Any
    setup_ref: Any
    node_id: str | None = None
    placed_at: float | None = None  # when its process was first heard of; it sets itself up from then on
    ready: bool = False
    leaving: bool = False
    shards: dict[Any, ShardAttempt] = field(default_factory=dict)  # by reference
    progress_ref: Any = None
    asked_at: float = 0.0
    heard_at: float = field(default_factory=time.monotonic)  # when it last answered
    refusals: int = 0  # shards that it could do nothing with, since the last that it did
    refused_at: float = 0.0
    images: dict[int, int] = field(default_factory=dict)  # by shard number, as last reported

    @property
    def short_node_id(self) -> str:
        """As people are shown it."""
        return (self.node_id or "?")[:12]

    @property
    def gets_work(self) -> bool:
        """Whether it may be handed a shard: not while its node goes, nor while it stands still."""
        return self.ready and not self.leaving and not self.is_stalled

    @property
    def is_stalled(self) -> bool:
        """Whether a shard of it was handed to another actor as well."""
        return any(attempt.twin is not None for attempt in self.shards.values())

    @property
    def works_alone(self) -> bool:
        """Whether it has a shard that must have an actor to itself."""
        return any(attempt.alone for attempt in self.shards.values())

    @property
    def images_in_flight(self) -> int:
        """Images finished in shards that it still works on; its last report may name others."""
        at_work = {attempt.shard.number for attempt in self.shards.values()}
        return sum(count for number, count in self.images.items() if number in at_work)


def poll_interval(actors: int) -> float:
    """How often each of so many actors is asked how far it is, in seconds."""
    return max(POLL_SECONDS, actors / ASKED_PER_SECOND)


class PoolActors:
    """The actors of a pool. Not thread-safe."""

    def __init__(self, worker: WorkerSpec) -> None:
        self.actors: list[PoolActor] = []
        self.nodes: list[cluster.NodeResources] = []
        """The nodes that actors may be placed on, as of the last `watch_nodes`."""
        self._worker = worker
        self._owners: dict[Any, PoolActor] = {}
        self._draining: set[str] = set()
        self._looked_at = float("-inf")

    def start(self) -> None:
        """One more actor, as soon as Ray finds a place for it."""
        actor = PoolActor(*start_worker(self._worker))
        self.actors.append(actor)
        self._owners[actor.setup_ref] = actor
        self._ask(actor)  # it answers as soon as it has a place

    def hand(self, actor: PoolActor, attempt: ShardAttempt) -> None:
        """Let a actor work on a shard."""
        attempt.tries += 1
        attempt.handed_at = attempt.moved_at = time.monotonic()
        ref = actor.handle.process.remote(replace(attempt.shard, attempt=attempt.tries))
        actor.shards[ref] = attempt
        self._owners[ref] = actor

    def drop(self, actor: PoolActor) -> None:
        """End an actor; whatever it still owes is forgotten."""
        self.actors.remove(actor)
        for ref in (actor.setup_ref, actor.progress_ref, *actor.shards):
            self._owners.pop(ref, None)
        ray.kill(actor.handle)

    def wait(self) -> list[Any]:
        """The references that are due, after WAIT_SECONDS at most. Take each with `owner`, then `complete`."""
        if not self._owners:
            time.sleep(WAIT_SECONDS / 2)
            return []
        everything = list(self._owners)
        due, _ = ray.wait(everything, num_returns=len(everything), timeout=0)
        if not due:
            # A report of progress is no reason to wake up.
            work = [ref for ref, actor in self._owners.items() if ref is not actor.progress_ref]
            due, _ = ray.wait(work or everything, num_returns=1, timeout=WAIT_SECONDS)
        return list(due)

    def owner(self, ref: Any) -> PoolActor | None:
        """Whose reference this is; None when its owner was dropped."""
        return self._owners.get(ref)

    def complete(self, ref: Any) -> ShardAttempt | None:
        """Forget a reference that was answered; returns the attempt where it was a shard's."""
        actor = self._owners.pop(ref)
        if ref == actor.progress_ref:
            actor.progress_ref = None
        completed = actor.shards.pop(ref, None)
        actor.heard_at = time.monotonic()
        if completed is not None:
            for attempt in actor.shards.values():  # which may have waited for it
                if attempt.handed_at > completed.handed_at:
                    attempt.moved_at = actor.heard_at
        return completed

    def is_ready(self, actor: PoolActor, node_id: str) -> float:
        """Note that an actor is ready, on that node; returns for how long it has set itself up, in seconds."""
        actor.ready = True
        actor.node_id = node_id
        now = time.monotonic()
        actor.placed_at = actor.placed_at or now
        return now - actor.placed_at

    def heard(self, actor: PoolActor, images: dict[int, int]) -> None:
        """Note how far an actor says it is with its shards: images finished, by shard number."""
        actor.placed_at = actor.placed_at or time.monotonic()
        for attempt in actor.shards.values():
            number = attempt.shard.number
            if images.get(number, 0) != actor.images.get(number, 0):
                attempt.moved_at = time.monotonic()
        actor.images = images

    def ask_progress(self) -> None:
        """Ask those that were not asked for a while how far they are."""
        now = time.monotonic()
        interval = poll_interval(len(self.actors))
        for actor in self.actors:
            if actor.ready and actor.progress_ref is None and now - actor.asked_at >= interval:
                actor.asked_at = now
                self._ask(actor)

    def _ask(self, actor: PoolActor) -> None:
        actor.progress_ref = actor.handle.progress.remote()
        self._owners[actor.progress_ref] = actor

    def watch_nodes(self) -> None:
        """See, now and then, which nodes there are, and who is on a node that is about to go."""
        now = time.monotonic()
        if now - self._looked_at < NODES_SECONDS:
            return
        self._looked_at = now
        try:
            self.nodes = cluster.nodes()
            draining = cluster.draining_nodes()
        except RayError as error:  # a head that restarts: what it cannot tell now it tells later
            log.warning("%s", key_values(nodes="unknown", error=error))
            return
        for node_id in draining - self._draining:
            here = sum(actor.node_id == node_id for actor in self.actors)
            if here:
                log.warning("%s", key_values(node=node_id[:12], state="draining", actors=here))
        self._draining |= draining
        for actor in self.actors:
            actor.leaving = actor.node_id in draining

    def will_be_lost(self, node_id: str | None) -> bool:
        """Whether a node is gone, or was being drained: a death there says nothing about the work."""
        return node_id is None or node_id in self._draining or not cluster.is_alive(node_id)

    def close(self) -> None:
        for actor in list(self.actors):
            self.drop(actor)
