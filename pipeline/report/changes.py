"""What changed since what was current before: the same images, labelled by another model or other settings.

Looks at a sample of the images where there are too many to hold in memory; the page says so. The change of one image is
the total variation between its class areas then and now: at least that share of its pixels has another class.
"""

import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.outputs.results import read_results
from pipeline.outputs.runs import RunRecord, records
from pipeline.report.samples import Candidate, Extremes
from pipeline.report.summary import SPARES, flat_areas
from pipeline.storage.store import Store
from pipeline.storage.uri import is_absolute

SAMPLED = 20_000
"""Images of a run that are looked up in the earlier one."""

ROWS_AT_ONCE = 65_536
LOOK_BACK = 400
"""Runs before this one among which those of the other variant are sought: a year of nights."""


@dataclass(frozen=True)
class Changed:
    """An image that both runs labelled, and how much it changed, 0..1."""

    candidate: Candidate
    mask_before: str
    change: float


@dataclass(frozen=True)
class Changes:
    """`compared` of the `looked_at` segmented images had a mask of the same bytes before; the most changed ones first,
    and the mean change of all compared. `sampled`: the images looked at are a random sample of the run's.
    """

    before: RunRecord
    looked_at: int
    compared: int
    sampled: bool
    mean: float
    most: tuple[Changed, ...]


def earlier_runs(output: Store, record: RunRecord) -> list[RunRecord]:
    """The runs before `record` whose masks were current for its source: those of the newest other variant, newest
    first. One run alone may have been an incremental one, with few of the images.
    """
    older = (run for run in records(output) if run.run_id < record.run_id)
    return of_other_variant(islice(older, LOOK_BACK), record.recipe, record.job.get("source"))


def of_other_variant(older: Iterable[RunRecord], variant: str, source: object) -> list[RunRecord]:
    """Of runs, newest first, those of the newest variant but `variant` that segmented images of `source`."""
    found: list[RunRecord] = []
    for run in older:
        # An unfinished run's record may not know yet what it committed.
        labelled = run.counts.ok or run.state != "finished"
        other = run.recipe != variant if not found else run.recipe == found[0].recipe
        if other and labelled and _is_same_place(run.job.get("source"), source):
            found.append(run)
    return found


def _is_same_place(before: object, now: object) -> bool:
    """Whether two records mean the same source: those of earlier versions may have it relative to some folder."""
    if before == now:
        return True
    relative = isinstance(before, str) and isinstance(now, str) and not is_absolute(before)
    return relative and f"/{now}".endswith(f"/{posixpath.normpath(str(before))}")


def compare(output: Store, before: Sequence[RunRecord], sample: pa.Table, labelled: int, shown: int) -> Changes:
    """How `sample` (a random sample of the `labelled` rows of a run) differs from what was current before it.

    What was current is the newest row of each image in the runs `before`, newest first.
    """
    classes: dict[str, int] = {}
    now = _shares(sample, classes)
    most = Extremes(shown * SPARES)
    mask_before: dict[str, str] = {}
    seen = np.zeros(len(sample), np.bool_)
    compared, total = 0, 0.0
    for table in _batches(output, [run.run_id for run in before]):
        places = pc.index_in(table.column("key"), value_set=sample.column("key").combine_chunks())
        table = table.filter(places.is_valid())
        rows = places.drop_null().to_numpy()
        # Only the newest row of an image was current; within a batch the first is the newest.
        _, first = np.unique(rows, return_index=True)
        fresh = np.zeros(len(rows), np.bool_)
        fresh[first] = True
        fresh &= ~seen[rows]
        seen[rows] = True
        # The same key is only the same image if its etag is, too.
        same = pc.equal(table.column("etag"), sample.column("etag").take(rows)).to_numpy()
        has_mask = pc.equal(table.column("status"), "ok").to_numpy()
        kept_rows = fresh & same & has_mask
        table, rows = table.filter(kept_rows), rows[kept_rows]
        if not len(rows):
            continue
        then = _shares(table, classes)
        # Both over all classes that either has: model and label set may be another.
        present = np.pad(now[rows], ((0, 0), (0, then.shape[1] - now.shape[1])))
        change = np.abs(then - present).sum(axis=1) / 2
        compared += len(rows)
        total += float(change.sum())
        (kept,) = np.nonzero(change > most.bar)
        for row, name in zip(rows[kept].tolist(), table.column("mask_key").take(kept).to_pylist(), strict=True):
            mask_before[sample.column("key")[row].as_py()] = name
        most.offer(change, sample.take(rows))
        if seen.all():
            break
    found = [Changed(item, mask_before[item.key], change) for change, item in most.best() if change > 0]
    sampled = len(sample) < labelled
    return Changes(before[0], len(sample), compared, sampled, total / compared if compared else 0.0, tuple(found))


def _batches(output: Store, run_ids: Sequence[str]) -> Iterator[pa.Table]:
    """The rows of the runs, one after the other, in tables of some size: a search in small ones would mostly build its
    index."""
    held: list[pa.Table] = []
    rows = 0
    for run_id in run_ids:
        for table in read_results(output, run_id, ["key", "etag", "status", "mask_key", "areas"]):
            held.append(table)
            rows += len(table)
            if rows >= ROWS_AT_ONCE:
                yield pa.concat_tables(held)
                held, rows = [], 0
    if rows:
        yield pa.concat_tables(held)


def _shares(table: pa.Table, classes: dict[str, int]) -> npt.NDArray[np.float32]:
    """What each class covers of each image, float32 [rows, classes]; unknown names are added to `classes`."""
    rows, areas = flat_areas(table)
    names = areas.field("class_name").dictionary_encode()
    columns = np.array([classes.setdefault(name, len(classes)) for name in names.dictionary.to_pylist()], np.int64)
    shares = np.zeros((len(table), len(classes)), np.float32)
    if len(rows):
        shares[rows, columns[names.indices.to_numpy()]] = areas.field("fraction").to_numpy(zero_copy_only=False)
    return shares
