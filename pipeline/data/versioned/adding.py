"""Makes the first version of a data set from annotations, or the next one from corrections and more images.

Corrections replace by image: the image's key, what images.csv says of a copy, or the image's own bytes. Files are
written as they come, under the names of their digests; the version is written last, so that nothing is ever half there.
"""

import csv
import hashlib
import io
import json
import os
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from fcn_core.data.datasets import decode_displayed
from fcn_core.decoding import turned
from fcn_core.errors import DataError, LabelError
from fcn_core.labels import LabelSet, encode_mask, find_labels, parse_labels
from pipeline.codec.processes import CodecPool
from pipeline.csv_text import original
from pipeline.data.annotations.class_map import ClassMap
from pipeline.data.annotations.importer import Annotated, LeftOut, SourceClass
from pipeline.data.annotations.opening import AnnotationSource, open_annotations
from pipeline.data.annotations.source_files import LARGEST_IMAGE, short
from pipeline.data.orientation import fits_better_turned
from pipeline.data.versioned.report import AddReport
from pipeline.data.versioned.splits import Grouping, choose_splits, group_splits
from pipeline.data.versioned.versions import VersionRow, digest_of, numbers, read_version, store_file, write_version
from pipeline.errors import InputError, ObjectExists, ObjectMissing, StorageError, StorageUnavailable
from pipeline.jobs.importing import AddOptions, ImportOptions
from pipeline.parallel import in_parallel
from pipeline.sources.opening import open_source
from pipeline.storage.opening import open_store, read_object
from pipeline.storage.store import Store

LABELS_FILE = "labels.json"
_AT_ONCE = 4
_SUFFIX = re.compile(r"\.[a-z0-9]{1,5}")
_NAMES_FILE = "images.csv"


def import_dataset(
    source: str, dataset: str, options: ImportOptions, on_image: Callable[[int], None] = lambda done: None
) -> AddReport:
    """Make version 1 of the data set at `dataset`. Raises InputError, also for one that has versions already."""
    store = _writable(dataset)
    if numbers(store):
        raise InputError(f"{dataset} is a data set already; `fcn data add {dataset} {source}` makes its next version")
    labels = _labels(options, source, dataset)
    return _Addition(store, labels, (), 1, source, options).run(on_image)


def add_to_dataset(
    dataset: str, source: str, options: AddOptions, on_image: Callable[[int], None] = lambda done: None
) -> AddReport:
    """Make the next version of a data set. Raises InputError, also for one that has none yet."""
    store = _writable(dataset)
    found = numbers(store)
    if not found:
        raise InputError(f"{dataset} has no versions; `fcn data import {source} -o {dataset}` makes the first")
    try:
        labels = parse_labels(store.get(LABELS_FILE), f"{dataset}/{LABELS_FILE}")
    except (StorageError, LabelError) as error:
        raise InputError(str(error)) from error
    return _Addition(store, labels, read_version(store, found[-1]).rows, found[-1] + 1, source, options).run(on_image)


def _writable(dataset: str) -> Store:
    store = open_store(dataset)
    try:
        store.check_writable()
    except StorageError as error:
        raise InputError(str(error)) from error
    return store


def _labels(options: ImportOptions, source: str, dataset: str) -> LabelSet:
    if options.labels is not None:
        try:
            if options.labels.lower().endswith(".json"):
                return parse_labels(read_object(options.labels), options.labels)
            return find_labels(options.labels)
        except (StorageError, LabelError) as error:
            raise InputError(str(error)) from error
    opened = open_annotations(source, None, options.format, follow_links=options.follow_links)
    name = posixpath.basename(dataset.split("?")[0].rstrip("/")) or "classes"
    return labels_of(opened.classes(), name, options.rules(), options.unlabelled)


