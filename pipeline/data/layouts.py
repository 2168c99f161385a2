"""Where data sets keep images, masks and splits: PASCAL VOC's layout, a manifest, and what SBD, CamVid and Cityscapes
look like once they are unpacked.

A layout lists a folder once and remembers what is there: which extension an image has, whether a file exists at all,
and its etag, come from the listing and cost no request of their own.
"""

import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from types import MappingProxyType
from typing import Protocol

from fcn_core.data.datasets import Pair, parse_names
from pipeline.data.manifest import Row
from pipeline.data.near_names import NearNames, columns, folded, near_miss, plain_name, with_slashes
from pipeline.data.places import KeyResolver
from pipeline.errors import InputError, ObjectMissing
from pipeline.storage.store import ObjectInfo, Store

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".webp", ".bmp", ".gif", ".avif", ".jp2",
    ".jxl", ".heic", ".heif",
)  # fmt: skip
MASK_SUFFIXES = (".png",)
OTHER_MASK_SUFFIXES = (".tif", ".tiff", ".bmp")
"""Taken for a name that has no PNG."""

_LISTS = "ImageSets/Segmentation/"
_HEADS_AT_ONCE = 32
_WORTH_A_LISTING = 50
_LISTED_AT_MOST = 10
"""Objects listed for each one that is wanted, before the rest is asked for one by one."""


@dataclass(frozen=True)
class Missing:
    """A file that a split names and that is not there. `kind`: "image" or "mask"; `place`: where it was looked for.

    `near`: a file that is there and may be meant, such as a mask of another format.
    """

    name: str
    kind: str
    place: str
    near: str | None = None

    @property
    def described(self) -> str:
        """Where it was looked for, and what is there."""
        return self.place + (f", where there is {self.near}" if self.near else "")


@dataclass(frozen=True)
class Split:
    """The pairs of a split that are there, and what is wrong with its list. `notes` are for people.

    `two_files` are names that several files answer to, as "JPEGImages/a.jpg and JPEGImages/a.png".
    """

    pairs: tuple[Pair, ...]
    missing: tuple[Missing, ...] = ()
    duplicates: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    two_files: tuple[str, ...] = ()


class Layout(Protocol):
    """How a data set is laid out. Errors are StorageErrors and InputErrors."""

    @property
    def known(self) -> Mapping[str, ObjectInfo]:
        """What listings told of the files, by key. Not every file needs to be here."""

    @property
    def recode(self) -> Mapping[int, int]:
        """What stored indices mean where they are not the label set's own; see `fcn_core.data.datasets.Pairs`."""

    def splits(self) -> list[str]:
        """The names of the splits there are, sorted."""

    def split(self, name: str) -> Split:
        """One of them."""


@dataclass
class _Files:
    """The files of a store by folder, each folder listed when it is first asked for."""

    store: Store
    known: dict[str, ObjectInfo] = field(default_factory=dict)
    rivals: dict[str, list[str]] = field(default_factory=dict)
    """Of a key that `by_name` gave, all keys that have its name; where there are several."""
    _listed: dict[str, list[str]] = field(default_factory=dict)

    def keys(self, folder: str) -> list[str]:
        """All keys that begin with `folder` (ending in "/"), sorted."""
        if folder not in self._listed:
            found = list(self.store.list(folder))
            self.known.update((info.key, info) for info in found)
            self._listed[folder] = [info.key for info in found]
        return self._listed[folder]

    def by_name(self, folder: str, suffixes: tuple[str, ...], ending: str = "") -> dict[str, str]:
        """Keys by their path below `folder` without extension and `ending`."""
        found: dict[str, list[str]] = {}
        for key in self.keys(folder):
            stem, suffix = posixpath.splitext(key.removeprefix(folder))
            if suffix.lower() in suffixes and stem.endswith(ending):
                found.setdefault(stem.removesuffix(ending), []).append(key)
        self.rivals.update((keys[0], keys) for keys in found.values() if len(keys) > 1)
        return {name: keys[0] for name, keys in found.items()}

    def masks(self, folder: str) -> dict[str, str]:
        """Masks by their path below `folder` without extension."""
        return self.by_name(folder, OTHER_MASK_SUFFIXES) | self.by_name(folder, MASK_SUFFIXES)

    def names(self, key: str) -> list[str]:
        """The lines of a list; none if there is no such file."""
        try:
            return parse_names(self.store.get(key))
        except ObjectMissing:
            return []
        except UnicodeDecodeError as error:
            raise InputError(
                f"{self.store.uri}: {key} is not text in UTF-8; give it one image name per line"
            ) from error


