"""What the process of a lone worker sends to its driver. A module of its own, because that process runs another as its
main module, whose classes have no name elsewhere.
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Ready:
    """The processor is built."""


@dataclass(frozen=True)
class Progress:
    """Images finished in each shard at work, by its number."""

    images: dict[int, int]


@dataclass(frozen=True)
class Done:
    """A shard is committed; `value` is what the processor returned."""

    shard: int
    value: Any


@dataclass(frozen=True)
class Failed:
    """A shard, or where it is None the start, has raised this."""

    shard: int | None
    error: Exception


Answer = Ready | Progress | Done | Failed