def labels_of(
    classes: list[SourceClass], name: str, rules: Mapping[str, str], unlabelled: str | None = None
) -> LabelSet:
    """The label set that a source's own classes make, less those that a rule gives another name or none.

    Raises InputError for none, for more than 255, and for names that cannot be printed.
    """
    names = dict.fromkeys(
        [*([unlabelled] if unlabelled else []), *(rules.get(each.name, each.name) for each in classes)]
    )
    names.pop("ignore", None)
    if not names:
        raise InputError("the source declares no classes; say with --labels which ones its masks have")
    if len(names) > 255:
        raise InputError(
            f"the source has {len(names):,} classes, and a mask holds 255; say with --labels which are wanted, and "
            "with --map what the others are"
        )
    colors = {each.name: each.color for each in classes if each.color is not None}
    palette = [colors.get(each) for each in names]
    values: dict[str, object] = {"name": name, "names": list(names)}
    if None not in palette and len(set(palette)) == len(palette):
        values["palette"] = palette
    try:
        return parse_labels(json.dumps(values).encode(), "the source's classes")
    except LabelError as error:
        raise InputError(f"{error}; give others with --labels") from error


@dataclass(frozen=True, slots=True)
class _Pictured:
    """An annotated image with its bytes: `row` is the one that it corrects, if any."""

    item: Annotated
    key: str
    row: VersionRow | None
    data: bytes
    digest: str


@dataclass(frozen=True, slots=True)
class _Stored:
    """An image and its mask, written."""

    key: str
    row: VersionRow | None
    image: str
    mask: str
    split: str | None
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Counts:
    added: int
    corrected: int
    unchanged: int
    splits: dict[str, int]
    notes: tuple[str, ...]


