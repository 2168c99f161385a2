"""A shard, the piece of work that is handed out and committed as a whole.

Apart from the plan, which needs Arrow: a worker process that knows shards alone starts in half the time.
"""

from dataclasses import dataclass

from pipeline.storage.store import ObjectInfo


@dataclass(frozen=True, slots=True)
class Earlier:
    """The image at `index` of a shard is reconfirmed: its row is the one in this shard of that run."""

    index: int
    run_id: str
    shard: int


@dataclass(frozen=True, slots=True)
class Shard:
    """A piece of a run that is committed as a whole: its number, and its images in plan order.

    `culprits` are keys of images that were found to kill the process that works on them; they are not touched again.
    `attempt` counts from 1 how often the shard was handed to an actor. `insist`: others could do nothing with it
    either, so it is committed even if every row is an error that may pass. `earlier` has the reconfirmed images.
    """

    number: int
    entries: tuple[ObjectInfo, ...]
    culprits: frozenset[str] = frozenset()
    attempt: int = 1
    insist: bool = False
    earlier: tuple[Earlier, ...] = ()

    def first_worked_on(self) -> ObjectInfo | None:
        """The first image that an actor does any work on: neither a culprit nor reconfirmed."""
        again = {each.index for each in self.earlier}
        worked_on = (
            entry for index, entry in enumerate(self.entries) if index not in again and entry.key not in self.culprits
        )
        return next(worked_on, None)
