"""What an output holds that nothing refers to: leftovers of shards, plans and drivers that died.

Only files that jobs write, by the names they give them, can be leftovers; whatever else is under OUTPUT is not ours.
The committed results say which masks count, and the plans of unfinished runs which ones they may still name. An output
whose run records, plans or results are incomplete or damaged is left alone: there nobody can tell.

Removing is safe however slow it is, and however slow the runs are that it meets: `pipeline.outputs.generation` says
how. The lease only keeps it from working against a driver.
"""

import itertools
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import NoReturn

import numpy as np

from pipeline.errors import AccessDenied, InputError, ObjectMissing, PipelineError, StorageError, StorageUnavailable
from pipeline.outputs import runs
from pipeline.outputs.checked import CHECKED_COLUMNS, OutputFinding, checked_results
from pipeline.outputs.claim import claim_for_removal, is_claimed_for_run
from pipeline.outputs.generation import begin_generation
from pipeline.outputs.index import index_folders, newest_index
from pipeline.outputs.lease import Lease
from pipeline.outputs.marks import Marks, mark_set, marks
from pipeline.outputs.mask_formats import mask_formats
from pipeline.outputs.mask_formats.base import MaskFile, MaskFormat
from pipeline.outputs.masks import mask_file
from pipeline.outputs.plan import planned_runs, read_manifest, read_shards
from pipeline.outputs.results import committed_shards, result_runs
from pipeline.storage.local import LocalStore
from pipeline.storage.store import ObjectInfo, Store

DELETES_AT_ONCE = 32
EXAMPLES = 3

YOUNG_INDEX = timedelta(hours=1)
"""Index files younger than this are never leftovers: compaction holds no lease, and may be at work on them."""

