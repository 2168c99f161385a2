"""What an output knows now: over all runs, the newest row of each key and recipe.

Every run adds files, so whoever reads them all counts an image once a run. All that reads results across runs (ranking,
comparing, `fcn query`'s `current`) does so by this rule; `pipeline/insight/sql/current.sql` is the same for DuckDB.
"""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputError, ObjectMissing
from pipeline.outputs import runs
from pipeline.outputs.identity import Recipe
from pipeline.outputs.results import RESULTS_SCHEMA, read_results, result_runs
from pipeline.outputs.runs import RunRecord
from pipeline.storage.store import Store

ADDED_COLUMNS = ("recipe", "run_id")
"""What a current row has beside the columns of results: the recipe's name, and the run that the row is from."""

_IDENTITY = ("key", "model_id", "params_id")


def current_rows(
    store: Store, recipe: str | None = None, run_id: str | None = None, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """The newest row of each key and recipe, a shard or so at a time: newest run first, no empty batches.

    `recipe` (its name, as under OUTPUT/masks) leaves out the others; with `run_id` the rows are all of that run's, no
    matter what came after. `columns` are of RESULTS_SCHEMA and ADDED_COLUMNS, in the order wanted; default: all.

    Only the needed columns are read. Memory: one shard's rows, and 16 bytes (100 as Python counts) for each row of all
    runs but the oldest; one run alone needs nothing.
    """
    wanted = list(columns) if columns is not None else [*RESULTS_SCHEMA.names, *ADDED_COLUMNS]
    unknown = set(wanted) - set(RESULTS_SCHEMA.names) - set(ADDED_COLUMNS)
    if unknown:
        raise ValueError(f"results have no columns {sorted(unknown)}")
    needed = [name for name in RESULTS_SCHEMA.names if name in wanted or name in _IDENTITY]
    chosen = [run_id] if run_id is not None else list(reversed(result_runs(store)))
    chosen = [run for run in chosen if recipe is None or _recipe_of(store, run) in (None, recipe)]
    seen: set[bytes] = set()
    for place, run in enumerate(chosen):
        oldest = place == len(chosen) - 1
        for table in read_results(store, run, needed):
            table = _with_recipe(table, run)
            if recipe is not None:
                table = table.filter(pc.equal(table["recipe"], recipe))
            if len(chosen) > 1:
                table = _unseen(table, seen, remember=not oldest)
            if len(table):
                # One batch a shard: strings of a shard are far from Arrow's limit of 2 GiB.
                yield table.select(wanted).combine_chunks().to_batches()[0]


def recipes(store: Store) -> dict[str, RunRecord]:
    """The newest run of each recipe in an output, by the recipe's name; the recipe of the newest run comes first."""
    found: dict[str, RunRecord] = {}
    for record in runs.records(store):
        found.setdefault(record.recipe, record)
    return found


def choose_recipe(store: Store, recipe: str | None = None) -> RunRecord:
    """The newest run of `recipe`; of the newest run's recipe when None. Raises InputError when there is none."""
    found = recipes(store)
    if not found:
        raise InputError(f"there are no runs under {store.uri}; give the OUTPUT of `fcn segment`")
    if recipe is None:
        return next(iter(found.values()))
    if recipe not in found:
        raise InputError(f"no run under {store.uri} has recipe {recipe}; there are: {', '.join(sorted(found))}")
    return found[recipe]


def choose_run(store: Store, run: str) -> RunRecord:
    """The run that a person means: its id, or the beginning of it that no other run shares.

    Raises InputError, naming what there is.
    """
    known = list(runs.records(store))
    found = [record for record in known if record.run_id == run] or [
        record for record in known if run and record.run_id.startswith(run)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(record.run_id for record in found[:5])
        raise InputError(f"{run} begins the names of {len(found)} runs under {store.uri} ({names}); give more of it")
    names = ", ".join(record.run_id for record in known[:5]) or "none"
    raise InputError(f"there is no run {run} under {store.uri}; the newest are: {names} (see `fcn runs`)")


def _recipe_of(store: Store, run_id: str) -> str | None:
    """The recipe that a run's record tells; None when the rows must be asked."""
    try:
        return runs.read_record(store, run_id).recipe
    except (runs.DamagedRecord, ObjectMissing):
        return None


def _with_recipe(table: pa.Table, run_id: str) -> pa.Table:
    pairs = list(zip(table["model_id"].to_pylist(), table["params_id"].to_pylist(), strict=True))
    names = {pair: Recipe(*pair).name for pair in set(pairs)}
    table = table.append_column("recipe", pa.array([names[pair] for pair in pairs], pa.string()))
    return table.append_column("run_id", pa.array([run_id] * len(table), pa.string()))


def _unseen(table: pa.Table, seen: set[bytes], *, remember: bool) -> pa.Table:
    marks = [
        hashlib.blake2b(f"{recipe}/{key}".encode(errors="surrogatepass"), digest_size=16).digest()
        for recipe, key in zip(table["recipe"].to_pylist(), table["key"].to_pylist(), strict=True)
    ]
    new = np.fromiter((mark not in seen for mark in marks), bool, len(marks))
    if remember:
        seen.update(marks)
    return table if new.all() else table.filter(pa.array(new))
