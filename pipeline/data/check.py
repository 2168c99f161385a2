"""Looks through a data set before anybody trains on it: every list, every file, every label value.

Pairs stream through a pool of threads; what is kept of an image is its name, a digest of its pixels and a thumbnail of
17 x 17 cells, so memory does not grow with pixels. Nothing is mended: each fault is named with its file, and what to do
about it.
"""

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from fcn_core.data.datasets import Pair, Pairs, decode_displayed, strange_values
from fcn_core.data.mask_coding import MaskError, MaskFault, read_mask
from fcn_core.errors import DataError
from fcn_core.labels import LabelSet
from pipeline.codec.processes import CodecPool
from pipeline.container import usable_cpus
from pipeline.data.datasets import open_catalog
from pipeline.data.layouts import Split
from pipeline.data.leaks import Fingerprint, Looks, fingerprint
from pipeline.data.orientation import fits_better_turned
from pipeline.data.report import (
    WARNINGS,
    ClassCount,
    DataFinding,
    DataReport,
    Kind,
    SplitContent,
    SplitReport,
)
from pipeline.errors import StorageError, StorageUnavailable
from pipeline.jobs.dataset import DatasetOptions

EXAMPLES = 10
"""Findings of a kind and split that are spelled out."""

READS_AT_ONCE = 16

_KIND_OF_FAULT: Mapping[MaskFault, Kind] = {
    "unreadable": "unreadable_mask",
    "colors_for_indices": "colors_for_indices",
    "unknown_colors": "unknown_colors",
    "black_and_white": "black_and_white",
    "other_palette": "other_palette",
}


def check_dataset(
    options: DatasetOptions,
    splits: Sequence[str] | None = None,
    *,
    examples: int = EXAMPLES,
    on_image: Callable[[int, int], None] = lambda done, total: None,
    max_pixels: Mapping[str, int] = MappingProxyType({}),
) -> DataReport:
    """Read every image and mask of these splits; by default of all, less those that only sum up others (trainval).

    `on_image` is told how many of how many images are done. `max_pixels`: of a split's images, where whoever will read
    them refuses larger ones. Raises InputError for a data set that cannot be opened, a
    split that is not there, StorageUnavailable when storage stops answering on the way.
    """
    if options.cache is None:
        options = options.model_copy(update={"cache_bytes": 0})  # each file is read once
    catalog = open_catalog(options)
    found = {name: catalog.split(name) for name in dict.fromkeys(splits or catalog.splits())}
    notes = [f"split {name}: {note}" for name, split in found.items() for note in split.notes]
    for name, parts in ({} if splits else _unions(found)).items():
        notes.append(f"split {name} is {' + '.join(parts)} together and was not read again")
        del found[name]

    findings = _Findings(examples)
    for name, split in found.items():
        findings.of_list(name, split)
    findings.of_shared_names(found)
    total, done = sum(len(split.pairs) for split in found.values()), 0
    reports = []
    contents = {}
    images = _Images(findings)
    # A stranger's files, and credentials are in this process.
    with CodecPool(usable_cpus()) as codecs:
        for name, split in found.items():
            tally = _Tally(catalog.labels)
            content = _Content()
            for checked in _check_pairs(catalog.pairs(split), codecs, max_pixels.get(name)):
                for kind, text in (*checked.faults, *checked.warnings):
                    findings.add(kind, name, text)
                images.add(name, checked)
                content.add(checked)
                tally.add(checked)
                if checked.counts is not None and not checked.faults and not checked.counts[: len(tally.pixels)].any():
                    findings.add("empty_mask", name, checked.pair.mask)
                done += 1
                on_image(done, total)
            reports.append(tally.report(name, len(split.pairs) + len({gone.name for gone in split.missing})))
            contents[name] = content.result()
            for class_name in tally.absent():
                findings.add("absent_class", name, class_name)
    notes += images.compare_looks()
    return DataReport(
        dataset=catalog.uri,
        labels=catalog.labels.name,
        splits=tuple(reports),
        problems=findings.sorted(warnings=False),
        warnings=findings.sorted(warnings=True),
        notes=tuple(notes),
        contents=contents,
    )


@dataclass(frozen=True, slots=True)
class _Checked:
    """One pair looked at. `faults` keep it from being trained on. `seen`, `truth`: what the image is told by, and a
    digest of the mask's values; `counts`: pixels by mask value, int64 [256]; None for what could not be read.
    """

    pair: Pair
    faults: tuple[tuple[Kind, str], ...]
    seen: Fingerprint | None
    truth: bytes | None
    counts: npt.NDArray[np.int64] | None
    warnings: tuple[tuple[Kind, str], ...] = ()


