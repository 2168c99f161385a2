"""`fcn compact`: make the next index of an output, of the newest one and the results files that it does not cover.

An external merge sort, so that memory does not grow with the history: new rows are sorted a million at a time and put
aside on this machine's disk, and then merged with the parts of the old index as the parts of the new one. Whatever
interrupts it, and whoever does the same at the same time, no harm is done: files are created, never replaced, equal
names have equal contents, and the manifest comes last.
"""

import contextlib
import hashlib
import tempfile
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc

from pipeline.errors import ObjectExists
from pipeline.outputs.identity import digest
from pipeline.outputs.index import (
    FORMAT,
    INDEX_SCHEMA,
    NO_SHARDS,
    SHARDS_SCHEMA,
    CommittedResults,
    Coverage,
    IndexedRecipe,
    IndexManifest,
    IndexPart,
    Shards,
    index_folders,
    manifest_key,
    part_key,
    read_history,
    read_part,
    shards_key,
)
from pipeline.outputs.results import READS_AT_ONCE, read_table, shard_key
from pipeline.outputs.seal import to_json, to_parquet
from pipeline.parallel import in_parallel
from pipeline.spill import read_spill, write_spill
from pipeline.storage.store import Store

MANY_FILES = 256
MANY_BYTES = 256 << 20
"""From so many results files, or bytes of them, that no index covers, planning compacts before it looks."""

SORTED_AT_ONCE = 1 << 20
"""Rows in memory while they are sorted: about 200 MB."""

PART_ROWS = 1 << 18

SPILL_BATCH_ROWS = 1 << 14
"""Rows in memory of each file that was put aside, while all of them are merged."""

_IDS = ("model_id", "params_id")
_ORDER = [("key", "ascending"), ("run_id", "ascending"), ("shard", "ascending")]

Ids = tuple[str, str]
"""A recipe: model_id and params_id."""


@dataclass(frozen=True)
class Compacted:
    """The newest index of an output: its rows and the results files it covers, `added` of them since the one before.

    `changed` is false when it was there already.
    """

    id: str
    rows: int
    shards: int
    added: int
    changed: bool


def is_due(history: CommittedResults) -> bool:
    """Whether so much of a history is in no index that planning gains from a new one."""
    return history.late_files >= MANY_FILES or history.late_bytes >= MANY_BYTES


def compact(output: Store, on_file: Callable[[], None] = lambda: None) -> Compacted | None:
    """Make an index of all that is committed under `output`; None when nothing is.

    When the newest index covers just that already, it is left as it is. `on_file` is called for each results file that
    is read; it may raise to stop. Raises StorageError where the service overwrites what must be created once.
    """
    history = read_history(output)
    # Also one that lacks a part, which a late deletion took: it is mended, or a newer one stands for it.
    last = max(index_folders(output, complete=True), default="")
    if history.index is not None and history.index.id == last and not history.late and not history.gone:
        manifest = history.index.manifest
        return Compacted(history.index.id, manifest.rows, manifest.shards, 0, changed=False)
    if history.index is None and not history.late:
        return None
    output.check_writable()
    covers = _covered_by_next(history)
    number = history.index.number + 1 if history.index else 1
    index_id = f"{number:08d}-{_coverage_digest(covers)}"
    if last > index_id:
        index_id = f"{int(last.partition('-')[0]) + 1:08d}-{_coverage_digest(covers)}"
    with tempfile.TemporaryDirectory(prefix="fcn-compact-") as folder:
        spills = _Spills(Path(folder))
        for table in read_late(output, history, on_file):
            spills.add(table)
        spills.flush()
        indexed = history.index.manifest.recipes if history.index else ()
        recipes = sorted({*spills.files, *((recipe.model_id, recipe.params_id) for recipe in indexed)})
        written = [_write_recipe(output, index_id, ids, history, spills.files.get(ids, [])) for ids in recipes]
    shards = _coverage_table(covers)
    manifest = IndexManifest(
        format=FORMAT,
        rows=sum(part.rows for recipe in written for part in recipe.parts),
        shards=len(shards),
        recipes=tuple(recipe for recipe in written if recipe.parts),
    )
    _create(output, shards_key(index_id), to_parquet(shards))
    _create(output, manifest_key(index_id), to_json(manifest.model_dump_json(indent=1)))
    return Compacted(index_id, manifest.rows, manifest.shards, history.late_files, changed=True)