@dataclass
class VocLayout:
    """JPEGImages/<name>.jpg (or .jpeg, .png), SegmentationClass/<name>.png, ImageSets/Segmentation/<split>.txt."""

    files: _Files
    recode: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def at(cls, store: Store) -> "VocLayout":
        return cls(_Files(store))

    @property
    def known(self) -> Mapping[str, ObjectInfo]:
        return self.files.known

    def splits(self) -> list[str]:
        return sorted(self.files.by_name(_LISTS, (".txt",)))

    def split(self, name: str) -> Split:
        return _paired(
            self.files.names(f"{_LISTS}{name}.txt"),
            self.files.by_name("JPEGImages/", IMAGE_SUFFIXES),
            self.files.masks("SegmentationClass/"),
            ("JPEGImages/*.jpg", "SegmentationClass/*.png"),
            self.files.rivals,
            there={folder: self.files.keys(folder) for folder in ("JPEGImages/", "SegmentationClass/")},
        )


@dataclass
class SegnetLayout:
    """CamVid as in the SegNet tutorial: <split>/<name>.png, <split>annot/<name>.png and <split>.txt, whose lines are
    two paths that begin with the author's own folders. Void is 11 there."""

    files: _Files
    recode: Mapping[int, int] = field(default_factory=lambda: {11: 255})

    @classmethod
    def at(cls, store: Store) -> "SegnetLayout":
        return cls(_Files(store))

    @property
    def known(self) -> Mapping[str, ObjectInfo]:
        return self.files.known

    def splits(self) -> list[str]:
        return [split for split in ("test", "train", "val") if self.files.names(f"{split}.txt")]

    def split(self, name: str) -> Split:
        lines = self.files.names(f"{name}.txt")
        names = [posixpath.splitext(posixpath.basename(line.split()[0]))[0] for line in lines]
        return _paired(
            names,
            self.files.by_name(f"{name}/", IMAGE_SUFFIXES),
            self.files.masks(f"{name}annot/"),
            (f"{name}/*.png", f"{name}annot/*.png"),
            self.files.rivals,
        )


@dataclass
class SbdLayout:
    """PASCAL VOC 2012 with the Semantic Boundaries Dataset's masks: the "augmented" training split.

    Images in JPEGImages/ (or SBD's img/). Masks of VOC's own images in SegmentationClass/, of all others in
    SegmentationClassAug/*.png or, as SBD ships them, cls/*.mat. Split train is what train_aug.txt or trainaug.txt
    lists, else every image with a mask that VOC's val.txt does not list. SBD annotates many of VOC's validation
    images, so those are taken out of every list but val.
    """

    files: _Files
    recode: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def at(cls, store: Store) -> "SbdLayout":
        return cls(_Files(store))

    @property
    def known(self) -> Mapping[str, ObjectInfo]:
        return self.files.known

    def splits(self) -> list[str]:
        return ["train", "val"] if self._own_masks() else ["train"]

    def split(self, name: str) -> Split:
        validation = self.files.names(f"{_LISTS}val.txt")
        if not validation:
            raise InputError(
                f"{self.files.store.uri} has no {_LISTS}val.txt, without which VOC's validation images cannot be kept "
                "out of SBD's training images; copy that list from VOC 2012"
            )
        masks = self._more_masks() | self._own_masks()
        folder = "JPEGImages/" if self.files.keys("JPEGImages/") else "img/"
        place = f"{folder}*.jpg"
        images = self.files.by_name(folder, IMAGE_SUFFIXES)
        if name == "val":
            own = self._own_masks()
            return _paired(validation, images, own, (place, "SegmentationClass/*.png"), self.files.rivals)
        listed = self._list("train_aug") or self._list("trainaug")
        names = listed or sorted(set(self._more_masks()) | set(self._list("train")))
        left_out = {folded(plain_name(name)) for name in validation}
        kept = [name for name in names if folded(plain_name(name)) not in left_out]
        notes = (f"{len(names) - len(kept)} of VOC's validation images are left out of split train",)
        found = _paired(kept, images, masks, (place, "SegmentationClassAug/*.png"), self.files.rivals)
        return replace(found, notes=notes if len(kept) < len(names) else ())

    def _list(self, name: str) -> list[str]:
        return self.files.names(f"{_LISTS}{name}.txt")

    def _own_masks(self) -> dict[str, str]:
        return self.files.masks("SegmentationClass/")

    def _more_masks(self) -> dict[str, str]:
        packed = self.files.by_name("cls/", (".mat",))
        return packed | self.files.masks("SegmentationClassAug/")


