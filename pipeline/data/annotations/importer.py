"""What every importer is: files in, masks of one label set out.

To add a format, write a module with a `FORMAT` and give it a line in `pipeline.data.annotations.formats`. An importer
raises InputError for a source that makes no sense as a whole, and yields a LeftOut for an image that cannot be used.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from fcn_core.labels import RGB, Mask
from pipeline.data.annotations.class_map import ClassMap
from pipeline.data.annotations.source_files import SourceFiles


@dataclass(frozen=True, slots=True)
class SourceClass:
    """A class as the source calls it, with its colour there, if it has one."""

    name: str
    color: RGB | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Annotated:
    """One annotated image.

    `key`: the image as the annotation names it. `mask`: uint8 [H, W], classes of the target label set, 255 (its ignore
    index) where there is none. `image`: the image's file in the source, None if it is not there. `split`: "train",
    "val", "test" or another name if the source says so. `notes`: what was left out or odd, one sentence each.
    """

    key: str
    mask: Mask
    image: str | None = None
    split: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An image, or a record of the source, that cannot be used, and why."""

    key: str
    why: str


class Importer(Protocol):
    """One source, opened."""

    def classes(self) -> Sequence[SourceClass]:
        """The classes that the source declares, in its order; without those that mean "no label"."""

    def annotated(self, classes: ClassMap) -> Iterator[Annotated | LeftOut]:
        """Every annotated image, one at a time."""


@dataclass(frozen=True, slots=True)
class Format:
    """One format of annotations. `recognises` looks at names and at the beginning of a few files only."""

    name: str
    summary: str
    recognises: Callable[[SourceFiles], bool]
    open: Callable[[SourceFiles], Importer]