def read_late(
    output: Store, history: CommittedResults, on_file: Callable[[], None] = lambda: None
) -> Iterator[pa.Table]:
    """The rows that no index has: a table of INDEX_SCHEMA, model_id and params_id for each late file, runs in order."""

    def read(file: tuple[str, int, int]) -> pa.Table:
        run_id, shard, size = file
        key = shard_key("results", run_id, shard)
        columns = ["key", "etag", "status", "error", "model_id", "params_id"]
        return _as_index_rows(read_table(output.get(key, size=size), key, columns), run_id, shard)

    files = (
        (run_id, number, size)
        for run_id, shards in sorted(history.late.items())
        for number, size in zip(shards.numbers.tolist(), shards.sizes.tolist(), strict=True)
    )
    for table in in_parallel(read, files, threads=READS_AT_ONCE, name="results"):
        on_file()
        yield table


def _as_index_rows(results: pa.Table, run_id: str, shard: int) -> pa.Table:
    ok = pc.equal(results["status"], "ok")
    reasons = pc.if_else(ok, pa.scalar(None, pa.string()), pc.fill_null(results["error"], ""))
    columns = {
        "key": results["key"],
        "etag": results["etag"],
        "error": reasons,
        "run_id": pa.repeat(run_id, len(results)),
        "shard": pa.repeat(pa.scalar(shard, pa.int32()), len(results)),
    }
    rows = pa.table(columns, schema=INDEX_SCHEMA)
    return rows.append_column("model_id", results["model_id"]).append_column("params_id", results["params_id"])


@dataclass
class _Spills:
    """Rows of late files, sorted a lot at a time, in files of this machine; `files` has them by recipe."""

    folder: Path
    files: dict[Ids, list[Path]] = field(default_factory=dict)
    _held: list[pa.Table] = field(default_factory=list)
    _rows: int = 0
    _count: int = 0

    def add(self, table: pa.Table) -> None:
        self._held.append(table)
        self._rows += len(table)
        if self._rows >= SORTED_AT_ONCE:
            self.flush()

    def flush(self) -> None:
        if not self._rows:
            return
        rows = pa.concat_tables(self._held)
        self._held, self._rows = [], 0
        for ids in _recipes(rows):
            of_recipe = pc.and_(*(pc.equal(rows[name], value) for name, value in zip(_IDS, ids, strict=True)))
            path = self.folder / f"{self._count:08d}.arrow"
            self._count += 1
            mine = rows.filter(of_recipe).select(INDEX_SCHEMA.names)
            write_spill(mine.sort_by(_ORDER).cast(INDEX_SCHEMA), path, SPILL_BATCH_ROWS)
            self.files.setdefault(ids, []).append(path)


def _recipes(rows: pa.Table) -> list[Ids]:
    pairs = rows.group_by(list(_IDS)).aggregate([])
    return [(row["model_id"], row["params_id"]) for row in pairs.to_pylist()]


def _write_recipe(
    output: Store, index_id: str, ids: Ids, history: CommittedResults, spills: list[Path]
) -> IndexedRecipe:
    """Merge what the old index has of a recipe with the new rows, and write the parts."""
    sources = [_old_rows(output, ids, history), *map(_spilled_rows, spills)]
    parts: list[IndexPart] = []
    for part in _in_parts(_merge(sources)):
        _create(
            output, part_key(index_id, *ids, len(parts)), to_parquet(part.combine_chunks())
        )  # as one: pages end where chunks do
        first, last = part["key"][0].as_py(), part["key"][-1].as_py()
        parts.append(IndexPart(rows=len(part), first=first, last=last))
    return IndexedRecipe(model_id=ids[0], params_id=ids[1], parts=tuple(parts))


def _old_rows(output: Store, ids: Ids, history: CommittedResults) -> Iterator[pa.Table]:
    if history.index is not None:
        for number in range(len(history.index.parts(*ids))):
            yield history.drop_gone(read_part(output, history.index.id, *ids, number))


