"""The compacted index under OUTPUT/index: what the results files of many shards say is done, sorted by key.

Planning asks of every listed image whether it is done. Results files answer that in the order in which the work was
done, thousands of files of it; the index answers in the order of a listing, so that both are walked through once, side
by side. It only repeats what results say. An index covers named shards of named runs, and stands for their files as
long as these are there, of the size they had; all others are read as they are. So an index that is old, or missing,
costs time and never truth.

    index/<id>/manifest.json                  what the index holds; written last: without it there is no index
    index/<id>/shards.parquet                 which results files it covers: run_id, shard, size
    index/<id>/<recipe>/part-00000.parquet    rows of INDEX_SCHEMA for one model and its settings

The id is a number, higher than that of the index it builds on, and a digest of the shards that it covers. All of an
index but that number follows from those, so whoever makes the same one writes the same files.
"""

import re
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import AccessDenied, ObjectMissing, StorageError, StorageUnavailable
from pipeline.outputs.identity import Recipe, digest
from pipeline.outputs.results import RESULTS_SCHEMA, read_table
from pipeline.outputs.seal import BrokenSeal, check_json
from pipeline.storage.store import Store

FORMAT = "index/1"

INDEX_SCHEMA = pa.schema(
    [
        RESULTS_SCHEMA.field("key"),
        RESULTS_SCHEMA.field("etag"),
        RESULTS_SCHEMA.field("error"),
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("shard", pa.int32(), nullable=False),
    ],
    metadata={"fcn_schema": FORMAT},
)
"""One row for each row of the covered results, sorted by key (as UTF-8 bytes), run_id and shard. `error` is null where
the status was ok.
"""

SHARDS_SCHEMA = pa.schema(
    [
        pa.field("run_id", pa.string(), nullable=False),
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
    ],
    metadata={"fcn_schema": "index_shards/1"},
)

_RESULTS = re.compile(r"results/run_id=([^/]+)/shard-(\d{8})\.parquet")
_MANIFEST = re.compile(r"index/(\d{8}-[0-9a-f]{16})/manifest\.json")
_ANY_FILE = re.compile(r"index/(\d{8}-[0-9a-f]{16})/.*")


@dataclass(frozen=True)
class Shards:
    """Results files of one run: their shards' numbers, rising (int32), and their sizes in bytes (int64)."""

    numbers: npt.NDArray[np.int32]
    sizes: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.numbers)

    def but(self, others: "Shards") -> "Shards":
        """Those that are not also in `others` with the same size."""
        if not len(others):
            return self
        place = np.minimum(np.searchsorted(others.numbers, self.numbers), len(others) - 1)
        new = (others.numbers[place] != self.numbers) | (others.sizes[place] != self.sizes)
        return Shards(self.numbers[new], self.sizes[new])


NO_SHARDS = Shards(np.empty(0, np.int32), np.empty(0, np.int64))

Coverage = Mapping[str, Shards]
"""Results files by run."""


class IndexPart(BaseModel):
    """One part: how many rows, and the first and last of their keys."""

    model_config = ConfigDict(frozen=True)

    rows: int
    first: str
    last: str


class IndexedRecipe(BaseModel):
    """What an index holds of one model and its settings; parts in key order."""

    model_config = ConfigDict(frozen=True)

    model_id: str
    params_id: str
    parts: tuple[IndexPart, ...]


class IndexManifest(BaseModel):
    """manifest.json."""

    model_config = ConfigDict(frozen=True)

    format: str
    rows: int
    shards: int
    recipes: tuple[IndexedRecipe, ...]


@dataclass(frozen=True)
class Index:
    """A complete index of an output."""

    id: str
    manifest: IndexManifest
    covers: Coverage

    @property
    def number(self) -> int:
        return int(self.id[:8])

    def parts(self, model_id: str, params_id: str) -> tuple[IndexPart, ...]:
        """The parts of one recipe; none when no covered row is of it."""
        for recipe in self.manifest.recipes:
            if (recipe.model_id, recipe.params_id) == (model_id, params_id):
                return recipe.parts
        return ()


@dataclass
class CommittedResults:
    """All that an output's results say, as the newest index and the files that it does not stand for.

    `gone` are covered files that are no longer there: what the index has of them does not count. `late` are those that
    must be read themselves.
    """

    index: Index | None
    late: dict[str, Shards] = field(default_factory=dict)
    gone: dict[str, Shards] = field(default_factory=dict)

    @property
    def late_files(self) -> int:
        return sum(map(len, self.late.values()))

    @property
    def late_bytes(self) -> int:
        return sum(int(shards.sizes.sum()) for shards in self.late.values())

    def drop_gone(self, rows: pa.Table) -> pa.Table:
        """`rows` of INDEX_SCHEMA without those of files that are gone."""
        for run_id, shards in self.gone.items():
            stale = pc.and_(
                pc.equal(rows["run_id"], run_id), pc.is_in(rows["shard"], value_set=pa.array(shards.numbers))
            )
            rows = rows.filter(pc.invert(stale))
        return rows


def read_history(output: Store) -> CommittedResults:
    """List the committed results of `output` and hold them against its newest index.

    Memory: twelve bytes a results file.
    """
    # The index first: files that it covers and that are not listed afterwards are gone, not too young to be listed.
    index = newest_index(output)
    there = _committed(output)
    if index is None:
        return CommittedResults(None, there)
    late = {run_id: shards.but(index.covers.get(run_id, NO_SHARDS)) for run_id, shards in there.items()}
    gone = {run_id: shards.but(there.get(run_id, NO_SHARDS)) for run_id, shards in index.covers.items()}
    return CommittedResults(
        index,
        {run_id: shards for run_id, shards in late.items() if len(shards)},
        {run_id: shards for run_id, shards in gone.items() if len(shards)},
    )


