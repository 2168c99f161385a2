"""What an output knows now: over all runs of the newest variant, the newest row of each key.

A variant is a model with its settings (named `recipe` on disk), and the newest one is that of the newest run with
results. Every run adds files, and every variant labels the images again, so whoever reads all files counts an image
several times. A run with `where` redoes only some images: its variant lies over the ones before, and an image that it
has not segmented keeps the row that it had. All that reads results across runs (ranking, comparing, `fcn query`'s
`current`) does so by this rule; `pipeline/outputs/sql/current.sql` is the same for DuckDB.
"""

import hashlib
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputError, ObjectMissing
from pipeline.outputs import runs
from pipeline.outputs.identity import Recipe
from pipeline.outputs.redo import redid_some
from pipeline.outputs.results import RESULTS_SCHEMA, read_results, result_runs
from pipeline.outputs.runs import RunRecord
from pipeline.storage.store import Store

ADDED_COLUMNS = ("recipe", "run_id")
"""What a current row has beside the columns of results: the recipe's name, and the run that the row is from."""

NEWEST, ALL = "newest", "all"
"""Which variant to read, beside the names there are: those are of hexadecimal digits."""

_IDENTITY = ("key", "model_id", "params_id")


def current_rows(
    store: Store,
    variant: str = NEWEST,
    run_id: str | None = None,
    columns: Sequence[str] | None = None,
    until: str | None = None,
) -> Iterator[pa.RecordBatch]:
    """The newest row of each key by one variant, a shard or so at a time: newest run first, no empty batches.

    `variant` is the newest one by default, with those below it where it redid only some images (`current_variants`); or
    a name, as under OUTPUT/masks; with "all" there is a row for each key and variant. With `run_id` the rows are all of
    that run's, whatever its variant and no matter what came after; with `until`, a run's id, they are those of before a
    later run. `columns` are of RESULTS_SCHEMA and ADDED_COLUMNS, in the order wanted; default: all.

    Only the needed columns are read. Memory: one shard's rows, and 16 bytes (100 as Python counts) for each row of all
    runs but the oldest; one run alone needs nothing.
    """
    wanted = list(columns) if columns is not None else [*RESULTS_SCHEMA.names, *ADDED_COLUMNS]
    unknown = set(wanted) - set(RESULTS_SCHEMA.names) - set(ADDED_COLUMNS)
    if unknown:
        raise ValueError(f"results have no columns {sorted(unknown)}")
    needed = [name for name in RESULTS_SCHEMA.names if name in wanted or name in _IDENTITY]
    chosen: list[tuple[str | None, str]]
    if run_id is not None:
        chosen = [(None, run_id)]
    else:
        told = [(run, _recipe_of(store, run)) for run in reversed(result_runs(store)) if until is None or run <= until]
        named = _named(store, variant)
        chosen = [(name, run) for name in named for run, its in told if None in (name, its) or its == name]
    seen: set[bytes] = set()
    for place, (recipe, run) in enumerate(chosen):
        oldest = place == len(chosen) - 1
        for table in read_results(store, run, needed):
            table = _with_recipe(table, run)
            if recipe is not None:
                table = table.filter(pc.equal(table["recipe"], recipe))
            if len(chosen) > 1:
                table = _unseen(table, seen, by_recipe=recipe is None, remember=not oldest)
            if len(table):
                # One batch a shard: strings of a shard are far from Arrow's limit of 2 GiB.
                yield table.select(wanted).combine_chunks().to_batches()[0]


def read_current(store: Store, columns: Sequence[str] | None = None, *, variant: str = NEWEST) -> pa.Table:
    """What OUTPUT knows now, sorted by key: one row per image, the newest by the newest variant.

    A variant is a model with its settings; the newest is that of the newest run with results, over those before it
    where it redid only some images. `variant` may name another, as under OUTPUT/masks; with "all" there is a row for
    each key and variant, which `model_id` and `params_id` tell apart. Reads every committed file; `columns` limits what
    is kept in memory (key, model_id and params_id are always there, and run_id is added).
    """
    wanted = list(dict.fromkeys([*_IDENTITY, *(RESULTS_SCHEMA.names if columns is None else columns)]))
    if columns is None:
        wanted = list(RESULTS_SCHEMA.names)
    schema = pa.schema([RESULTS_SCHEMA.field(name) for name in wanted]).append(pa.field("run_id", pa.string()))
    batches = current_rows(store, variant, columns=schema.names)
    return pa.Table.from_batches([batch.cast(schema) for batch in batches], schema).sort_by(
        [(name, "ascending") for name in _IDENTITY]
    )


