"""Does the compacted index say what the results say? Both are walked through once, shard by shard and key by key.

They have different orders, and neither fits into memory. So each row is hashed, and the hashes of a shard's rows added
up: the sums of both sides agree when the rows do.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.errors import StorageError
from pipeline.outputs.compact import read_late
from pipeline.outputs.index import (
    INDEX_SCHEMA,
    NO_SHARDS,
    CommittedResults,
    Index,
    index_folders,
    manifest_key,
    part_key,
    read_history,
    read_part,
)
from pipeline.outputs.results import shard_key
from pipeline.storage.store import Store

SHOWN = 10

_REMEDY = "delete the folder, and `fcn compact` makes it again"

_Shard = tuple[str, int]
"""run_id and number."""


@dataclass(slots=True)
class _Sum:
    """Of the rows of one shard, in whatever order they come."""

    rows: int = 0
    hashes: int = 0


def verify_index(output: Store) -> Iterator[tuple[str, str]]:
    """Every difference between the newest index of `output` and the results files that it covers: file and problem.

    Memory: one part of the index, and some hundred bytes per shard.
    """
    history = read_history(output)
    index = history.index
    written = max(index_folders(output, complete=True), default=None)
    if written is not None and (index is None or index.id != written):
        problem = f"cannot be read, or a part is missing, so index {written} is not used"
        yield manifest_key(written), f"{problem}; `fcn compact` mends or replaces it"
    if index is None:
        return
    covers = sum(map(len, index.covers.values()))
    rows = sum(part.rows for recipe in index.manifest.recipes for part in recipe.parts)
    if (index.manifest.shards, index.manifest.rows) != (covers, rows):
        yield manifest_key(index.id), f"tells of other numbers of files and rows than are there; {_REMEDY}"
    for run_id, shards in history.gone.items():
        for number in shards.numbers[:SHOWN].tolist():
            yield shard_key("results", run_id, number), f"index {index.id} covers it, but it is gone or has changed"
    indexed: dict[_Shard, _Sum] = {}
    for recipe in index.manifest.recipes:
        ids = (recipe.model_id, recipe.params_id)
        last = ""
        for number, told in enumerate(recipe.parts):
            key = part_key(index.id, *ids, number)
            try:
                part = read_part(output, index.id, *ids, number)
            except StorageError as error:
                yield key, str(error)
                return
            keys = part["key"].to_pylist()
            if not keys or (keys[0], keys[-1], len(keys)) != (told.first, told.last, told.rows):
                yield key, "is not the part that its manifest tells of"
            elif keys != sorted(keys) or keys[0] < last:
                yield key, "is not sorted by key"
            last = keys[-1] if keys else last
            _add(indexed, history.drop_gone(part), *ids)
    yield from _compare(output, index, history, indexed)


def _compare(
    output: Store, index: Index, history: CommittedResults, indexed: dict[_Shard, _Sum]
) -> Iterator[tuple[str, str]]:
    covered = {run_id: shards.but(history.gone.get(run_id, NO_SHARDS)) for run_id, shards in index.covers.items()}
    committed: dict[_Shard, _Sum] = {}
    for table in read_late(output, CommittedResults(None, covered)):
        of_rows = list(zip(table["model_id"].to_pylist(), table["params_id"].to_pylist(), strict=True))
        for ids in set(of_rows):
            _add(committed, table.filter(pa.array([ids == each for each in of_rows])), *ids)
    differing = sorted(
        shard for shard in indexed.keys() | committed.keys() if indexed.get(shard) != committed.get(shard)
    )
    for run_id, number in differing[:SHOWN]:
        mine, theirs = (sums.get((run_id, number), _Sum()).rows for sums in (indexed, committed))
        yield (
            f"index/{index.id}",
            f"has {mine} rows of {shard_key('results', run_id, number)} that are not the {theirs} rows in there; "
            + _REMEDY,
        )


def _add(sums: dict[_Shard, _Sum], rows: pa.Table, model_id: str, params_id: str) -> None:
    hashes = _hashes(rows, f"{model_id}\0{params_id}")
    shards = list(zip(rows["run_id"].to_pylist(), rows["shard"].to_pylist(), strict=True))
    for shard, value in zip(shards, hashes.tolist(), strict=True):
        found = sums.setdefault(shard, _Sum())
        found.rows += 1
        found.hashes = (found.hashes + value) & 0xFFFFFFFFFFFFFFFF


def _hashes(rows: pa.Table, recipe: str) -> npt.NDArray[np.uint64]:
    columns = [rows[name].to_pylist() for name in INDEX_SCHEMA.names[:3]]
    digests = b"".join(
        hashlib.blake2b(repr((recipe, *values)).encode(), digest_size=8).digest()
        for values in zip(*columns, strict=True)
    )
    return np.frombuffer(digests, np.uint64)