def _spilled_rows(path: Path) -> Iterator[pa.Table]:
    return (pa.Table.from_batches([batch]) for batch in read_spill(path))


class _Sorted:
    """One of several sorted streams that are merged: the rows that are next, and whether there may be more."""

    def __init__(self, tables: Iterator[pa.Table]) -> None:
        self._tables = tables
        self.rows = INDEX_SCHEMA.empty_table()
        self.more = True

    @property
    def last(self) -> str:
        key: str = self.rows["key"][-1].as_py()
        return key

    def extend(self) -> None:
        table = next(self._tables, None)
        if table is None:
            self.more = False
        else:
            self.rows = pa.concat_tables([self.rows, table])

    def take_below(self, bound: str | None) -> pa.Table:
        """Remove and return the rows with keys below `bound`; all when it is None."""
        keys, count = self.rows["key"], len(self.rows)
        stop = count if bound is None else bisect_left(range(count), bound, key=lambda place: keys[place].as_py())
        taken, self.rows = self.rows.slice(0, stop), self.rows.slice(stop)
        return taken


def _merge(tables: Iterable[Iterator[pa.Table]]) -> Iterator[pa.Table]:
    """Sorted streams as one. All rows of a key come in one piece, so that their order depends on nothing else."""
    sources = [_Sorted(each) for each in tables]
    while True:
        for source in sources:
            while source.more and not len(source.rows):
                source.extend()
        sources = [source for source in sources if len(source.rows)]
        if not sources:
            return
        # Rows up to the least of the last keys in hand are complete, but for that very key.
        bound = min((source.last for source in sources if source.more), default=None)
        taken = [rows for source in sources if len(rows := source.take_below(bound))]
        if taken:
            yield taken[0] if len(taken) == 1 else pa.concat_tables(taken).sort_by(_ORDER)
        else:
            for source in sources:
                if source.more and source.last == bound:
                    source.extend()


def _in_parts(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same rows, PART_ROWS a table."""
    held = INDEX_SCHEMA.empty_table()
    for table in tables:
        held = pa.concat_tables([held, table])
        while len(held) >= PART_ROWS:
            yield held.slice(0, PART_ROWS)
            held = held.slice(PART_ROWS)
    if len(held):
        yield held


def _covered_by_next(history: CommittedResults) -> Coverage:
    before = history.index.covers if history.index else {}
    covers = {}
    for run_id in sorted({*before, *history.late}):
        still = before.get(run_id, NO_SHARDS).but(history.gone.get(run_id, NO_SHARDS))
        late = history.late.get(run_id, NO_SHARDS)
        numbers = np.concatenate([still.numbers, late.numbers])
        sizes = np.concatenate([still.sizes, late.sizes])
        order = np.argsort(numbers)
        if len(order):
            covers[run_id] = Shards(numbers[order], sizes[order])
    return covers


def _coverage_table(covers: Coverage) -> pa.Table:
    columns = {
        "run_id": pa.array(list(covers), pa.string()).take(
            pa.array(np.repeat(np.arange(len(covers)), [len(shards) for shards in covers.values()]))
        ),
        "shard": np.concatenate([NO_SHARDS.numbers, *(shards.numbers for shards in covers.values())]),
        "size": np.concatenate([NO_SHARDS.sizes, *(shards.sizes for shards in covers.values())]),
    }
    return pa.table(columns, schema=SHARDS_SCHEMA)


def _coverage_digest(covers: Coverage) -> str:
    """Of what is covered and how it is cut: all that an index's bytes depend on."""
    runs = [
        [run_id, hashlib.sha256(shards.numbers.tobytes() + shards.sizes.tobytes()).hexdigest()]
        for run_id, shards in sorted(covers.items())
    ]
    return digest([FORMAT, PART_ROWS, runs])


def _create(output: Store, key: str, data: bytes) -> None:
    # What is there already was written by another who made this very index, or by this command before it was stopped.
    with contextlib.suppress(ObjectExists):
        output.create(key, data)
