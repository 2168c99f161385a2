"""`fcn masks export`: the current masks of an output, in another format, somewhere else.

The one thing to know: images are gone through in the order of their keys, some hundred at a time (a part, see
`pipeline.exports.state`). Where a part ends depends on its keys alone, so that a few new images change a few parts.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from fcn_core import LabelSet
from fcn_core.errors import LabelError
from fcn_core.text.printable import printable
from pipeline.codec.processes import CodecPool
from pipeline.errors import (
    ImageError,
    InputError,
    LinkRefused,
    ObjectArchived,
    ObjectChanged,
    ObjectMissing,
    StorageError,
)
from pipeline.exports.classes import read_classes
from pipeline.exports.formats import EXPORT_FORMATS, export_format
from pipeline.exports.formats.base import ExportContext, Exported, ExportFormat, ExportOptions, MaskedImage
from pipeline.exports.room import PixelRoom
from pipeline.exports.selection import SelectedImage, Selection, select
from pipeline.exports.state import ExportState, WrittenPart
from pipeline.numbers import counted
from pipeline.outputs.current import choose_variant, current_records
from pipeline.outputs.masks import read_mask
from pipeline.outputs.runs import RunRecord, source_of
from pipeline.parallel import in_parallel
from pipeline.sources.source import Source
from pipeline.storage.opening import open_store
from pipeline.storage.store import ObjectInfo, Store, is_inside

AT_ONCE = 32
"""Images that are read and written at once."""

PIXELS_AT_ONCE = 64_000_000
"""Of masks, and of images where a format needs them; what is made of one pixel takes some 20 bytes."""

MOST_OF_A_PART = 4096
"""Images; a part has 256 on average."""

CODECS, CODEC_MEMORY_BYTES, IMAGE_SECONDS = 2, 2 << 30, 60.0

MOST_TOLERANCE = 1000

NAMED = 20
"""Images that are named of those that are missing."""

_FORMAT_VERSION = 1
_LONG_AGO = datetime.fromtimestamp(0, UTC)


@dataclass(slots=True)
class ExportReport:
    """What an export did. `kept` images were there already.

    `missing` are (key, why) of the first images that could not be read as they were segmented, of `without_image`.
    """

    images: int
    variants: tuple[str, ...]
    kept: int = 0
    without_image: int = 0
    missing: list[tuple[str, str]] = field(default_factory=list)


def export_masks(
    output: str,
    destination: str,
    recipe: str | None = None,
    *,
    format: str = "png",
    where: str | None = None,
    options: ExportOptions | None = None,
) -> ExportReport:
    """Export the current mask of every image, or of those that fit `where`, to `destination`; the same call again goes
    on with what is left, and brings what is there up to date.

    `format` is one of EXPORT_FORMATS. `recipe` names the variant, where there are several; default: the newest, with
    those below it where it redid only some images. An image's file is called as it is, with the format's suffix. Where
    two images would share a name (a.jpg and a.png), both keep their suffix (a.jpg.png). Files already there are
    replaced.

    Memory does not grow with the number of images, but for 16 bytes of each that several runs have rows of. Raises
    InputError where there is nothing to export, and StorageError where masks are lost or damaged; the others are
    exported then.
    """
    if format not in EXPORT_FORMATS:
        raise InputError(f"there is no format {format!r}; choose one of {', '.join(EXPORT_FORMATS)}")
    kind, options = export_format(format), options or ExportOptions()
    _check_options(format, kind, options)
    store = open_store(output)
    store.check_readable()
    chosen = current_records(store) if recipe is None else (choose_variant(store, recipe),)
    target = open_store(destination)
    source = _source(chosen[0], needed=kind.needs_pixels)
    _check_place(target, store, source)
    target.check_writable()
    variants = tuple(record.recipe for record in chosen)
    labels = read_classes(store, variants) if kind.needs_labels else None
    with select(store, recipe, where, kind.suffix) as selection, ExitStack() as stack:
        if not len(selection):
            fits = "" if where is None else " that fits the condition"
            raise InputError(f"there is no mask{fits} under {store.uri}, so nothing is exported")
        codecs = None
        if source is not None and kind.needs_pixels:
            source.check_readable()
            codecs = stack.enter_context(CodecPool(CODECS, CODEC_MEMORY_BYTES, IMAGE_SECONDS))
        context = ExportContext(options, labels)
        export = _Export(format, kind(context), context, selection, store, target, source, codecs)
        report = ExportReport(len(selection), variants)
        export.run(report)
    return report


def _check_options(name: str, kind: type[ExportFormat], options: ExportOptions) -> None:
    if not 0 <= options.tolerance <= MOST_TOLERANCE:
        raise InputError(f"--tolerance must be 0 to {MOST_TOLERANCE:,} pixels, not {options.tolerance:g}")
    if options.min_area < 0:
        raise InputError(f"--min-area must be 0 pixels or more, not {options.min_area}")
    for option, value in asdict(options).items():
        if value and option not in kind.takes:
            takers = ", ".join(each for each in EXPORT_FORMATS if option in export_format(each).takes)
            raise InputError(f"--{option.replace('_', '-')} is nothing that {name} has; it is for {takers}")


def _source(record: RunRecord, *, needed: bool) -> Source | None:
    try:
        return source_of(record)
    except InputError:  # of a source that can no longer be named, masks are there all the same
        if needed:
            raise
        return None


def _check_place(target: Store, output: Store, source: Store | None) -> None:
    if is_inside(target.location, output.location):
        raise InputError(f"{target.uri} lies inside the output {output.uri}; choose another DEST")
    if source is not None and is_inside(target.location, source.location):
        raise InputError(
            f"{target.uri} lies inside the source {source.uri}, where files would be taken for images, or replace "
            "some; choose another DEST"
        )


class _LostMask(Exception):
    """A mask that is not there, or not the one that was committed."""


class _Unseen(Exception):
    """An image that cannot be read as it was when it was segmented."""


@dataclass(frozen=True, slots=True)
class _Part:
    digest: str
    images: Sequence[SelectedImage]


class _Export:
    def __init__(
        self,
        name: str,
        format: ExportFormat,
        context: ExportContext,
        selection: Selection,
        output: Store,
        target: Store,
        source: Source | None,
        codecs: CodecPool | None,
    ) -> None:
        self._name, self._format, self._context = name, format, context
        self._selection, self._output, self._target = selection, output, target
        self._source, self._codecs = source, codecs
        self._state = ExportState(target)
        self._room = PixelRoom(PIXELS_AT_ONCE)
        self._lost, self._first_lost = 0, ""

    def run(self, report: ExportReport) -> None:
        state, document = self._state, self._format.document
        wanted = {part.digest: None for part in self._parts()}  # in the order of keys
        whole = hashlib.sha256("".join(wanted).encode()).hexdigest()
        state.open(self._name)
        if state.finished() == whole and self._is_there(document):
            report.kept = report.images
            return
        state.reopen()
        if document is not None:
            self._target.delete(document)
        for file in state.undo(wanted):
            if not self._selection.names.is_used(file.removeprefix(self._format.folder or "")):
                self._target.delete(file)
        for part in self._parts():
            if state.is_done(part.digest):
                report.kept += len(part.images)
            else:
                self._write(part, report)
        if self._lost:
            unwritten = "" if document is None else f", but {document} is not written"
            raise StorageError(
                f"{counted(self._lost, 'mask')} cannot be exported, such as {self._first_lost}; make them again by the "
                f"same `fcn segment` with --repair, then export again. The others are exported{unwritten}"
            )
        if document is not None:
            self._write_document(document, list(wanted))
        if not report.without_image:
            state.finish(whole, {"images": report.images})

    def _is_there(self, document: str | None) -> bool:
        if document is None:
            return True
        try:
            self._target.head(document)
        except ObjectMissing:
            return False
        return True

    def _parts(self) -> Iterator[_Part]:
        """The images in the order of their keys. A part ends after one in 256 keys, by their digests."""
        held: list[SelectedImage] = []
        for image in self._selection:
            held.append(image)
            ends = hashlib.blake2b(image.key.encode(), digest_size=1).digest() == b"\0"
            if ends or len(held) == MOST_OF_A_PART:
                yield self._part(held)
                held = []
        if held:
            yield self._part(held)

    def _part(self, images: Sequence[SelectedImage]) -> _Part:
        """A part's digest is of all that its files depend on."""
        labels = self._context.known_labels
        about = [_FORMAT_VERSION, self._name, asdict(self._context.options)]
        about.append(None if labels is None else [labels.names, labels.palette])
        found = hashlib.sha256(json.dumps(about).encode())
        for image in images:
            seen = [image.etag, image.size] if self._format.needs_pixels else []
            mask = image.mask_sha256 or image.mask_key
            found.update(json.dumps([image.key, image.name, mask, *seen]).encode() + b"\n")
        return _Part(found.hexdigest()[:32], images)

    def _write(self, part: _Part, report: ExportReport) -> None:
        folder = self._format.folder
        files = [] if folder is None else [folder + image.name for image in part.images]
        self._state.begin(part.digest, files)
        records: list[str] = []
        missing = 0
        entries = [ObjectInfo(image.key, image.etag, image.size, _LONG_AGO) for image in part.images]
        with ExitStack() as stack:
            if self._codecs is not None and self._source is not None:
                stack.enter_context(self._source.expecting(entries))
            for image, made in zip(part.images, self._all(part.images), strict=True):
                if isinstance(made, Exported):
                    records += made.records
                    continue
                missing += 1
                if folder is not None:  # of a mask before this one
                    self._target.delete(folder + image.name)
                if isinstance(made, _LostMask):
                    self._first_lost = self._first_lost or f"that of {printable(image.key)!r}: {made}"
                    self._lost += 1
                    continue
                report.without_image += 1
                if len(report.missing) < NAMED:
                    report.missing.append((image.key, str(made)))
        self._state.done(part.digest, WrittenPart(files, records), missing)

    def _all(self, images: Sequence[SelectedImage]) -> Iterator[Exported | _LostMask | _Unseen]:
        return in_parallel(self._one, images, threads=AT_ONCE, ahead=1, name="export")

    def _one(self, image: SelectedImage) -> Exported | _LostMask | _Unseen:
        """Write one image's file. What is wrong with it alone is returned, all else is raised."""
        try:
            with self._room.of(image.width * image.height * (4 if self._codecs else 1)):
                made = self._format.write(self._read(image))
        except (_LostMask, _Unseen) as error:
            return error
        except LabelError as error:
            return _LostMask(str(error))
        if made.file is not None:
            self._target.put(f"{self._format.folder or ''}{image.name}", made.file)
        return Exported(records=made.records)

    def _read(self, image: SelectedImage) -> MaskedImage:
        try:
            png = read_mask(self._output, image.mask_key)
        except ObjectMissing as error:
            raise _LostMask(str(error)) from error
        if image.mask_sha256 is not None and hashlib.sha256(png).hexdigest() != image.mask_sha256:
            raise _LostMask(f"{image.mask_key} is not the mask that was committed")
        labels: LabelSet | None = self._context.known_labels
        masked = MaskedImage(image.key, image.name, png, 255 if labels is None else labels.num_classes)
        if self._codecs is None or self._source is None:
            return masked
        try:
            data = self._source.get(image.key, size=image.size, etag=image.etag)
            pixels = self._codecs.decode_now(data).pixels
        except (ObjectMissing, ObjectChanged, ObjectArchived, LinkRefused, ImageError) as error:
            raise _Unseen(str(error)) from error
        if pixels.shape[:2] != masked.mask.shape:
            raise _Unseen(f"it is {pixels.shape[1]}x{pixels.shape[0]}, its mask {image.width}x{image.height}")
        return MaskedImage(image.key, image.name, png, masked.num_classes, pixels)

    def _write_document(self, name: str, parts: Sequence[str]) -> None:
        """The document, first on this machine's disk: it may be too large for memory."""
        with TemporaryDirectory(prefix="fcn-export-") as folder:
            path = Path(folder) / "document"
            with path.open("w", encoding="utf-8", newline="\n") as file:
                file.writelines(self._format.lines(_Records(self._state, parts)))
            self._target.put_file(name, path)


class _Records:
    """The records of all parts, which can be gone through again."""

    def __init__(self, state: ExportState, parts: Sequence[str]) -> None:
        self._state, self._parts = state, parts

    def __iter__(self) -> Iterator[str]:
        for part in self._parts:
            yield from self._state.read(part).records