@dataclass
class _Addition:
    """One import or addition, with what its steps share."""

    store: Store
    labels: LabelSet
    rows: tuple[VersionRow, ...]
    number: int
    source: str
    options: AddOptions
    _left_out: list[tuple[str, str]] = field(default_factory=list)

    def run(self, on_image: Callable[[int], None]) -> AddReport:
        options = self.options
        grouping = Grouping(options.group)
        opened = open_annotations(
            self.source, self.labels, options.format, rules=options.rules(), unlabelled=options.unlabelled,
            follow_links=options.follow_links,
        )  # fmt: skip
        assert opened.class_map is not None, "it was opened with labels"
        finder = _Finder(opened, self.rows, self.store, options)
        stored: dict[str, _Stored] = {}
        done = 0
        with CodecPool(len(os.sched_getaffinity(0))) as codecs:
            for key, outcome in self._all(opened, opened.class_map, finder, codecs):
                done += 1
                on_image(done)
                if isinstance(outcome, str):
                    self._left_out.append((key, outcome))
                elif outcome.key in stored:
                    self._left_out.append(
                        (key, f"another annotation of the source is of this image ({outcome.key}), too")
                    )
                else:
                    stored[outcome.key] = outcome
        rows, counts = self._rows(stored, grouping)
        changed = [row for row in rows if row.version == self.number]
        if changed and not options.dry_run:
            self._write(rows, opened.format.name)
        ignore = opened.class_map.unmapped()
        notes = Counter(note for each in stored.values() for note in each.notes)
        return AddReport(
            dataset=self.store.uri,
            version=self.number if changed and not options.dry_run else None,
            dry_run=options.dry_run,
            format=opened.format.name,
            labels=self.labels.names,
            mapped=opened.class_map.mapped(),
            unmapped=tuple(ignore),
            left_out=tuple(self._left_out),
            notes=tuple(f"{note} (in {count:,} images)" for note, count in notes.most_common()),
            added=counts.added,
            corrected=counts.corrected,
            unchanged=counts.unchanged,
            splits=counts.splits,
            split_notes=counts.notes,
        )

    def _all(
        self, opened: AnnotationSource, classes: ClassMap, finder: "_Finder", codecs: CodecPool
    ) -> Iterator[tuple[str, _Stored | str]]:
        """Every record of the source with what became of it, in order; a few images are decoded at a time."""

        def records() -> Iterator[tuple[str, _Pictured | str]]:
            for item in opened.images(classes):
                found = item.why if isinstance(item, LeftOut) else finder.find(item)
                yield item.key if isinstance(found, str) else found.key, found

        def keep(record: tuple[str, _Pictured | str]) -> tuple[str, _Stored | str]:
            key, found = record
            return key, found if isinstance(found, str) else self._keep(found, codecs)

        return in_parallel(keep, records(), threads=_AT_ONCE, name="import")

    def _keep(self, found: _Pictured, codecs: CodecPool) -> _Stored | str:
        """Write an image and its mask, or say why not."""
        try:
            image, orientation = decode_displayed(found.data, found.key, codecs.decode_for_core)
        except DataError as error:
            return str(error)
        mask, notes = found.item.mask, found.item.notes
        height, width = image.shape[:2]
        if mask.shape != (height, width):
            if orientation < 5 or mask.shape != (width, height):
                return f"its mask is {mask.shape[1]}x{mask.shape[0]}, the image {width}x{height}"
            mask = turned(mask, orientation)
            notes = (*notes, "the annotation was of the image as stored; it was turned as EXIF turns the image")
        elif fits_better_turned(image, mask, orientation, self.labels.ignore_index):
            notes = (*notes, f"EXIF turns the image ({orientation}) and its mask fits it better unturned; look at it")
        if (mask == self.labels.ignore_index).all():
            return "nothing in it is labelled with a class of the data set"
        encoded = encode_mask(mask, self.labels)
        if self.options.dry_run:
            image_key = f"images/{found.digest}{_suffix(found.key)}"
            return _Stored(found.key, found.row, found.row.image if found.row else image_key,
                           f"masks/{hashlib.sha256(encoded).hexdigest()}.png", found.item.split, notes)  # fmt: skip
        image_key = found.row.image if found.row else store_file(self.store, "images", found.data, _suffix(found.key))
        mask_key = store_file(self.store, "masks", encoded, ".png")
        return _Stored(found.key, found.row, image_key, mask_key, found.item.split, notes)

    def _rows(self, stored: Mapping[str, _Stored], grouping: Grouping) -> tuple[list[VersionRow], "_Counts"]:
        new = [each for each in stored.values() if each.row is None]
        groups = {each.key: grouping.of(each.key) for each in new}
        there = group_splits([(row.group, row.split) for row in self.rows])
        splits, notes = choose_splits(
            [(each.key, groups[each.key], each.split) for each in new], there, self.options.val_share
        )
        rows = {row.key: row for row in self.rows}
        corrected = unchanged = 0
        for each in stored.values():
            if each.row is None:
                key = each.key
                rows[key] = VersionRow(key, each.image, each.mask, splits[key], groups[key], self.number)
            elif each.row.mask == each.mask:
                unchanged += 1
            else:
                corrected += 1
                old = each.row
                rows[old.key] = VersionRow(old.key, old.image, each.mask, old.split, old.group, self.number)
        counts = Counter(row.split for row in rows.values())
        ordered = [rows[key] for key in sorted(rows)]
        return ordered, _Counts(len(new), corrected, unchanged, dict(sorted(counts.items())), tuple(notes))

    def _write(self, rows: list[VersionRow], form: str) -> None:
        if self.number == 1:
            data = json.dumps(self.labels.model_dump(mode="json"), indent=1, ensure_ascii=False).encode()
            try:
                self.store.create(LABELS_FILE, data)
            except ObjectExists:
                there = parse_labels(self.store.get(LABELS_FILE), f"{self.store.uri}/{LABELS_FILE}")
                if there != self.labels:
                    raise InputError(
                        f"{self.store.uri} has a {LABELS_FILE} of other classes; give it with --labels, or import into "
                        "another folder"
                    ) from None
        write_version(self.store, self.number, rows, {"source": self.source, "format": form})