def newest_index(output: Store) -> Index | None:
    """The complete index of the highest number, or None.

    Those that this version cannot read, that are damaged or lack a part are passed over: what they cover counts as in
    no index.
    """
    there = {info.key for info in output.list("index/")}
    for index_id in sorted(_folders(there, _MANIFEST), reverse=True):
        try:
            data = output.get(manifest_key(index_id))
            manifest = IndexManifest.model_validate_json(data)
            check_json(data)
            if manifest.format == FORMAT and there >= set(_parts_of(index_id, manifest)):
                return Index(index_id, manifest, _read_coverage(output, index_id))
        except (StorageUnavailable, AccessDenied):
            raise
        except (StorageError, ValidationError, BrokenSeal):
            continue
    return None


def index_folders(output: Store, *, complete: bool) -> set[str]:
    """Ids of the indexes under OUTPUT/index: those that have a manifest, or those that never had one, or lost it."""
    there = {info.key for info in output.list("index/")}
    finished = _folders(there, _MANIFEST)
    return finished if complete else _folders(there, _ANY_FILE) - finished


def _folders(keys: Iterable[str], of: re.Pattern[str]) -> set[str]:
    return {match[1] for key in keys if (match := of.fullmatch(key))}


def _parts_of(index_id: str, manifest: IndexManifest) -> Iterator[str]:
    for recipe in manifest.recipes:
        for number in range(len(recipe.parts)):
            yield part_key(index_id, recipe.model_id, recipe.params_id, number)


def read_part(output: Store, index_id: str, model_id: str, params_id: str, part: int) -> pa.Table:
    """The rows of one part. Raises StorageError, saying what to do, when it cannot be read."""
    key = part_key(index_id, model_id, params_id, part)
    try:
        return read_table(output.get(key), key, INDEX_SCHEMA.names)
    except ObjectMissing as error:
        raise StorageError(f"{output.uri}: {key} was deleted while it was needed; run again") from error


class IndexReader:
    """Rows of one recipe in `history`'s index, by ranges of keys. Quick when the ranges rise, and right in any order.

    Holds one part at a time.
    """

    def __init__(self, output: Store, history: CommittedResults, recipe: Recipe) -> None:
        self._output = output
        self._history = history
        self._recipe = recipe
        self._parts = history.index.parts(recipe.model_id, recipe.params_id) if history.index else ()
        self._lasts = [part.last for part in self._parts]
        self._loaded: tuple[int, pa.Table] | None = None

    def between(self, first: str, last: str) -> Iterator[pa.Table]:
        """The rows with keys from `first` to `last`, both included, in pieces of up to a part."""
        # Python compares strings by code points, Arrow by UTF-8 bytes: the same order.
        for number in range(bisect_left(self._lasts, first), len(self._parts)):
            if self._parts[number].first > last:
                return
            yield rows_between(self._load(number), first, last)

    def _load(self, number: int) -> pa.Table:
        if self._loaded is None or self._loaded[0] != number:
            assert self._history.index is not None
            self._loaded = None  # before the next one takes its room
            table = read_part(
                self._output, self._history.index.id, self._recipe.model_id, self._recipe.params_id, number
            )
            self._loaded = number, self._history.drop_gone(table).combine_chunks()
        return self._loaded[1]


def rows_between(rows: pa.Table, first: str, last: str) -> pa.Table:
    """The slice of `rows`, sorted by key, with keys from `first` to `last`, both included."""
    keys = rows["key"]
    places = range(len(keys))
    start = bisect_left(places, first, key=lambda place: keys[place].as_py())
    # The smallest string above `last` is `last` with a NUL.
    stop = bisect_left(places, last + "\0", key=lambda place: keys[place].as_py())
    return rows.slice(start, stop - start)


def manifest_key(index_id: str) -> str:
    return f"index/{index_id}/manifest.json"


def shards_key(index_id: str) -> str:
    return f"index/{index_id}/shards.parquet"


def part_key(index_id: str, model_id: str, params_id: str, part: int) -> str:
    """The name under OUTPUT of one part. Ids come out of results files: their digest is safe in a name."""
    return f"index/{index_id}/{digest([model_id, params_id])}/part-{part:05d}.parquet"


def _committed(output: Store) -> dict[str, Shards]:
    found: dict[str, tuple[array[int], array[int]]] = {}
    for info in output.list("results/"):
        if match := _RESULTS.fullmatch(info.key):
            numbers, sizes = found.setdefault(match[1], (array("i"), array("q")))
            numbers.append(int(match[2]))
            sizes.append(info.size)
    return {
        run_id: Shards(np.array(numbers, np.int32), np.array(sizes, np.int64))
        for run_id, (numbers, sizes) in found.items()
    }


def _read_coverage(output: Store, index_id: str) -> Coverage:
    key = shards_key(index_id)
    table = read_table(output.get(key), key, SHARDS_SCHEMA.names)
    numbers, sizes = table["shard"].to_numpy(), table["size"].to_numpy()
    runs = table["run_id"].combine_chunks().dictionary_encode()
    codes = runs.indices.to_numpy()
    # Sorted by run, so each run is one stretch.
    starts = np.searchsorted(codes, np.arange(len(runs.dictionary) + 1))
    return {
        run_id: Shards(numbers[start:stop], sizes[start:stop])
        for run_id, start, stop in zip(runs.dictionary.to_pylist(), starts[:-1], starts[1:], strict=True)
    }