# Cityscapes' label ids (cityscapesscripts/helpers/labels.py): 34 of them, of which 19 are trained on.
_CITYSCAPES_TRAINED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
_CITYSCAPES_IDS = dict.fromkeys(range(34), 255) | {id: index for index, id in enumerate(_CITYSCAPES_TRAINED)}


@dataclass
class CityscapesLayout:
    """leftImg8bit/<split>/<city>/*_leftImg8bit.png, and gtFine/<split>/<city>/*_gtFine_labelIds.png (the ids of the
    download, mapped to the 19 that are trained on) or, where those are not there, *_labelTrainIds.png."""

    files: _Files
    train_ids: bool
    recode: Mapping[int, int]

    @classmethod
    def at(cls, store: Store) -> "CityscapesLayout":
        files = _Files(store)
        keys = files.keys("gtFine/")
        train_ids = not any(key.endswith("_labelIds.png") for key in keys)
        return cls(files, train_ids, {} if train_ids else _CITYSCAPES_IDS)

    @property
    def known(self) -> Mapping[str, ObjectInfo]:
        return self.files.known

    def splits(self) -> list[str]:
        return sorted({key.split("/")[1] for key in self.files.keys("leftImg8bit/") if key.count("/") == 3})

    def split(self, name: str) -> Split:
        kind = "labelTrainIds" if self.train_ids else "labelIds"
        images = self.files.by_name("leftImg8bit/", (".png",), "_leftImg8bit")
        masks = self.files.by_name("gtFine/", (".png",), f"_gtFine_{kind}")
        names = [found for found in images if found.startswith(f"{name}/")]
        places = ("leftImg8bit/*_leftImg8bit.png", f"gtFine/*_gtFine_{kind}.png")
        return _paired(names, images, masks, places, self.files.rivals, rename=posixpath.basename)


@dataclass
class ManifestLayout:
    """The rows of a manifest; see `pipeline.data.manifest`. `names`: what people call the images, where that is not
    their place; `read_column`: the values of a further column, by row."""

    rows: list[Row]
    places: KeyResolver
    recode: Mapping[int, int] = field(default_factory=dict)
    known: dict[str, ObjectInfo] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    read_column: Callable[[str], list[str]] | None = None

    def values(self, column: str) -> dict[str, str]:
        """The value of a further column by image. Raises InputError where there is none."""
        if self.read_column is None:
            raise InputError(f"a version of a data set has no column {column!r}; give the manifest that it was made of")
        return {row.image: value for row, value in zip(self.rows, self.read_column(column), strict=True)}

    def splits(self) -> list[str]:
        return sorted({row.split for row in self.rows})

    def split(self, name: str) -> Split:
        rows = [row for row in self.rows if row.split == name]
        wanted = [key for row in rows for key in (row.image, row.mask)]
        self.known.update(look_up(self.places, {key for key in wanted if key not in self.known}))
        images = {row.image: row.image for row in rows if row.image in self.known}
        masks = {row.image: row.mask for row in rows if row.mask in self.known}
        found = _paired([row.image for row in rows], images, masks, ("*", "*"), {}, exact=True)
        keys = {row.image: row.mask for row in rows}
        gone_keys = [keys[gone.name] if gone.kind == "mask" else gone.name for gone in found.missing]
        there = look_up(self.places, filter(None, map(with_slashes, gone_keys)))
        missing = tuple(
            Missing(gone.name, gone.kind, key, near if (near := with_slashes(key)) in there else None)
            for gone, key in zip(found.missing, gone_keys, strict=True)
        )
        pairs = (replace(pair, name=self.names.get(pair.name, pair.name)) for pair in found.pairs)
        return Split(tuple(pairs), missing, found.duplicates)


