"""What a run's committed results add up to, read once as a stream: counts, areas, confidence, errors, and the images
worth a look.

Rows hold no times (equal work gives equal files): when work was done is told by the files' own dates.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from fcn_core.labels import VOID
from pipeline.outputs.current import current_rows
from pipeline.outputs.results import ClassTotal, class_totals, read_result_files
from pipeline.report.samples import COLUMNS, Candidate, Extremes, RandomRows, candidates
from pipeline.storage.store import Store

CONFIDENCE_BINS = 25
EXAMPLES_A_REASON = 5
MAX_CLASSES = 256
MANY_FAILED = 0.5
"""From this share of failed images on, pages say so at their top and errors come first."""

SPARES = 3
"""Times more images are kept than are shown: a photo may have changed or gone meanwhile."""


@dataclass(frozen=True)
class Commit:
    """A shard as its results file tells of it: when it was written, and how many images it holds."""

    at: datetime
    images: int


@dataclass(frozen=True)
class ErrorSample:
    key: str
    message: str


@dataclass(frozen=True)
class ErrorGroup:
    """The images that failed for one reason, and the first few of them."""

    reason: str
    images: int
    examples: tuple[ErrorSample, ...]


@dataclass(frozen=True)
class Summary:
    """All that a report says of a run's results.

    `classes` are in index order; void, if any pixel is, comes last. `confidence` counts segmented images by confidence,
    int64 [CONFIDENCE_BINS] over 0..1.
    `sample` is a random sample of the labelled rows with samples.COLUMNS, None when there are none. `rare` has
    candidates for each class by its id, those it covers most of first.
    """

    images: int
    ok: int
    bytes: int
    pixels: int
    errors: tuple[ErrorGroup, ...]
    classes: tuple[ClassTotal, ...]
    confidence: npt.NDArray[np.int64]
    mean_confidence: float
    commits: tuple[Commit, ...]
    sample: pa.Table | None
    least_confident: tuple[Candidate, ...]
    rare: dict[int, tuple[Candidate, ...]]

    @property
    def mostly_failed(self) -> bool:
        return self.images > 0 and self.images - self.ok >= MANY_FAILED * self.images


def summarize(output: Store, run_id: str, *, shown: int, sampled: int, names: tuple[str, ...] = ()) -> Summary:
    """Read the committed results of `run_id`.

    shown: images a group of the gallery, of which a few times more are kept. sampled: rows in the random sample.
    names: of the classes, where the label set is known; others are found in the rows.
    """
    seed = int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:8], "big")
    tally = _Tally(shown * SPARES, sampled, seed, names)
    for info, table in read_result_files(output, run_id, ("status", "error", "message", *COLUMNS)):
        tally.add(info.last_modified, table)
    return tally.summary()


def summarize_current(output: Store, *, shown: int, sampled: int) -> Summary:
    """The same of what an output knows now: the newest row of each image by the newest variant, over all runs."""
    tally = _Tally(shown * SPARES, sampled, 0, ())
    for batch in current_rows(output, columns=("status", "error", "message", *COLUMNS)):
        tally.add(None, pa.Table.from_batches([batch]))
    return tally.summary()


class _Tally:
    def __init__(self, kept: int, sampled: int, seed: int, names: tuple[str, ...]) -> None:
        self._names = dict(enumerate(names))
        self._images = self._ok = self._bytes = self._pixels = 0
        self._class_pixels = [0] * MAX_CLASSES
        self._class_images = np.zeros(MAX_CLASSES, np.int64)
        self._histogram = np.zeros(CONFIDENCE_BINS, np.int64)
        self._confidences = 0.0
        self._errors: Counter[str] = Counter()
        self._examples: dict[str, list[ErrorSample]] = {}
        self._commits: list[Commit] = []
        self._sample = RandomRows(sampled, seed)
        self._least_confident = Extremes(kept)
        self._rare = [Extremes(kept) for _ in range(MAX_CLASSES)]

    def add(self, at: datetime | None, table: pa.Table) -> None:
        """A shard's rows, and when they were committed; None where they are of several shards."""
        self._images += len(table)
        if at is not None:
            self._commits.append(Commit(at, len(table)))
        labelled = pc.equal(table.column("status"), "ok")
        self._add_errors(table.filter(pc.invert(labelled)))
        ok = table.filter(labelled)
        self._ok += len(ok)
        self._bytes += pc.sum(table.column("size")).as_py() or 0
        if not len(ok):
            return
        confidence = ok.column("confidence").to_numpy().astype(np.float64)
        counts, _ = np.histogram(confidence, CONFIDENCE_BINS, (0.0, 1.0))
        self._histogram += counts
        self._confidences += float(np.nansum(confidence))
        self._least_confident.offer(-confidence, ok)
        self._sample.offer(ok.select(COLUMNS))
        self._add_areas(ok)

    def _add_areas(self, ok: pa.Table) -> None:
        rows, areas = flat_areas(ok)
        ids = areas.field("class_id").to_numpy(zero_copy_only=False)
        pixels = areas.field("pixels").to_numpy(zero_copy_only=False)
        fractions = areas.field("fraction").to_numpy(zero_copy_only=False)
        sums = np.zeros(MAX_CLASSES, np.int64)
        np.add.at(sums, ids, pixels)
        present = np.bincount(ids, minlength=MAX_CLASSES)
        self._class_images += present
        for class_id in np.flatnonzero(present).tolist():
            self._class_pixels[class_id] += int(sums[class_id])
            self._pixels += int(sums[class_id])
            if class_id not in self._names:
                self._names[class_id] = areas.field("class_name")[int(np.argmax(ids == class_id))].as_py()
        bars = np.array([extremes.bar for extremes in self._rare])
        (notable,) = np.nonzero(fractions > bars[ids])
        for class_id in np.unique(ids[notable]).tolist():
            of_class = notable[ids[notable] == class_id]
            self._rare[class_id].offer(fractions[of_class], ok.take(rows[of_class]))

    def _add_errors(self, failed: pa.Table) -> None:
        for item in pc.value_counts(failed.column("error").combine_chunks()).to_pylist():
            self._errors[str(item["values"])] += item["counts"]
        wanting = [reason for reason in self._errors if len(self._examples.get(reason, ())) < EXAMPLES_A_REASON]
        for reason in wanting:
            kept = self._examples.setdefault(reason, [])
            of_reason = failed.filter(pc.equal(failed.column("error"), reason))
            for row in of_reason.slice(0, EXAMPLES_A_REASON - len(kept)).select(["key", "message"]).to_pylist():
                kept.append(ErrorSample(row["key"], row["message"] or ""))

    def summary(self) -> Summary:
        known = range(max((class_id for class_id in self._names if class_id != VOID), default=-1) + 1)
        names = [self._names.get(class_id, f"class {class_id}") for class_id in known]
        pixels, images = self._class_pixels[: len(names)], self._class_images[: len(names)].tolist()
        void = self._class_pixels[VOID], int(self._class_images[VOID])
        return Summary(
            images=self._images,
            ok=self._ok,
            bytes=self._bytes,
            pixels=self._pixels,
            errors=tuple(
                ErrorGroup(reason, images, tuple(self._examples.get(reason, ())))
                for reason, images in sorted(self._errors.items(), key=lambda item: (-item[1], item[0]))
            ),
            classes=tuple(class_totals(names, pixels, images, void)),
            confidence=self._histogram,
            mean_confidence=self._confidences / self._ok if self._ok else 0.0,
            commits=tuple(sorted(self._commits, key=lambda commit: commit.at)),
            sample=self._sample.rows(),
            least_confident=tuple(candidate for _, candidate in self._least_confident.best()),
            rare={
                class_id: tuple(candidate for _, candidate in extremes.best())
                for class_id, extremes in enumerate(self._rare)
                if extremes.best()
            },
        )


def flat_areas(table: pa.Table) -> tuple[npt.NDArray[np.int64], pa.StructArray]:
    """The areas of all rows one after the other, and the row that each belongs to."""
    areas = table.column("areas").combine_chunks()
    lengths = pc.fill_null(pc.list_value_length(areas), 0).to_numpy(zero_copy_only=False)
    return np.repeat(np.arange(len(table)), lengths), areas.flatten()


def random_candidates(summary: Summary, count: int) -> list[Candidate]:
    """The first `count` of the sample."""
    return candidates(summary.sample.slice(0, count)) if summary.sample is not None else []
