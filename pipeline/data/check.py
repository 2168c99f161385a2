"""Looks through a data set before anybody trains on it: every list, every file, every label value.

Pairs stream through a pool of threads; what is kept of an image is its name and a digest of its bytes, so memory does
not grow with pixels. Nothing is mended: each fault is named with its file, and what to do about it.
"""

import hashlib
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from fcn_core.data.datasets import Pair, Pairs, decode_displayed, strange_values
from fcn_core.data.mask_coding import MaskError, MaskFault, read_mask
from fcn_core.errors import DataError
from fcn_core.labels import LabelSet
from pipeline.codec.processes import CodecPool
from pipeline.container import usable_cpus
from pipeline.data.datasets import READS_AT_ONCE, open_catalog
from pipeline.data.layouts import Split
from pipeline.data.orientation import fits_better_turned
from pipeline.data.report import WARNINGS, ClassCount, DataFinding, DataReport, Kind, SplitReport
from pipeline.errors import StorageError, StorageUnavailable
from pipeline.jobs.dataset import DatasetOptions

EXAMPLES = 10
"""Findings of a kind and split that are spelled out."""

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
) -> DataReport:
    """Read every image and mask of these splits; by default of all, less those that only sum up others (trainval).

    `on_image` is told how many of how many images are done. Raises InputError for a data set that cannot be opened, a
    split that is not there, StorageUnavailable when storage stops answering on the way.
    """
    if options.cache is None:
        options = options.model_copy(update={"cache_bytes": 0})  # each file is read once
    catalog = open_catalog(options)
    found = {name: catalog.split(name) for name in dict.fromkeys(splits or catalog.splits())}
    notes = [f"split {name}: {note}" for name, split in found.items() for note in split.notes]
    for name, parts in ({} if splits else _sums(found)).items():
        notes.append(f"split {name} is {' + '.join(parts)} together and was not read again")
        del found[name]

    findings = _Findings(examples)
    for name, split in found.items():
        findings.of_list(name, split)
    findings.of_shared_names(found)
    total, done = sum(len(split.pairs) for split in found.values()), 0
    reports = []
    images = _Images(findings)
    # A stranger's files, and credentials are in this process.
    with CodecPool(usable_cpus()) as codecs:
        for name, split in found.items():
            tally = _Tally(catalog.labels)
            for checked in _check_pairs(catalog.pairs(split), codecs):
                for kind, text in (*checked.faults, *checked.warnings):
                    findings.add(kind, name, text)
                images.add(name, checked)
                tally.add(checked)
                if checked.counts is not None and not checked.faults and not checked.counts[: len(tally.pixels)].any():
                    findings.add("empty_mask", name, checked.pair.mask)
                done += 1
                on_image(done, total)
            reports.append(tally.report(name, len(split.pairs) + len({gone.name for gone in split.missing})))
            for class_name in tally.absent():
                findings.add("absent_class", name, class_name)
    return DataReport(
        dataset=catalog.uri,
        labels=catalog.labels.name,
        splits=tuple(reports),
        problems=findings.sorted(warnings=False),
        warnings=findings.sorted(warnings=True),
        notes=tuple(notes),
    )


@dataclass(frozen=True, slots=True)
class _Checked:
    """One pair looked at. `faults` keep it from being trained on. `counts`: pixels by mask value, int64 [256], if the
    mask could be read.
    """

    pair: Pair
    faults: tuple[tuple[Kind, str], ...]
    digest: bytes | None
    counts: npt.NDArray[np.int64] | None
    warnings: tuple[tuple[Kind, str], ...] = ()


def _check_pairs(dataset: Pairs, codecs: CodecPool) -> Iterator[_Checked]:
    """Every pair in order, read and decoded by threads that stay only a little ahead."""
    waiting: deque[Future[_Checked]] = deque()
    with ThreadPoolExecutor(READS_AT_ONCE, thread_name_prefix="check") as threads:
        try:
            for pair in dataset.pairs:
                waiting.append(threads.submit(_check_pair, dataset, pair, codecs))
                if len(waiting) >= 2 * READS_AT_ONCE:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


def _check_pair(dataset: Pairs, pair: Pair, codecs: CodecPool) -> _Checked:
    faults: list[tuple[Kind, str]] = []
    warnings: list[tuple[Kind, str]] = []
    digest = size = counts = image = None
    orientation = 1
    try:
        data = _read(dataset, pair.image)
        digest = hashlib.blake2b(data, digest_size=16).digest()
        image, orientation = decode_displayed(data, pair.image, codecs.decode_for_core)
        size = image.shape[:2]
        if orientation != 1:
            warnings.append(("turned_image", f"{pair.image} (EXIF orientation {orientation})"))
    except (DataError, StorageError, OSError) as error:
        faults.append(("unreadable_image", _named(pair.image, error)))
    try:
        mask = read_mask(_read(dataset, pair.mask), dataset.labels, dataset.coding, dataset.recode)
    except MaskError as error:
        faults.append((_KIND_OF_FAULT[error.fault], f"{pair.mask}: {error}"))
    except (StorageError, OSError) as error:
        faults.append(("unreadable_mask", _named(pair.mask, error)))
    else:
        counts = np.bincount(mask.ravel(), minlength=256)
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
    return _Checked(pair, tuple(faults), digest, counts, tuple(warnings))


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
            self.add("missing_image" if gone.kind == "image" else "missing_mask", name, gone.place)
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


class _Images:
    """Finds images that are there twice, by a digest of their bytes."""

    def __init__(self, findings: _Findings) -> None:
        self._findings = findings
        self._first: dict[bytes, tuple[str, str]] = {}

    def add(self, split: str, checked: _Checked) -> None:
        if checked.digest is None:
            return
        other, name = self._first.setdefault(checked.digest, (split, checked.pair.name))
        if name == checked.pair.name:
            return  # itself, or found by its name
        kind: Kind = "repeated_image" if other == split else "image_in_two_splits"
        where = "" if other == split else f" in {other}"
        self._findings.add(kind, split, f"{checked.pair.name} is {name}{where}")


def _names(split: Split) -> Iterable[str]:
    return dict.fromkeys([*(pair.name for pair in split.pairs), *(gone.name for gone in split.missing)])


def _sums(splits: Mapping[str, Split]) -> dict[str, list[str]]:
    """The splits that are exactly several others together, as VOC's trainval is, with those others."""
    names = {split: set(_names(found)) for split, found in splits.items()}
    sums = {}
    for split, whole in names.items():
        parts = [other for other, part in names.items() if other != split and part and part < whole]
        if len(parts) > 1 and set().union(*(names[part] for part in parts)) == whole:
            sums[split] = parts
    return sums
