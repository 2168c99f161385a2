"""How many actors a pool has and what each needs, and what the cluster lacks to place them."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import ray

from pipeline.actors import cluster
from pipeline.errors import PipelineError

NOTICE_SECONDS = 45.0
"""If no actor has been placed after so long, the run reports what is missing, or ends where nothing can change."""


@dataclass(frozen=True)
class PoolSpec:
    """How many actors, and what each needs. With `grow_to` up to so many, as soon as nodes join that have the room."""

    actors: int
    cpus: float
    gpus: float = 0.0
    placement_timeout: float = 60.0
    grow_to: int | None = None

    def limited_to(self, shards: int) -> "PoolSpec":
        """The same with no more actors than there are shards."""
        grow_to = None if self.grow_to is None else min(self.grow_to, shards)
        return replace(self, actors=min(self.actors, shards), grow_to=grow_to)


def refuse_impossible(spec: PoolSpec) -> None:
    """Raise PipelineError where no actor can ever be placed: no node is large enough, and no other will come."""
    if not cluster.count_fitting(cluster.nodes(), spec.cpus, spec.gpus) and cluster.is_fixed():
        raise PipelineError(
            f"no actor can be placed: {missing_resources(spec)}; no node is large enough, and the cluster has no "
            "autoscaler to add one"
        )


def missing_resources(spec: PoolSpec) -> str:
    """What keeps an actor from being placed, in words."""
    total, free = ray.cluster_resources(), ray.available_resources()
    needs = [(name, amount) for name, amount in (("CPU", spec.cpus), ("GPU", spec.gpus)) if amount]
    wanted = " and ".join(f"{amount:g} {name}" for name, amount in needs)
    have = ", ".join(f"{name}: {free.get(name, 0):g} of {total.get(name, 0):g} free" for name, _ in needs)
    return f"each needs {wanted} on one node, and the cluster has {have}"


class PlacementWatch:
    """Says what is missing when no actor has had a place for a while, and gives up in the end."""

    def __init__(self, spec: PoolSpec, on_note: Callable[[str], None]) -> None:
        self._spec = spec
        self._on_note = on_note
        self._since = time.monotonic()
        self._notified = False
        self._failures = 0

    def look(self, *, has_place: bool, failures: int, again: bool) -> None:
        """Note whether any actor has its place, or had it and failed, so many in a row, before it was ready.

        `again`: whether one had it before. Raises PipelineError.
        """
        now = time.monotonic()
        came, self._failures = failures > self._failures, failures
        if has_place or came:
            self._since = now
            self._notified = False
            return
        waited = now - self._since
        if waited >= self._spec.placement_timeout:
            raise PipelineError(
                f"no actor could be placed within {self._spec.placement_timeout:.0f} s: {missing_resources(self._spec)}"
            )
        if waited >= NOTICE_SECONDS and not self._notified:
            self._notified = True
            refuse_impossible(self._spec)
            which = "an actor again" if again else "the first actor"
            self._on_note(f"still waiting for {which}: {missing_resources(self._spec)}")