class _Finder:
    """Finds the image of an annotation: in the source, among `--images`, or in the data set itself."""

    def __init__(
        self, opened: AnnotationSource, rows: tuple[VersionRow, ...], store: Store, options: AddOptions
    ) -> None:
        self._files, self._store, self._prefix = opened.files, store, options.prefix
        self._images = open_source(options.images, follow_links=options.follow_links) if options.images else None
        self._names = _copies(opened, options.names)
        self._by_key = {row.key: row for row in rows}
        self._by_digest = {digest_of(row.image): row for row in rows}
        self._by_name: dict[str, list[VersionRow]] = {}
        for row in rows:
            for name in {posixpath.basename(row.key), posixpath.splitext(posixpath.basename(row.key))[0]}:
                self._by_name.setdefault(name, []).append(row)
        self._taken: dict[str, str] = {}

    def find(self, item: Annotated) -> _Pictured | str:
        """The image with its bytes, or why there is none."""
        key = self._key(item)
        try:
            data = self._bytes(item, key)
            if data is None:
                row = self._by_key.get(key) or self._only(key)
                if row is None:
                    return "its image is not in the source, in --images or in the data set, or several have its name"
                return _Pictured(item, row.key, row, self._store.get(row.image), digest_of(row.image) or "")
        except StorageUnavailable:
            raise
        except StorageError as error:
            return str(error)
        digest = hashlib.sha256(data).hexdigest()
        row = self._by_digest.get(digest)
        if row is not None:
            return _Pictured(item, row.key, row, data, digest)
        key = self._prefix + key
        if not key or key.startswith("/") or any(part in ("", ".", "..") for part in key.split("/")[:-1]):
            return f"{short(key)} is no name that an image can have in a data set"
        if key in self._by_key:
            return f"the data set has another image of the name {short(key)}; give the new ones a --prefix of their own"
        if self._taken.setdefault(digest, key) != key:
            return f"it is the same image as {short(self._taken[digest])}"
        return _Pictured(item, key, None, data, digest)

    def _key(self, item: Annotated) -> str:
        for name in (item.key, posixpath.basename(item.key), item.image and posixpath.basename(item.image)):
            if name and name in self._names:
                return self._names[name]
        return item.key

    def _bytes(self, item: Annotated, key: str) -> bytes | None:
        if item.image is not None:
            return self._files.read(item.image, LARGEST_IMAGE)
        if self._images is not None:
            for name in dict.fromkeys((key, item.key)):
                try:
                    return self._images.get(name, most_bytes=LARGEST_IMAGE)
                except ObjectMissing:
                    continue
        return None

    def _only(self, key: str) -> VersionRow | None:
        """The only image of the data set with this file name, with or without its suffix."""
        found = self._by_name.get(posixpath.basename(key), [])
        return found[0] if len(found) == 1 else None


def _copies(opened: AnnotationSource, names: str | None) -> dict[str, str]:
    """Keys by the names of their copies, and by those without suffix, as the images.csv of an exported project says."""
    if names is None and _NAMES_FILE not in opened.files:
        return {}
    try:
        data = read_object(names) if names is not None else opened.files.read(_NAMES_FILE, LARGEST_IMAGE)
        rows = list(csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True))
    except (StorageError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{names or _NAMES_FILE} cannot be read as CSV in UTF-8 ({error})") from error
    if not rows or not {"name", "key"} <= set(rows[0]):
        if names is None:
            return {}  # somebody else's file
        raise InputError(f"{names} has no columns name and key, as the images.csv of `fcn rank --copy-to` has")
    at, to = rows[0].index("name"), rows[0].index("key")
    found = {original(row[at]): original(row[to]) for row in rows[1:] if len(row) > max(at, to)}
    stems = Counter(posixpath.splitext(copy)[0] for copy in found)
    return {
        posixpath.splitext(copy)[0]: to for copy, to in found.items() if stems[posixpath.splitext(copy)[0]] == 1
    } | found


def _suffix(key: str) -> str:
    suffix = posixpath.splitext(key)[1].lower()
    return suffix if _SUFFIX.fullmatch(suffix) else ".jpg"