def _check_pairs(dataset: Pairs, codecs: CodecPool, max_pixels: int | None) -> Iterator[_Checked]:
    """Every pair in order, read and decoded by threads that stay only a little ahead."""
    waiting: deque[Future[_Checked]] = deque()
    with ThreadPoolExecutor(READS_AT_ONCE, thread_name_prefix="check") as threads:
        try:
            for pair in dataset.pairs:
                waiting.append(threads.submit(_check_pair, dataset, pair, codecs, max_pixels))
                if len(waiting) >= 2 * READS_AT_ONCE:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


def _check_pair(dataset: Pairs, pair: Pair, codecs: CodecPool, max_pixels: int | None) -> _Checked:
    faults: list[tuple[Kind, str]] = []
    warnings: list[tuple[Kind, str]] = []
    seen = truth = size = counts = image = None
    orientation = 1
    try:
        data = _read(dataset, pair.image)
        image, orientation = decode_displayed(data, pair.image, codecs.decode_for_core)
        size = image.shape[:2]
        if max_pixels is not None and size[0] * size[1] > max_pixels:
            text = f"{pair.image}: {size[1]}x{size[0]} pixels, more than the {max_pixels:,} of max_pixels"
            faults.append(("unreadable_image", text))
        seen = fingerprint(image)
        if orientation != 1:
            warnings.append(("turned_image", f"{pair.image} (EXIF orientation {orientation})"))
    except StorageUnavailable:
        raise  # says nothing of the file
    except (DataError, StorageError, OSError) as error:
        faults.append(("unreadable_image", _named(pair.image, error)))
    try:
        mask = read_mask(_read(dataset, pair.mask), dataset.labels, dataset.coding, dataset.recode)
    except MaskError as error:
        faults.append((_KIND_OF_FAULT[error.fault], f"{pair.mask}: {error}"))
    except (StorageUnavailable, MemoryError):
        raise
    except Exception as error:  # whatever a file does to its decoder, it is the file that is named
        faults.append(("unreadable_mask", _named(pair.mask, error)))
    else:
        counts = np.bincount(mask.ravel(), minlength=256)
        truth = hashlib.blake2b(np.ascontiguousarray(mask).data, digest_size=16).digest()
        strange = strange_values(counts, dataset.labels)
        if strange:
            listed = ", ".join(f"{value} ({counts[value]:,} pixels)" for value in strange[:5])
            more = f" and {len(strange) - 5} more" if len(strange) > 5 else ""
            faults.append(("illegal_values", f"{pair.mask}: {listed}{more}"))
        if size is not None and size != mask.shape:
            turned = ", turned by its EXIF orientation" if size == mask.shape[::-1] else ""
            faults.append(
                (
                    "size_mismatch",
                    f"{pair.mask}: {mask.shape[1]}x{mask.shape[0]}, its image {size[1]}x{size[0]}{turned}",
                )
            )
        elif image is not None and fits_better_turned(image, mask, orientation, dataset.labels.ignore_index):
            warnings.append(("mask_not_turned", f"{pair.mask}, of {pair.image} (EXIF orientation {orientation})"))
    return _Checked(pair, tuple(faults), seen, truth, counts, tuple(warnings))


def _read(dataset: Pairs, key: str) -> bytes:
    try:
        return dataset.read(key)
    except StorageUnavailable:
        raise
    except (StorageError, OSError) as error:
        raise StorageError(str(error)) from error


def _named(key: str, error: Exception) -> str:
    """The error's text, which may name the file already."""
    text = str(error).rstrip(".")
    return text if key in text else f"{key}: {text}"


@dataclass
class _Tally:
    """What the usable masks of a split hold."""

    labels: LabelSet
    usable: int = 0
    ignored: int = 0
    pixels: npt.NDArray[np.int64] = field(init=False)
    images: npt.NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.pixels = np.zeros(self.labels.num_classes, np.int64)
        self.images = np.zeros(self.labels.num_classes, np.int64)

    def add(self, checked: _Checked) -> None:
        if checked.faults or checked.counts is None:
            return
        self.usable += 1
        counts = checked.counts[: self.labels.num_classes]
        self.pixels += counts
        self.images += counts > 0
        self.ignored += int(checked.counts[self.labels.ignore_index])

    def absent(self) -> list[str]:
        return [name for name, pixels in zip(self.labels.names, self.pixels, strict=True) if not pixels]

    def report(self, name: str, listed: int) -> SplitReport:
        rows = zip(self.labels.names, self.pixels.tolist(), self.images.tolist(), strict=True)
        return SplitReport(
            name=name,
            listed=listed,
            usable=self.usable,
            pixels=int(self.pixels.sum()) + self.ignored,
            ignored_pixels=self.ignored,
            classes=tuple(
                ClassCount(class_id=index, class_name=name, pixels=pixels, images=images)
                for index, (name, pixels, images) in enumerate(rows)
            ),
        )


