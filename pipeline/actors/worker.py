"""The Ray actor that works on shards, and the one place where such actors are made.

The actor knows nothing of images: what it does with a shard is a `Processor`, built inside it by a factory.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.outputs.plan import Shard
from pipeline.storage.store import ObjectInfo

SHARDS_IN_FLIGHT = 2
"""Shards an actor works on at once: the next one loads while the last one is being written."""


class Processor(Protocol):
    """What runs inside an actor."""

    def process(self, shard: Shard) -> Any:
        """Work on a shard and commit it. Called from SHARDS_IN_FLIGHT threads."""

    def probe(self, entry: ObjectInfo) -> None:
        """Do all that `process` does with one image, and keep nothing of it. Raises whatever goes wrong."""

    def progress(self) -> dict[int, int]:
        """Images finished in each shard at work."""


@dataclass(frozen=True)
class WorkerSpec:
    """What an actor needs, and how its Processor is made: `factory(*args)`; `args` may be Ray object references."""

    cpus: float
    gpus: float
    factory: Callable[..., Processor]
    args: tuple[Any, ...] = ()


class _ShardWorker:
    """The actor. `setup` is apart from the constructor so that its exceptions arrive as they are."""

    def setup(self, factory: Callable[..., Processor], *args: Any) -> str:
        """Build the processor; returns the id of the node this is."""
        self._processor = factory(*args)
        return str(ray.get_runtime_context().get_node_id())

    def process(self, shard: Shard) -> Any:
        return self._processor.process(shard)

    def probe(self, entry: ObjectInfo) -> None:
        self._processor.probe(entry)

    @ray.method(concurrency_group="control")
    def progress(self) -> dict[int, int]:
        # The actor is reachable before `setup` has finished.
        processor = getattr(self, "_processor", None)
        return processor.progress() if processor else {}


# Control calls have threads of their own, so that they never wait behind shards. Ray's type hints know nothing of this.
_SHARD_ACTOR: Any = ray.remote(concurrency_groups={"control": 2})(_ShardWorker)  # type: ignore[call-overload]


def start_worker(spec: WorkerSpec, node_id: str | None = None) -> tuple[Any, Any]:
    """A new actor's handle, and the reference that resolves to its node's id once it is ready.

    With `node_id` it runs there or not at all; else Ray spreads actors over the nodes.
    """
    strategy = NodeAffinitySchedulingStrategy(node_id, soft=False) if node_id else "SPREAD"
    handle = _SHARD_ACTOR.options(
        num_cpus=spec.cpus,
        num_gpus=spec.gpus,
        max_concurrency=SHARDS_IN_FLIGHT,
        scheduling_strategy=strategy,
        max_restarts=0,
    ).remote()
    return handle, handle.setup.remote(spec.factory, *spec.args)