_LOOKED_UP_AT_ONCE = 10_000
_RUN = re.compile(r"runs/([^/]+)/(run\.json|progress\.json|where\.txt|plan/plan\.json|plan/part-\d{5}\.parquet)")
_BESIDE = {
    folder: re.compile(rf"{folder}/run_id=([^/]+)/shard-(\d{{8}})\.parquet") for folder in ("class_areas", "features")
}
"""What a shard writes beside its results."""
_TOTALS = re.compile(r"class_totals/run_id=([^/]+)\.parquet")
_REPORT = re.compile(r"reports/([^/]+)/index\.html")
_LEASE = re.compile(r"lease/(\d{8})\.(json|heartbeat)")
_INDEX = re.compile(r"index/(\d{8}-[0-9a-f]{16})/(manifest\.json|shards\.parquet|[0-9a-f]{16}/part-\d{5}\.parquet)")
_CHECK = re.compile(r"\.fcn-check-[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Leftover:
    """One file that nothing refers to. `kind` says what it is left of."""

    kind: str
    key: str
    size: int


@dataclass
class KindCount:
    """Leftovers of one kind."""

    files: int = 0
    bytes: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass
class Collected:
    """What was found, by kind, and whether it was removed."""

    deleted: bool
    kinds: dict[str, KindCount] = field(default_factory=dict)

    @property
    def files(self) -> int:
        return sum(kind.files for kind in self.kinds.values())

    @property
    def bytes(self) -> int:
        return sum(kind.bytes for kind in self.kinds.values())

    def add(self, leftover: Leftover) -> None:
        kind = self.kinds.setdefault(leftover.kind, KindCount())
        kind.files += 1
        kind.bytes += leftover.size
        if len(kind.examples) < EXAMPLES:
            kind.examples.append(leftover.key)


def collect(output: Store, older_than: timedelta, *, delete: bool = False) -> Collected:
    """Find the leftovers that are older than `older_than`, and with `delete` remove them.

    Removing takes the output's lease: raises InputError while a driver is at work, PipelineError when one takes over,
    and AccessDenied where files may not be deleted. Both raise InputError for an output whose results are incomplete,
    and where a run record, a plan or a results file is not sound, and StorageError where the service overwrites what
    must be created once.
    """
    collected = Collected(deleted=delete)
    if not delete:
        for leftover in leftovers(output, older_than):
            collected.add(leftover)
        return collected
    output.check_writable()
    with Lease.acquire(output) as lease, ThreadPoolExecutor(DELETES_AT_ONCE, "gc") as threads:
        found = _removable(output, older_than)
        while chunk := list(itertools.islice(found, DELETES_AT_ONCE * 8)):
            if lease.lost:
                raise PipelineError(f"another run took over {output.uri}; gc has stopped")
            for leftover, _ in zip(chunk, threads.map(lambda each: output.delete(each.key), chunk), strict=True):
                collected.add(leftover)
    return collected


def _removable(output: Store, older_than: timedelta) -> Iterator[Leftover]:
    """The same leftovers, for removal: where masks are among them, found again under the rules of generations.

    A generation begins only where masks go, so that the names of masks do not change without a cause. Of plans only
    those that no driver can make a run of any more.
    """
    found = leftovers(output, older_than)
    first = next(found, None)
    if first is not None and first.kind in map(_kind, mask_formats()):
        found = leftovers(output, older_than, before=begin_generation(output))
    elif first is not None:
        found = itertools.chain([first], found)
    for (kind, folder), files in itertools.groupby(found, key=lambda each: (each.kind, each.key.split("/")[1:2])):
        if kind != "plans" or claim_for_removal(output, *folder):
            yield from files


def leftovers(output: Store, older_than: timedelta, before: int | None = None) -> Iterator[Leftover]:
    """Every leftover under `output` that is older than `older_than`, kind by kind, masks first; of masks only those of
    generations `before` that one.

    Files behind a link to a folder are none: another output may have them. Streams. Memory: eight bytes for each mask
    that counts.
    """
    limit = datetime.now(UTC) - older_than

    def old(kind: str, infos: Iterable[ObjectInfo], than: datetime = limit) -> Iterator[Leftover]:
        ours = (info for info in infos if not (isinstance(output, LocalStore) and output.is_behind_link(info.key)))
        return (Leftover(kind, info.key, info.size) for info in ours if info.last_modified < than)

    # In this order: a plan that is not there yet becomes a run of a later generation; one that is there no more, though
    # its run began, is missed below, and then nothing is left over.
    plans = planned_runs(output)
    records = _records(output)
    committed = {run_id: committed_shards(output, run_id) for run_id in result_runs(output)}
    _check_complete(output, records, committed)
    known = committed.keys() | {record.run_id for record in records}
    awaited = _awaited(output, plans, records, committed)
    counting = _Counting(mark_set(_committed_masks(output, records)), mark_set(awaited), before)

    for each in mask_formats():
        yield from old(_kind(each), _masks(output, each, records, counting))
    for folder in _BESIDE:
        yield from old(folder, _beside_results(output, folder))
    yield from old("class_totals", (info for _, info in _of_unknown_runs(output, "class_totals/", _TOTALS, known)))
    yield from _plans(output, known, limit)
    yield from old("reports", (info for _, info in _of_unknown_runs(output, "reports/", _REPORT, known)))
    yield from old("leases", _leases(output))
    yield from old("index", _indexes(output), min(limit, datetime.now(UTC) - YOUNG_INDEX))
    yield from old("checks", (info for info in output.list(".fcn-check-") if _CHECK.fullmatch(info.key)))
    if isinstance(output, LocalStore):
        yield from old("unfinished writes", output.abandoned())


def _records(output: Store) -> list[runs.RunRecord]:
    """All run records, newest first. Raises DamagedRecord: what a run needs that cannot be read is not known."""
    return [runs.read_record(output, run_id) for run_id in runs.run_ids(output)]


def _check_complete(output: Store, records: Iterable[runs.RunRecord], committed: Mapping[str, set[int]]) -> None:
    for record in records:
        there = len(committed.get(record.run_id, ()))
        if record.state == "finished" and there < record.shards:
            raise InputError(
                f"{output.uri}: run {record.run_id} is finished, but only {there} of its {record.shards} results files "
                "are there, so nobody can tell which masks count; bring them back (see `fcn verify`), or move "
                f"runs/{record.run_id} away"
            )


@dataclass(frozen=True)
class _Counting:
    """What keeps files of masks from being leftovers.

    `committed` are marks of whole names. `awaited` are marks of names without recipe and generation: of images, and
    shards, that unfinished runs have not committed. Whatever format, recipe and generation theirs are, they keep all
    masks of these images, so that this need not be known of a plan that is no run yet.
    """

    committed: Marks
    awaited: Marks
    before: int | None

    def may_go(self, file: MaskFile) -> bool:
        return self.before is None or file.generation < self.before


def _kind(masks: MaskFormat) -> str:
    """What leftovers of that format are called: `mask tars`."""
    return masks.folder.replace("_", " ")


def _masks(
    output: Store, masks: MaskFormat, records: list[runs.RunRecord], counting: _Counting
) -> Iterator[ObjectInfo]:
    """Files of masks, of known recipes, that no committed row names, and no unfinished run may."""
    recipes = {record.recipe for record in records}
    if not recipes:
        return

    def holds(info: ObjectInfo) -> str:
        file = masks.parse(info.key)
        assert file is not None, "only names of masks come here"
        return file.holds

    named = ((info, file) for info in output.list(f"{masks.folder}/") if (file := masks.parse(info.key)))
    ours = (info for info, file in named if file.recipe in recipes and counting.may_go(file))
    uncommitted = _without(ours, lambda info: info.key, counting.committed)
    yield from _without(uncommitted, holds, counting.awaited)


def _without(infos: Iterator[ObjectInfo], name: Callable[[ObjectInfo], str], those: Marks) -> Iterator[ObjectInfo]:
    """`infos` without those whose name is among the marks."""
    while chunk := list(itertools.islice(infos, _LOOKED_UP_AT_ONCE)):
        found = np.isin(marks(map(name, chunk)), those)
        yield from (info for info, is_there in zip(chunk, found.tolist(), strict=True) if not is_there)


def _refuse(output: Store, finding: OutputFinding) -> NoReturn:
    raise InputError(
        f"{output.uri}: {finding.file}: {finding.problem}. What it stood for may be lost, so nothing is left over "
        "for certain; mend it first (`fcn verify` lists all that is damaged, docs/upkeep.md says what to do)"
    )


def _committed_masks(output: Store, records: Iterable[runs.RunRecord]) -> Iterator[Marks]:
    """The files, tars among them, that hold the masks of committed rows.

    Raises InputError where a run record, a plan or a results file is not sound: it may name other masks than it did.
    """

    def refuse(finding: OutputFinding) -> None:
        _refuse(output, finding)

    recorded = {record.run_id: record for record in records}
    for run_id in result_runs(output):
        if run_id not in recorded:
            refuse(OutputFinding(f"results/run_id={run_id}", "are results of a run that has no run.json"))
    for record in recorded.values():
        for shard in checked_results(output, record, refuse, CHECKED_COLUMNS):
            yield marks({mask_file(key) for key in shard.rows["mask_key"].drop_null().to_pylist()})


def _awaited(
    output: Store, plans: Iterable[str], records: Iterable[runs.RunRecord], committed: Mapping[str, set[int]]
) -> list[Marks]:
    """Names, without recipe and generation, of what all plans still have to do, but for those of finished runs.

    Also those of runs that nobody will go on with, for an actor of theirs may be slow, and commit: what they keep is at
    most what was in work when they ended. And those of plans that have no record yet.
    """
    found: list[Marks] = []
    states = {record.run_id: record.state for record in records}
    for run_id in sorted({*plans, *states}):
        if states.get(run_id) == "finished":
            continue
        try:
            manifest = read_manifest(output, run_id)
            if manifest is None:
                raise ObjectMissing("the run has no complete plan")
            shards = read_shards(output, run_id, manifest, but=committed.get(run_id, set()))
            found.extend(marks(name for each in mask_formats() for name in each.names(shard)) for shard in shards)
        except (AccessDenied, StorageUnavailable):
            raise
        except StorageError as error:
            # What is left of a plan that has no record by now cannot become a run: see `require_plan`.
            if run_id in states or runs.has_record(output, run_id):
                _refuse(output, OutputFinding(f"runs/{run_id}/plan", str(error)))
    return found


def _beside_results(output: Store, folder: str) -> Iterator[ObjectInfo]:
    """Tables of shards that have no results."""
    named = (
        (match, info)
        for info in output.list(f"{folder}/")
        if (match := _BESIDE[folder].fullmatch(info.key)) and runs.is_run_id(match[1])
    )
    for run_id, files in itertools.groupby(named, key=lambda item: item[0][1]):
        shards = committed_shards(output, run_id)
        yield from (info for match, info in files if int(match[2]) not in shards)


def _of_unknown_runs(
    output: Store, prefix: str, name: re.Pattern[str], known: Collection[str]
) -> list[tuple[str, ObjectInfo]]:
    """Files of runs that are not `known`, with their runs. Folders whose names no run can have are somebody's own.

    `known` may be old. So runs are looked for once more when the files were listed: a file is never there before the
    record, or the results, of its run.
    """
    named = ((match[1], info) for info in output.list(prefix) if (match := name.fullmatch(info.key)))
    unknown = [(run_id, info) for run_id, info in named if runs.is_run_id(run_id) and run_id not in known]
    known = {*runs.run_ids(output), *result_runs(output)} if unknown else known
    return [(run_id, info) for run_id, info in unknown if run_id not in known]


def _plans(output: Store, known: Collection[str], limit: datetime) -> Iterator[Leftover]:
    """Plans that never became a run, each as a whole: while a part of one is young, it is still being written.

    One that a driver has claimed may become a run at any later time, or was its last deed.
    """
    named = _of_unknown_runs(output, "runs/", _RUN, known)
    for run_id, files in itertools.groupby(named, key=lambda item: item[0]):
        plan = [info for _, info in files]
        if max(info.last_modified for info in plan) < limit and not is_claimed_for_run(output, run_id):
            yield from (Leftover("plans", info.key, info.size) for info in plan)


def _leases(output: Store) -> Iterator[ObjectInfo]:
    """All but the newest, whose number must stay so that none is given twice."""
    numbered = [(match, info) for info in output.list("lease/") if (match := _LEASE.fullmatch(info.key))]
    newest = max((int(match[1]) for match, _ in numbered if match[2] == "json"), default=0)
    return (info for match, info in numbered if int(match[1]) < newest)


def _indexes(output: Store) -> Iterator[ObjectInfo]:
    """Indexes that a newer one stands for, and those that were never finished."""
    newest = newest_index(output)
    dead = index_folders(output, complete=False)
    if newest is not None:
        dead |= {index_id for index_id in index_folders(output, complete=True) if index_id < newest.id}
    files = ((match, info) for info in output.list("index/") if (match := _INDEX.fullmatch(info.key)))
    for index_id, group in itertools.groupby(files, key=lambda item: item[0][1]):
        if index_id in dead:
            # The manifest first: without it there is no index, so half of one is never taken for whole.
            yield from sorted((info for _, info in group), key=lambda info: not info.key.endswith("manifest.json"))