def current_variants(store: Store) -> tuple[str, ...]:
    """The names of the variants whose rows are current, the one that goes before the others first.

    That is the newest variant, that of the newest run with results. Where runs redid only some images (`where`), it is
    the variants of all runs down to the newest that did not, too: an image has the row of the first that has one.
    """
    found: dict[str, None] = {}
    for run_id in reversed(result_runs(store)):
        recipe = _recipe_of(store, run_id) or _first_recipe(store, run_id)
        if recipe is not None:
            found.setdefault(recipe)
            if not redid_some(store, run_id):
                break
    return tuple(found)


def newest_variant(store: Store) -> str | None:
    """The name of the newest variant: that of the newest run with results. None where there are none."""
    return next(iter(current_variants(store)), None)


def _first_recipe(store: Store, run_id: str) -> str | None:
    for table in read_results(store, run_id, _IDENTITY):
        (name, *_) = _with_recipe(table.slice(0, 1), run_id)["recipe"].to_pylist()
        return str(name)
    return None


def recipes(store: Store) -> dict[str, RunRecord]:
    """The newest run of each recipe in an output, by the recipe's name; the newest variant comes first."""
    found: dict[str, RunRecord] = {}
    for record in runs.records(store):
        found.setdefault(record.recipe, record)
    newest = newest_variant(store) if len(found) > 1 else None
    return {newest: found[newest], **found} if newest in found else found


def choose_variant(store: Store, recipe: str | None = None) -> RunRecord:
    """The newest run of `recipe`; of the newest variant when None. Raises InputError when there is none."""
    found = recipes(store)
    if not found:
        raise InputError(f"there are no runs under {store.uri}; give the OUTPUT of `fcn segment`")
    if recipe is None:
        return next(iter(found.values()))
    if recipe not in found:
        raise InputError(f"no run under {store.uri} has recipe {recipe}; there are: {', '.join(sorted(found))}")
    return found[recipe]


def current_records(store: Store) -> tuple[RunRecord, ...]:
    """The newest run of each of `current_variants`, in their order. Raises InputError when there is none."""
    newest = choose_variant(store)
    known = recipes(store)
    return (newest, *(known[name] for name in current_variants(store) if name in known and name != newest.recipe))


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


def _named(store: Store, variant: str) -> tuple[str | None, ...]:
    """The names of the variants that are meant; None for all of them, each by itself."""
    if variant == ALL:
        return (None,)
    return current_variants(store) if variant == NEWEST else (variant,)


def _recipe_of(store: Store, run_id: str) -> str | None:
    """The recipe that a run's record tells; None when the rows must be asked."""
    try:
        return runs.read_record(store, run_id).recipe
    except (runs.DamagedRecord, ObjectMissing):
        return None


def _with_recipe(table: pa.Table, run_id: str) -> pa.Table:
    models, params = (table[name].unique().to_pylist() for name in ("model_id", "params_id"))
    if len(models) == len(params) == 1:  # as in nearly all shards
        variants = pa.repeat(pa.scalar(Recipe(models[0], params[0]).name, pa.string()), len(table))
    else:
        pairs = list(zip(table["model_id"].to_pylist(), table["params_id"].to_pylist(), strict=True))
        names = {pair: Recipe(*pair).name for pair in set(pairs)}
        variants = pa.array([names[pair] for pair in pairs], pa.string())
    table = table.append_column("recipe", variants)
    return table.append_column("run_id", pa.repeat(pa.scalar(run_id, pa.string()), len(table)))


def _unseen(table: pa.Table, seen: set[bytes], *, by_recipe: bool, remember: bool) -> pa.Table:
    recipes = table["recipe"].to_pylist() if by_recipe else itertools.repeat("", len(table))
    marks = [
        hashlib.blake2b(f"{recipe}/{key}".encode(errors="surrogatepass"), digest_size=16).digest()
        for recipe, key in zip(recipes, table["key"].to_pylist(), strict=True)
    ]
    new = np.fromiter((mark not in seen for mark in marks), bool, len(marks))
    if remember:
        seen.update(marks)
    return table if new.all() else table.filter(pa.array(new))
