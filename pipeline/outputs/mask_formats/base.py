"""The seam for masks: what everything else asks of an output format.

A format decides in which files masks lie, and what a row's `mask_key` is. Results, planning and commits are the same
with every format, and masks of several formats may lie side by side in an output.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from fcn_core import LabelSet
from pipeline.outputs.identity import Identity, Recipe
from pipeline.outputs.results import ResultRow
from pipeline.outputs.shard import Shard
from pipeline.storage.store import Store


@dataclass(frozen=True)
class PredictedMask:
    """An image with its mask as PNG; the row does not say yet where that lies."""

    row: ResultRow
    png: bytes


@dataclass(frozen=True)
class MaskTarget:
    """Where the masks of one shard go: those of a run of that generation (`pipeline.outputs.generation`)."""

    output: Store
    recipe: Recipe
    labels: LabelSet
    shard: Shard
    generation: int = 0


@dataclass(frozen=True, slots=True)
class MaskFile:
    """What the name of a file of masks says.

    `holds` is the name without recipe and generation: it stands for one image, or one shard, in any run.
    """

    recipe: str
    holds: str
    generation: int


class MaskWriter(Protocol):
    """Writes the masks of one shard, all create-only: a file that is there already is never replaced by other masks."""

    def write(self, image: PredictedMask) -> ResultRow | None:
        """Write a mask at once and return its row; None where the format writes it with others, at the end.

        Called from many threads and in any order.
        """

    def add(self, index: int, image: PredictedMask) -> bool:
        """Take the mask of the shard's image `index` for the end; False where there is no room for it.

        Called only after `write` returned None, by one thread, in an order that depends on the shard alone.
        """

    def finish(self) -> tuple[dict[int, ResultRow], dict[int, PredictedMask]]:
        """Write what `add` took. Returns the rows by index, and the images that could not be written like that.

        These, and those for which there was no room, are then written as objects.
        """


class MaskFormat(Protocol):
    """One way to keep masks under OUTPUT. Has no state: one object serves all threads."""

    folder: str
    """The folder under OUTPUT in which all its files lie, by the name of their recipe: `<folder>/<recipe>/...`"""

    is_shared: bool
    """Whether a file holds the masks of many images."""

    overhead_bytes: int
    """Stored bytes per mask beside its PNG, about."""

    def puts(self, images: int, shards: int) -> int:
        """Requests that write the masks of so many images in so many shards."""

    def writer(self, target: MaskTarget) -> MaskWriter:
        """What writes the masks of one shard."""

    def read(self, store: Store, mask_key: str) -> bytes:
        """The PNG of a row's `mask_key`. Raises ObjectMissing where it is no longer there."""

    def file(self, mask_key: str) -> str:
        """The name under OUTPUT of the file that holds the mask."""

    def is_place(
        self, mask_key: str, recipe: Recipe, image: Identity, shard: int | None, generations: Collection[int]
    ) -> bool:
        """Whether the mask of `image` may lie there: written with that shard (None: any), in one of the generations."""

    def parse(self, file: str) -> MaskFile | None:
        """What a name under OUTPUT says; None where no mask of this format is so called."""

    def names(self, shard: Shard) -> Iterator[str]:
        """`MaskFile.holds` of every file that may yet be written for the shard."""

    def extract(self, data: bytes, mask_key: str) -> bytes:
        """The mask of `mask_key` out of the bytes of its file."""

    def problems(self, file: str, data: bytes, mask_keys: Sequence[str]) -> Iterable[str]:
        """What is wrong with a shared file in which the masks of these rows lie, in words."""
