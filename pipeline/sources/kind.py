"""The seam for containers: what a kind of file that holds images must offer.

To add a kind, write a module with a `ContainerKind` and give it a line in `pipeline.sources.kinds`.
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

from pipeline.errors import ImageError
from pipeline.sources.member import Address, Fault, Member
from pipeline.sources.range_scanner import RangeScanner
from pipeline.storage.store import Store


class NoImages(Exception):
    """A file that is named like a container and holds nothing that is taken for images; it is left out."""


class ContainerKind(Protocol):
    """One kind of container. Has no state: one object serves all threads."""

    suffix: str
    """How the keys of its files end, in lower case: ".tar"."""

    holds_others: bool
    """Whether a member may be something else than an image: then it is one if it is named like one."""

    span_bytes: int | None
    """How many bytes of members are read with one request, about; None where the kind decides."""

    def members(self, file: RangeScanner, image_column: str | None = None) -> Iterator[Member | Fault]:
        """What is in a container, in the order in which it is read best, with what cannot be read of it.

        A `Fault` without a name is the last that comes. Memory does not grow with the number of members.
        `image_column` is for kinds that have columns. Raises NoImages, InputError where an option is needed, and
        StorageError for trouble that is the storage's.
        """

    def follows(self, first: Address, second: Address) -> bool:
        """Whether both are to be read in one go: `second` lies behind `first` in one container, and not far."""

    def read(self, store: Store, places: Sequence[Address]) -> Iterator[bytes | ImageError]:
        """The bytes of members of one container that follow each other, one by one, with as few requests as may be; or
        why there are none.

        Raises StorageError, and ObjectChanged where the container is no longer the one that was listed.
        """

    def explain(self, fault: Fault) -> str:
        """What a fault means and what to do, as a clause that goes on after the container's or member's name."""