class _Findings:
    """Counts by kind and split, and the first few of each."""

    def __init__(self, examples: int) -> None:
        self._examples = examples
        self._counts: Counter[tuple[Kind, str]] = Counter()
        self._texts: dict[tuple[Kind, str], list[str]] = {}

    def add(self, kind: Kind, split: str, text: str) -> None:
        self._counts[kind, split] += 1
        texts = self._texts.setdefault((kind, split), [])
        if len(texts) < self._examples:
            texts.append(text)

    def of_list(self, name: str, split: Split) -> None:
        """What the list alone shows."""
        for gone in split.missing:
            self.add("missing_image" if gone.kind == "image" else "missing_mask", name, gone.described)
        for files in split.two_files:
            self.add("two_files", name, files)
        for twice in split.duplicates:
            self.add("listed_twice", name, twice)
        if not split.pairs and not split.missing:
            self.add("empty_split", name, name)

    def of_shared_names(self, splits: Mapping[str, Split]) -> None:
        first: dict[str, str] = {}
        for split, found in splits.items():
            for name in _names(found):
                if first.setdefault(name, split) != split:
                    self.add("name_in_two_splits", split, f"{name} (also in {first[name]})")

    def sorted(self, *, warnings: bool) -> tuple[DataFinding, ...]:
        return tuple(
            DataFinding(kind=kind, split=split, count=count, examples=tuple(self._texts[kind, split]))
            for (kind, split), count in self._counts.items()
            if (kind in WARNINGS) == warnings
        )


class _Content:
    """A digest of all that a split holds, in its order."""

    def __init__(self) -> None:
        self._digest = hashlib.blake2b(digest_size=16)
        self._images: list[bytes] = []

    def add(self, checked: _Checked) -> None:
        pixels = checked.seen.pixels if checked.seen else b""
        self._digest.update(repr((checked.pair.name, pixels, checked.truth)).encode())
        if pixels:
            self._images.append(pixels)

    def result(self) -> SplitContent:
        return SplitContent(self._digest.hexdigest(), tuple(self._images))


class _Images:
    """Finds images that are there twice, by their pixels and by their looks."""

    def __init__(self, findings: _Findings) -> None:
        self._findings = findings
        self._first: dict[bytes, tuple[str, str]] = {}
        self._looks: dict[str, Looks] = {}
        self._same: set[tuple[str, str]] = set()

    def add(self, split: str, checked: _Checked) -> None:
        if checked.seen is None or checked.seen.plain:
            return  # images of one colour are equal and tell nothing
        mine = checked.pair.name
        self._looks.setdefault(split, Looks()).add(mine, checked.seen)
        other, name = self._first.setdefault(checked.seen.pixels, (split, mine))
        if name == mine:
            return  # itself, or found by its name
        self._same.add((split, mine))
        kind: Kind = "repeated_image" if other == split else "image_in_two_splits"
        where = "" if other == split else f" in {other}"
        self._findings.add(kind, split, f"{mine} is {name}{where}")

    def compare_looks(self) -> list[str]:
        """Find images that look like one of another split; a note of what was too much to compare."""
        notes, splits = [], list(self._looks)
        for index, split in enumerate(splits):
            for other in splits[:index]:
                mine, theirs = self._looks[split], self._looks[other]
                if not mine.can_be_compared(theirs):
                    notes.append(f"splits {other} and {split} are too large to compare how their images look")
                    continue
                for name, nearest in mine.near(theirs):
                    if name != nearest and (split, name) not in self._same:
                        self._findings.add("similar_in_two_splits", split, f"{name} looks like {nearest} in {other}")
        return notes


def _names(split: Split) -> Iterable[str]:
    return dict.fromkeys([*(pair.name for pair in split.pairs), *(gone.name for gone in split.missing)])


def _unions(splits: Mapping[str, Split]) -> dict[str, list[str]]:
    """The splits that are others together, by their names and by what they list, as VOC's trainval is; with those.

    By the name, too: a train that lists all of val and of another split is no union, but a leak.
    """
    names = {split: set(_names(found)) for split, found in splits.items()}
    unions = {}
    for split, whole in names.items():
        parts = _parts(split, sorted(names.keys() - {split}, key=len, reverse=True))
        if len(parts) > 1 and set().union(*(names[part] for part in parts)) == whole:
            unions[split] = parts
    return unions


def _parts(name: str, others: Sequence[str]) -> list[str]:
    """The names of splits that `name` is made of, such as train and val of trainval or train+val; else nothing."""
    if not name:
        return []
    for other in others:
        if name.startswith(other):
            rest = name.removeprefix(other).lstrip("+-_")
            if not rest:
                return [other]
            if more := _parts(rest, [each for each in others if each != other]):
                return [other, *more]
    return []
