"""Data sets in any storage: opened by URI, checked for what is there, read through a local cache.

The one thing to know: opening lists files and reads lists, never pixels. What it returns is a
`fcn_core.data.datasets.Pairs`, which can be pickled, opens its storage anew on each node, and reads a file when one
of its examples is used.
"""

import contextlib
import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from fcn_core.data.datasets import Pairs
from fcn_core.errors import FcnError
from fcn_core.labels import LabelSet, find_labels, parse_labels, preset
from fcn_core.text.printable import listed
from pipeline.data import manifest
from pipeline.data.annotations.cvat_mask import read_labelmap
from pipeline.data.groups import parse_part
from pipeline.data.layouts import (
    CityscapesLayout,
    Layout,
    ManifestLayout,
    Missing,
    SbdLayout,
    SegnetLayout,
    Split,
    VocLayout,
)
from pipeline.data.places import KeyResolver
from pipeline.data.predicted.layout import PredictedLayout, open_predicted
from pipeline.data.predicted.references import is_predicted, resolve_predicted
from pipeline.data.stored_files import StoredFiles
from pipeline.data.unknown_layout import describe_unknown
from pipeline.data.versioned.references import LATEST, split_reference, version_number, with_version
from pipeline.data.versioned.versions import numbers, read_version, resolve
from pipeline.errors import AccessDenied, InputError, ObjectMissing, StorageError
from pipeline.jobs.dataset import DatasetOptions, Preset
from pipeline.outputs.identity import digest
from pipeline.sources.opening import open_source
from pipeline.storage.file_cache import FileCache
from pipeline.storage.opening import read_object
from pipeline.storage.store import ObjectInfo, Store
from pipeline.storage.uri import scheme_of, split_uri

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

LABELS_FILE = "labels.json"
CLASSES_FILE = "classes.txt"
COLOR_TABLE = "labelmap.txt"

_LABELS_OF_PRESET: Mapping[str, str] = {"voc2012": "voc", "sbd": "voc", "camvid": "camvid", "cityscapes": "cityscapes"}
_EXPECTED: Mapping[Preset | None, str] = {
    None: "ImageSets/Segmentation/*.txt as in PASCAL VOC's layout",
    "voc2012": "ImageSets/Segmentation/*.txt as in PASCAL VOC's layout",
    "sbd": "ImageSets/Segmentation/val.txt as in PASCAL VOC's layout",
    "camvid": "ImageSets/Segmentation/*.txt nor train.txt",
    "cityscapes": "leftImg8bit/<split>/<city>/",
}
_NUMBERED = re.compile(r"(\d{1,3})[\s:,;=.)]+(\S.*)")
_USUAL = ("train", "val", "test")
_NAMED_AT_MOST = 3
_CHECK = "mend the list or the files (fcn data check names them all)"


@dataclass(frozen=True)
class Catalog:
    """A data set with its storage looked through: which splits it has, which classes, what is missing."""

    options: DatasetOptions
    uri: str
    labels: LabelSet
    layout: Layout
    places: KeyResolver

    def splits(self) -> list[str]:
        """The names of its splits, sorted."""
        return _asked(self.layout.splits)

    def split(self, name: str) -> Split:
        """What is there of a split, or of a part of one (see `groups`). Raises InputError if there is no such split."""
        splits = self.splits()
        part = None if name in splits else parse_part(name)
        if part is not None:
            return part.of(self.split(part.split), self._values(part.column) if part.column else None)
        if name not in splits:
            if len(splits) == 1 and name in _USUAL and splits[0] not in _USUAL:
                (only,) = splits
                raise InputError(
                    f"data set {self.uri} has no split {name!r}, for it has {only} alone; part it, such as with "
                    f"--train-split '{only}:image>=0.2' --val-split '{only}:image<0.2'"
                )
            there = f"it has {listed(splits)}" if splits else "it has none"
            raise InputError(f"data set {self.uri} has no split {name!r} ({there}); choose another")
        return _asked(lambda: self.layout.split(name))

    def _values(self, column: str) -> Mapping[str, str]:
        """The values of a manifest's column by image."""
        if not isinstance(self.layout, ManifestLayout):
            raise InputError(
                f"data set {self.uri} has no column {column!r}: only a manifest has columns; group by "
                "folder or prefix, or write a manifest"
            )
        layout = self.layout
        return _asked(lambda: layout.values(column))

    def pairs(self, split: Split) -> Pairs:
        """The pairs of a split that are there, as a data set."""
        keys = {key for pair in split.pairs for key in (pair.image, pair.mask)}
        if self._is_local(keys):
            # A user's own disk: no etags to carry along, and a cache only if one is asked for by name.
            cache = self._cache(self.options.cache) if self.options.cache else None
            known = self._known(keys) if cache else {}
        else:
            cache = self._cache(self.options.cache)
            known = self._known(keys)
        if isinstance(self.layout, PredictedLayout):
            return Pairs(self.layout.reader(split, cache), split.pairs, self.labels, "index")
        read = StoredFiles(self.places, known, cache)
        return Pairs(read, split.pairs, self.labels, self.options.mask_coding, self.layout.recode)

    def files_digest(self, pairs: Pairs) -> str:
        """Changes when a file of these pairs is written anew: by the etags of object storage, by size and time of files
        on disk."""
        keys = sorted({key for pair in pairs.pairs for key in (pair.image, pair.mask)})
        known = self.layout.known
        return digest([[key, known[key].etag, known[key].size] for key in keys if key in known])

    def _is_local(self, keys: set[str]) -> bool:
        schemes = {scheme_of(key) for key in keys}
        return self.places.root.location.scheme == "file" and schemes <= {"file"}

    def _known(self, keys: set[str]) -> dict[str, ObjectInfo]:
        return {key: self.layout.known[key] for key in keys if key in self.layout.known}

    def _cache(self, folder: str | None) -> FileCache | None:
        if self.options.cache_bytes == 0:
            return None
        cache = FileCache(folder, self.options.cache_bytes)
        cache.prepare()
        return cache