def _paired(
    names: list[str],
    images: Mapping[str, str],
    masks: Mapping[str, str],
    places: tuple[str, str],
    rivals: Mapping[str, list[str]],
    rename: Callable[[str], str] = str,
    there: Mapping[str, list[str]] = MappingProxyType({}),
    exact: bool = False,
) -> Split:
    """The split that lists `names`, each as its files have it or, unless `exact`, in a way that can mean but one (see
    `near_names`). `places`: where image and mask of a name belong, with "*" for the name. `rivals`: of a file, all that
    have its name. `there`: all keys by folder, whatever their format, for what may be meant."""
    pairs, missing, two_files = [], [], []
    near = {"image": NearNames(images, masks=False), "mask": NearNames(masks, masks=True)}
    for entry in dict.fromkeys(names):
        both = (None if exact or entry in images else columns(entry)) or (entry, entry)
        name = entry if exact or entry in images else plain_name(both[0])
        found: dict[str, str] = {}
        for kind, files, place, meant in zip(("image", "mask"), (images, masks), places, both, strict=True):
            key = meant if meant in files else None if exact else near[kind].find(meant)
            if key is None:
                where = place.replace("*", meant if exact else plain_name(meant))
                folder = place.partition("*")[0]
                missing.append(Missing(rename(name), kind, where, near_miss(meant, folder, there.get(folder, ()))))
                continue
            found[kind] = files[key]
            if files[key] in rivals:
                two_files.append(" and ".join(rivals[files[key]]))
        if len(found) == 2:
            pairs.append(Pair(rename(name), found["image"], found["mask"]))
    times = Counter(names)
    same = Counter(pair.image for pair in pairs)
    duplicates = [rename(name) for name, count in times.items() if count > 1]
    duplicates += [pair.name for pair in pairs if same[pair.image] > 1 and pair.name not in duplicates]
    return Split(tuple(pairs), tuple(missing), tuple(dict.fromkeys(duplicates)), two_files=tuple(two_files))


def look_up(places: KeyResolver, keys: Iterable[str]) -> dict[str, ObjectInfo]:
    """What storage says of these keys; those that are not there are left out.

    A listing tells of a thousand objects at once, so folders with many of the keys are listed, unless much else turns
    out to be there. The rest is asked for one by one.
    """
    folders: dict[str, set[str]] = {}
    for key in keys:
        folders.setdefault(posixpath.dirname(key), set()).add(key)
    found: dict[str, ObjectInfo] = {}
    rest: list[str] = []
    for folder, wanted in folders.items():
        store, name = places.find(f"{folder}/x" if folder else "x")
        if len(wanted) < _WORTH_A_LISTING or store.location.scheme == "file":
            rest += wanted
            continue
        prefix, above = name.removesuffix("x"), f"{folder}/" if folder else ""
        listing = islice(store.list(prefix), _LISTED_AT_MOST * len(wanted))
        seen = {above + info.key.removeprefix(prefix): info for info in listing}
        found |= {key: seen[key] for key in wanted & seen.keys()}
        rest += wanted - seen.keys()

    def head(key: str) -> tuple[str, ObjectInfo | None]:
        store, name = places.find(key)
        try:
            return key, store.head(name)
        except ObjectMissing:
            return key, None

    with ThreadPoolExecutor(_HEADS_AT_ONCE, thread_name_prefix="head") as threads:
        return found | {key: info for key, info in threads.map(head, rest) if info is not None}
