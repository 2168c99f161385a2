"""`open_annotations`: any annotations that people bring, image by image, as masks of one label set.

for key, mask, notes in open_annotations("export.zip", preset("camvid")):
    ...
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from fcn_core.labels import LabelSet, Mask
from pipeline.data.annotations.class_map import ClassMap
from pipeline.data.annotations.formats import FORMATS, format_named
from pipeline.data.annotations.importer import Annotated, Format, Importer, LeftOut, SourceClass
from pipeline.data.annotations.source_files import SourceFiles, open_files
from pipeline.errors import InputError


class AnnotatedMask(NamedTuple):
    """One annotated image: its key as the annotation names it, its mask uint8 [H, W], and what was odd."""

    key: str
    mask: Mask
    notes: tuple[str, ...]


@dataclass
class AnnotationSource:
    """Annotations of a known format. Iterating yields an AnnotatedMask per usable image, one at a time; what cannot be
    used is in `left_out` afterwards.
    """

    files: SourceFiles
    format: Format
    importer: Importer
    class_map: ClassMap | None
    left_out: list[LeftOut] = field(default_factory=list)

    def classes(self) -> list[SourceClass]:
        """The classes that the source declares."""
        return list(self.importer.classes())

    def images(self, class_map: ClassMap) -> Iterator[Annotated | LeftOut]:
        """Every image in full, what cannot be used included; first of all what the archive itself makes unusable."""
        for name, why in self.files.refused:
            yield LeftOut(name, why)
        yield from self.importer.annotated(class_map)

    def __iter__(self) -> Iterator[AnnotatedMask]:
        if self.class_map is None:
            raise InputError(f"{self.files.uri} was opened without a label set; give one to read its masks")
        self.left_out.clear()
        for item in self.images(self.class_map):
            if isinstance(item, LeftOut):
                self.left_out.append(item)
            else:
                yield AnnotatedMask(item.key, item.mask, item.notes)


def open_annotations(
    source: str,
    labels: LabelSet | None,
    format: str = "auto",
    *,
    rules: Mapping[str, str] | None = None,
    unlabelled: str | None = None,
    follow_links: bool = False,
) -> AnnotationSource:
    """Open a folder, bucket, .zip or .json of annotations.

    Classes are mapped to `labels` by `rules` and by name (see ClassMap); pixels without an annotation become class
    `unlabelled`, or the ignore index. None for `labels` opens the source to see which classes it has.

    Raises InputError for a source that cannot be read, or is of no known format.
    """
    files = open_files(source, follow_links=follow_links)
    found, files = _recognised(files) if format == "auto" else (_asked(format), files)
    if format != "auto" and not found.recognises(files) and (inside := files.inside()) is not None:
        files = inside
    class_map = None if labels is None else ClassMap(labels, rules, unlabelled)
    return AnnotationSource(files, found, found.open(files), class_map)


def recognised_format(files: SourceFiles) -> str | None:
    """The name of the format that these annotations are in; None where that is not one of FORMATS."""
    inside = files.inside()
    sources = (files,) if inside is None else (files, inside)
    return next((name for each in sources for name in FORMATS if format_named(name).recognises(each)), None)


def _asked(name: str) -> Format:
    if name not in FORMATS:
        raise InputError(f"there is no format {name!r}; choose auto, {', '.join(FORMATS)}")
    return format_named(name)


def _recognised(files: SourceFiles) -> tuple[Format, SourceFiles]:
    inside = files.inside()
    for each in (files,) if inside is None else (files, inside):
        for name in FORMATS:
            found = format_named(name)
            if found.recognises(each):
                return found, each
    refused = f" ({files.refused[0][0]!r}: {files.refused[0][1]})" if files.refused else ""
    raise InputError(
        f"{files.uri} has {len(files.names):,} files and is of no format that is recognised{refused}; it should be "
        f"one of {', '.join(FORMATS)}: name it with --format, or see docs/annotations.md for what each expects"
    )