def open_catalog(options: DatasetOptions) -> Catalog:
    """Look through a data set's storage. Raises InputError for what a person must mend, storage out of reach
    included."""
    return _asked(lambda: _open(options))


def open_dataset(options: DatasetOptions, split: str) -> Pairs:
    """A split of a data set, every file of it known to be there. Can be pickled.

    Raises InputError for storage that cannot be reached, a split that is not there, and a list that does not fit the
    files; what is in the files shows when they are read (`fcn data check` reads them all).
    """
    return whole_split(open_catalog(options), split)


def whole_split(catalog: Catalog, split: str) -> Pairs:
    """The same of a data set that is open."""
    found = catalog.split(split)
    for note in found.notes:
        log.info("dataset=%s split=%s note=%r", catalog.uri, split, note)
    if found.missing:
        raise InputError(f"data set {catalog.uri}: split {split!r} {_missing(found.missing)}; {_CHECK}")
    if found.two_files:
        raise InputError(
            f"data set {catalog.uri}: split {split!r} has names that several files answer to: {found.two_files[0]}; "
            f"rename or remove all but one; {_CHECK}"
        )
    if found.duplicates:
        raise InputError(f"data set {catalog.uri}: split {split!r} lists {found.duplicates[0]!r} twice; {_CHECK}")
    if not found.pairs:
        raise InputError(f"data set {catalog.uri}: split {split!r} is empty; give it one image name per line")
    return catalog.pairs(found)


def _missing(missing: tuple[Missing, ...]) -> str:
    named = ", ".join(item.described for item in missing[:_NAMED_AT_MOST])
    more = f" and {len(missing) - _NAMED_AT_MOST} more" if len(missing) > _NAMED_AT_MOST else ""
    files = "a file that is not there" if len(missing) == 1 else f"{len(missing)} files that are not there"
    return f"needs {files} ({named}{more})"


def _open(options: DatasetOptions) -> Catalog:
    if is_predicted(options.dataset):
        return _open_predicted(options)
    place, version = split_reference(options.dataset)
    if version is not None:
        return _open_version(options, place)
    if _is_manifest(options.dataset):
        folder, name = split_uri(options.dataset)
        places = KeyResolver(open_source(folder, follow_links=options.follow_links))
        # Asks quickly whether anybody is there at all; whoever may read but not list is let through.
        with contextlib.suppress(AccessDenied):
            places.root.check_readable()
        data = places.root.get(name)
        layout: Layout = ManifestLayout(
            manifest.parse_manifest(data, name),
            places,
            read_column=lambda column: manifest.parse_column(data, name, column),
        )
        labels = _labels(options, places.root, "the manifest's folder")
        return Catalog(options, options.dataset, labels, layout, places)
    store = open_source(options.dataset, follow_links=options.follow_links)
    store.check_readable()
    layout = _folder_layout(store, options.preset)
    if not layout.splits():
        if options.preset is None and (found := numbers(store)):
            raise InputError(
                f"{store.uri} has versions: write {with_version(options.dataset, found[-1])}, or "
                f"{options.dataset.partition('?')[0]}@{LATEST}"
            )
        if options.preset is None and (inner := _layout_below(store)):
            raise InputError(f"{store.uri} has no splits of its own, and {inner} in it has; give that folder")
        seen = describe_unknown(options.dataset, follow_links=options.follow_links)
        raise InputError(f"{store.uri} has no splits: there is no {_EXPECTED[options.preset]}; {seen}")
    return Catalog(options, store.uri, _labels(options, store, store.uri), layout, KeyResolver(store))


