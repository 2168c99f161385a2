"""How many actors a pool has and what each needs, and what the cluster lacks to place them."""

from dataclasses import dataclass, replace

import ray

from pipeline.actors import cluster
from pipeline.errors import PipelineError


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
