"""Why an actor died, where it was for want of memory or disk: by the kernel's counter, the disk, and Ray's own words.

Ray says of nearly every death that the process ended unexpectedly. What it lacked is known on its node alone, so that
is asked there.
"""

import shutil
from dataclasses import dataclass
from typing import Any, Literal

import ray
from ray._private import worker as ray_worker
from ray.exceptions import OutOfDiskError, OutOfMemoryError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline import container
from pipeline.actors.ray_words import plain
from pipeline.numbers import size

ASK_SECONDS = 5.0
"""How long a node may take to say how it is."""

FULL_DISK = 0.05
"""Ray itself takes a disk for full when less than this share of it is free."""

REMEDIES = {
    "memory": "give fewer --actors, a lower --image-memory or --batch-size, or a machine or container with more memory",
    "disk": "free it (`df` shows it; sessions of Rays that no longer run may go), or set RAY_TMPDIR to a larger disk",
}
_DISK_WORDS = ("No space left on device", "OutOfDiskError", "utilization is over capacity", "file system is over")


@dataclass(frozen=True)
class NodeState:
    """What a node says of itself. `oom_kills` counts processes that the kernel has ended for want of memory."""

    oom_kills: int | None
    memory_limit: int | None
    disk: str
    disk_free: int
    disk_total: int


@dataclass(frozen=True)
class Cause:
    """What there was too little of, in words for a person, and what to do."""

    lacks: Literal["memory", "disk"]
    text: str

    def __str__(self) -> str:
        return f"{self.text}; {REMEDIES[self.lacks]}"


def look() -> NodeState:
    """How the node of this process is."""
    node: Any = ray_worker._global_node
    disk = str(node.get_session_dir_path()) if node is not None else "/tmp"
    usage = shutil.disk_usage(disk)
    return NodeState(container.oom_kills(), container.memory_limit(), disk, usage.free, usage.total)


class Deaths:
    """Remembers what the nodes said, so that it can tell what has changed since. Needs a connected Ray."""

    def __init__(self) -> None:
        self._here = ray.get_runtime_context().get_node_id() if _is_private() else None
        self._kills: dict[str, int] = {}
        if self._here is not None:
            self.note(self._here, container.oom_kills())

    def note(self, node_id: str, oom_kills: int | None) -> None:
        """Take note of a node's counter while all is well there. The first counts."""
        if oom_kills is not None:
            self._kills.setdefault(node_id, oom_kills)

    def cause(self, node_id: str | None, error: BaseException) -> Cause | None:
        """What an actor on that node lacked; None where nothing points to memory or disk."""
        if isinstance(error, OutOfMemoryError):
            return Cause("memory", f"Ray ended it because its node ran out of memory ({plain(error)})")
        if isinstance(error, OutOfDiskError) or any(word in str(error) for word in _DISK_WORDS):
            return Cause("disk", f"a disk on its node is full ({plain(error)})")
        node_id = node_id or self._here
        state = self._ask(node_id) if node_id is not None else None
        if state is None or node_id is None:
            return None
        before = self._kills.get(node_id)
        if state.oom_kills is not None:
            self._kills[node_id] = state.oom_kills
            if before is not None and state.oom_kills > before:
                return Cause("memory", _killed(state.oom_kills - before, state.memory_limit))
        if state.disk_free < FULL_DISK * state.disk_total:
            return Cause("disk", f"the disk of Ray's session is full ({size(state.disk_free)} free at {state.disk})")
        return None

    def _ask(self, node_id: str) -> NodeState | None:
        if node_id == self._here:
            return look()
        there = NodeAffinitySchedulingStrategy(node_id, soft=False)
        asked: Any = ray.remote(look)
        try:
            state: NodeState = ray.get(
                asked.options(num_cpus=0, max_retries=0, scheduling_strategy=there).remote(), timeout=ASK_SECONDS
            )
        except RayError:  # a node that cannot answer in time may have the very trouble, or be gone
            return None
        return state


def _killed(count: int, limit: int | None) -> str:
    processes = "a process" if count == 1 else f"{count} processes"
    whose = "" if limit is None else f"; its container may take {size(limit)}"
    return f"the kernel ended {processes} there for want of memory{whose}"


def _is_private() -> bool:
    """Whether this process started the Ray that it is connected to, so that its head shares this container."""
    node: Any = ray_worker._global_node
    return node is not None and bool(node.head)