def _layout_below(store: Store) -> str | None:
    """A folder of this one that is in VOC's layout, as VOCdevkit holds VOC2012."""
    lists = (info.key.partition("/ImageSets/Segmentation/") for info in store.list())
    return next((folder for folder, found, rest in lists if found and rest.endswith(".txt")), None)


def _open_version(options: DatasetOptions, place: str) -> Catalog:
    """A version of a data set: its manifest never changes, and its files are proven to be those that it names."""
    if options.preset is not None:
        raise InputError(f"{options.dataset} has a layout and classes of its own; leave out --preset {options.preset}")
    root = open_source(place, follow_links=options.follow_links)
    number = version_number(split_reference(resolve(options.dataset))[1] or "")
    rows = read_version(root, number).rows
    places = KeyResolver(root)
    names = {row.image: row.key for row in rows}
    layout = ManifestLayout([manifest.Row(row.image, row.mask, row.split) for row in rows], places, names=names)
    return Catalog(options, with_version(place, number), _labels(options, root, place), layout, places)


def _open_predicted(options: DatasetOptions) -> Catalog:
    """Predictions of an output, which has classes of its own."""
    if options.preset is not None:
        raise InputError(f"{options.dataset} has classes of its own; leave out --preset {options.preset}")
    resolved = options.model_copy(update={"dataset": resolve_predicted(options.dataset)})
    layout, labels = open_predicted(resolved)
    if options.labels is not None:
        given = _labels(options, layout.output, resolved.dataset)
        if given.num_classes != labels.num_classes:
            raise InputError(
                f"{resolved.dataset} has {labels.num_classes} classes, and --labels {options.labels} has "
                f"{given.num_classes}; give the label set of the model that predicted, or none"
            )
        labels = given.of_masks(void_below=1)
    return Catalog(resolved, resolved.dataset, labels, layout, layout.places)


def _is_manifest(dataset: str) -> bool:
    return split_uri(dataset)[1].lower().endswith(manifest.SUFFIXES)


def _folder_layout(store: Store, which: Preset | None) -> Layout:
    if which == "cityscapes":
        return CityscapesLayout.at(store)
    if which == "sbd":
        return SbdLayout.at(store)
    voc = VocLayout.at(store)
    if which == "camvid" and not voc.splits():
        return SegnetLayout.at(store)
    return voc


def _labels(options: DatasetOptions, store: Store, where: str) -> LabelSet:
    if options.labels is not None:
        if options.labels.lower().endswith(".json"):
            return parse_labels(read_object(options.labels), options.labels)
        return find_labels(options.labels)
    if options.preset is not None:
        return preset(_LABELS_OF_PRESET[options.preset])
    try:
        return parse_labels(store.get(LABELS_FILE), f"{store.uri}/{LABELS_FILE}")
    except ObjectMissing:
        pass
    for file, read in ((CLASSES_FILE, _listed_labels), (COLOR_TABLE, _labels_with_colors)):
        try:
            data = store.get(file)
        except ObjectMissing:
            continue
        place = f"{store.uri}/{file}"
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"{place} is not text in UTF-8; give it one class per line") from error
        folders = store.location.folders
        return read(folders[-1] if folders else "classes", text, place)
    raise InputError(
        f"nothing says which classes {options.dataset} has; give --labels (voc, camvid, cityscapes or a .json "
        f"file) or --preset, or put {LABELS_FILE} or {CLASSES_FILE} into {where}"
    )


def _listed_labels(name: str, text: str, place: str) -> LabelSet:
    """One class name per line, in the order of the indices, which may stand before it; coloured as PASCAL VOC would."""
    names = [line.strip() for line in text.splitlines() if line.strip()]
    numbered = [_NUMBERED.fullmatch(name) for name in names]
    if names and all(found and int(found[1]) == index for index, found in enumerate(numbered)):
        names = [found[2] for found in numbered if found]
    return parse_labels(json.dumps({"name": name, "names": names}).encode(), place)


def _labels_with_colors(name: str, text: str, place: str) -> LabelSet:
    """CVAT's labelmap.txt, `class:red,green,blue::` per line: the colours of the masks, and so of the classes."""
    table = read_labelmap(text, place)
    values = {"name": name, "names": list(table.values()), "palette": [list(color) for color in table]}
    return parse_labels(json.dumps(values).encode(), place)


def _asked(question: Callable[[], Answer]) -> Answer:
    """What a question to storage returns; every trouble is an InputError, since nothing has begun yet."""
    try:
        return question()
    except (StorageError, FcnError) as error:
        raise InputError(str(error)) from error
