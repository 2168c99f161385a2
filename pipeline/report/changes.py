"""What changed since an earlier run of another recipe: the same photos, labelled by another model or other settings.

Looks at a sample of the images where there are too many to hold in memory; the page says so. The change of one image is
the total variation between its class areas then and now: at least that share of its pixels has another class.
"""

from collections.abc import Iterator
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

SAMPLED = 20_000
"""Images of a run that are looked up in the earlier one."""

ROWS_AT_ONCE = 65_536
LOOK_BACK = 50
"""Runs before this one among which the earlier one is sought."""


@dataclass(frozen=True)
class Changed:
    """An image that both runs labelled, and how much it changed, 0..1."""

    candidate: Candidate
    mask_before: str
    change: float


@dataclass(frozen=True)
class Changes:
    """`compared` images of both runs; the most changed ones first, and the mean change of all compared."""

    before: RunRecord
    compared: int
    sampled: bool
    mean: float
    most: tuple[Changed, ...]


def earlier_run(output: Store, record: RunRecord) -> RunRecord | None:
    """The newest run before `record` that labelled images of the same source by another recipe."""
    older = (run for run in records(output) if run.run_id < record.run_id)
    for run in islice(older, LOOK_BACK):
        if run.recipe != record.recipe and run.counts.ok and run.job.get("source") == record.job.get("source"):
            return run
    return None


def compare(output: Store, before: RunRecord, sample: pa.Table, labelled: int, shown: int) -> Changes:
    """How `sample` (a random sample of the `labelled` rows of a run) differs from what the run `before` made of it."""
    classes: dict[str, int] = {}
    now = _shares(sample, classes)
    most = Extremes(shown * SPARES)
    mask_before: dict[str, str] = {}
    compared, total = 0, 0.0
    for table in _batches(output, before.run_id):
        places = pc.index_in(table.column("key"), value_set=sample.column("key").combine_chunks())
        table = table.filter(places.is_valid())
        rows = places.drop_null().to_numpy()
        # The same key is only the same photo if its etag is, too.
        same = pc.equal(table.column("etag"), sample.column("etag").take(rows)).to_numpy()
        table, rows = table.filter(same), rows[same]
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
    found = [Changed(item, mask_before[item.key], change) for change, item in most.best() if change > 0]
    return Changes(before, compared, len(sample) < labelled, total / compared if compared else 0.0, tuple(found))


def _batches(output: Store, run_id: str) -> Iterator[pa.Table]:
    """The labelled rows of a run in tables of some size: a search in small ones would mostly build its index."""
    held: list[pa.Table] = []
    rows = 0
    for table in read_results(output, run_id, ["key", "etag", "status", "mask_key", "areas"]):
        held.append(table.filter(pc.equal(table.column("status"), "ok")))
        rows += len(held[-1])
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
