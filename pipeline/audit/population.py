"""The images that an audit is about, read once from an output's tables: sums by stratum and domain, and a draw.

Streams: memory is that of a shard, of the candidates for the sample, and of the domains.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.audit.allocation import MISSED
from pipeline.audit.arrays import Array, Ints
from pipeline.audit.strata import StrataRule, make_rule
from pipeline.errors import InputError
from pipeline.outputs.current import current_rows
from pipeline.outputs.query import open_tables, run_query
from pipeline.outputs.results import RESULTS_SCHEMA, read_table, shard_number
from pipeline.outputs.runs import RunRecord
from pipeline.storage.store import Store

COLUMNS = (
    "key", "etag", "status", "width", "height", "mask_key", "mask_sha256", "areas", "confidence", "orientation",
    "model_id", "params_id", "run_id",
)  # fmt: skip
"""What is read of a row."""

DOMAINS = ("folder", "top-folder", "width", "height", "orientation", "run_id")
"""What --by and --cluster may name: the folder of the key, the first part of it, or a column of results."""

MOST_DOMAINS = 1000
PILOT_ROWS = 200_000
PILOT_FILES = 64
"""Strata are made of so many rows or files of results, spread over the output, where it has more."""

_OF_RESULTS = tuple(name for name in COLUMNS if name != "run_id")


@dataclass(frozen=True)
class Population:
    """Which rows: the current ones of a variant, of which `where` (SQL, on the columns of `fcn query`) is true, and
    which no run of `without` committed."""

    store: Store
    record: RunRecord
    classes: int
    where: str | None = None
    without: frozenset[str] = frozenset()
    only: frozenset[str] | None = None

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows of COLUMNS, a shard or so at a time, in an order that depends on the output alone; errors too."""
        with self._rows() as rows:
            for batch in rows:
                kept = self._kept(batch)
                if len(kept):
                    yield kept

    @contextmanager
    def _rows(self) -> Iterator[Iterator[pa.RecordBatch]]:
        if self.where is None:
            yield current_rows(self.store, self.record.recipe, columns=COLUMNS)
            return
        with open_tables(self.store) as connection:
            connection.execute("SET VARIABLE audited = ?", [self.record.recipe])
            sql = (
                f"SELECT {', '.join(COLUMNS)} FROM all_variants WHERE recipe = getvariable('audited') "
                f"AND ({self.where}\n) ORDER BY key"
            )
            schema = pa.schema([*(RESULTS_SCHEMA.field(name) for name in _OF_RESULTS), pa.field("run_id", pa.string())])
            yield (_cast(batch, schema) for batch in run_query(connection, sql))

    def _kept(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        for runs, inside in ((self.without, False), (self.only, True)):
            if runs:
                known = pc.is_in(batch["run_id"], value_set=pa.array(sorted(runs), pa.string()))
                batch = batch.filter(known if inside else pc.invert(known))
        return batch


def _cast(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """DuckDB's integers and structs as results have them."""
    columns = [batch[name].cast(schema.field(name).type) for name in schema.names]
    return pa.RecordBatch.from_arrays(columns, names=schema.names)


@dataclass(frozen=True)
class Rows:
    """A batch of rows with masks as arrays: `model` float64 [rows, classes] in pixels, `confidence` in 0..1."""

    batch: pa.RecordBatch
    model: Array
    pixels: Array
    confidence: Array

    @property
    def shares(self) -> Array:
        """Float64 [rows, classes]; rows sum to 1."""
        return np.asarray(self.model / self.pixels[:, None])


def with_masks(batch: pa.RecordBatch, classes: int) -> Rows:
    """The rows that have a mask. Raises InputError where areas do not add up to the image."""
    labelled = pc.equal(batch["status"], "ok")
    if not pc.all(labelled).as_py():  # else nothing need be copied
        batch = batch.filter(labelled)
    areas = batch["areas"]
    model = areas_of(areas, classes)
    width, height = (batch[name].cast(pa.int64()).to_numpy(zero_copy_only=False) for name in ("width", "height"))
    pixels = (width * height).astype(np.float64)
    wrong = np.flatnonzero(model.sum(axis=1) != pixels)
    if len(wrong):
        key = batch["key"][int(wrong[0])].as_py()
        raise InputError(f"the areas of {key!r} do not add up to its pixels; see `fcn verify`")
    confidence = np.nan_to_num(batch["confidence"].to_numpy(zero_copy_only=False).astype(np.float64), nan=0.5)
    return Rows(batch, model, pixels, confidence)


def areas_of(areas: pa.Array, classes: int) -> Array:
    """A results' column `areas` as pixels by class id, float64 [rows, classes]."""
    lengths = np.nan_to_num(pc.list_value_length(areas).to_numpy(zero_copy_only=False), nan=0).astype(np.int64)
    flat = areas.flatten()
    ids = flat.field("class_id").to_numpy(zero_copy_only=False).astype(np.int64)
    if len(ids) and (ids.min() < 0 or ids.max() >= classes):
        raise InputError(f"the tables have class {ids.max()}, but the run has {classes} classes; see `fcn verify`")
    at = np.repeat(np.arange(len(areas)), lengths) * classes + ids
    pixels = flat.field("pixels").to_numpy(zero_copy_only=False).astype(np.float64)
    counted = np.bincount(at, pixels, minlength=len(areas) * classes).astype(np.float64)
    return counted.reshape(len(areas), classes)


def domain_of(batch: pa.RecordBatch, by: str) -> pa.Array:
    """The domain of each row, strings: see DOMAINS."""
    if by in ("folder", "top-folder"):
        # What follows the last slash, or the first; a key without one is in the folder "".
        pattern = r"/?[^/]*$" if by == "folder" else r"/.*$|^[^/]*$"
        return pc.replace_substring_regex(batch["key"], pattern=f"(?s){pattern}", replacement="")
    return pc.fill_null(batch[by].cast(pa.string()), "")


@dataclass
class Totals:
    """Sums over images: how many, their pixels, and the model's of each class."""

    images: int
    pixels: float
    model: Array


@dataclass(frozen=True)
class Drawn:
    """What one look at a population gave. Arrays are by stratum: `images`, `pixels` [strata], `model` [strata, classes]
    in pixels, `square_errors` [strata, classes] the mean guess of squared errors of shares.

    `candidates` are rows of COLUMNS with a column `stratum`, in random order within each stratum: its first k are a
    simple random sample of k. `without_mask` counts rows of errors.
    """

    images: Array
    pixels: Array
    model: Array
    square_errors: Array
    domains: Mapping[str, Totals]
    candidates: pa.Table
    without_mask: int
    runs: frozenset[str]

    @property
    def shares(self) -> Array:
        """The model's share of each class, float64 [classes]."""
        return np.asarray(self.model.sum(axis=0) / max(1.0, float(self.pixels.sum())))


def pilot_rule(population: Population, n: int) -> StrataRule:
    """Strata for a sample of `n`, from some of the rows. Raises InputError when no image has a mask."""
    shares, confidence, rows = [], [], 0
    for batch in _pilot(population):
        found = with_masks(batch, population.classes)
        shares.append(found.shares)
        confidence.append(found.confidence)
        rows += len(found.pixels)
        if rows >= PILOT_ROWS:
            break
    if not rows:
        what = " that the query finds" if population.where else ""
        raise InputError(
            f"no image under {population.store.uri}{what} has a mask of recipe {population.record.recipe}; "
            "there is nothing to audit"
        )
    return make_rule(np.concatenate(shares), np.concatenate(confidence), n)


def draw(population: Population, rule: StrataRule, most: int, seed: int, by: str | None = None) -> Drawn:
    """Look at every row once and draw up to `most` candidates of each stratum. Equal seeds and outputs give
    equal draws.

    Raises InputError for more than MOST_DOMAINS domains.
    """
    classes, strata = population.classes, rule.strata
    images, pixels, wrong = np.zeros(strata), np.zeros(strata), np.zeros(strata)
    model, squares = np.zeros((strata, classes)), np.zeros((strata, classes))
    mean_square, presence = np.zeros(classes), np.zeros(classes)
    domains: dict[str, Totals] = {}
    lottery = Lottery(strata, most, seed)
    without_mask, runs = 0, set()
    for batch in population.batches():
        runs.update(batch["run_id"].unique().to_pylist())
        rows = with_masks(batch, classes)
        without_mask += len(batch) - len(rows.pixels)
        if not len(rows.pixels):
            continue
        shares = rows.shares
        stratum = rule.assign(shares, rows.confidence)
        doubt = np.clip(1 - rows.confidence, 0.005, 1)
        images += np.bincount(stratum, minlength=strata)
        pixels += np.bincount(stratum, rows.pixels, strata)
        wrong += np.bincount(stratum, np.minimum(MISSED * doubt, 1), strata)
        mean_square += (shares**2).sum(axis=0)
        presence += (shares > 0).sum(axis=0)
        for column in range(classes):
            model[:, column] += np.bincount(stratum, rows.model[:, column], strata)
            squares[:, column] += np.bincount(stratum, (doubt * shares[:, column]) ** 2, strata)
        if by is not None:
            _add_domains(domains, rows, domain_of(rows.batch, by), by)
        if most:
            lottery.add(rows.batch, stratum)
    everything = max(1.0, float(images.sum()))
    squares += wrong[:, None] * (mean_square / everything * (1 - presence / everything))
    squares /= np.maximum(images, 1)[:, None]
    return Drawn(images, pixels, model, squares, domains, lottery.candidates(), without_mask, frozenset(runs))


class Lottery:
    """Candidates for a sample: of each stratum the `most` rows with the smallest random numbers, in their order."""

    def __init__(self, strata: int, most: int, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._most = most
        self._bars = np.full(strata, 2.0)
        self._kept: list[tuple[Array, Ints, pa.Table]] = []
        self._count = 0

    def add(self, batch: pa.RecordBatch, stratum: Ints) -> None:
        numbers = self._random.random(len(batch))
        (chosen,) = np.nonzero(numbers < self._bars[stratum])
        if not len(chosen):
            return
        self._kept.append((numbers[chosen], stratum[chosen], pa.Table.from_batches([batch.take(pa.array(chosen))])))
        self._count += len(chosen)
        if self._count > 2 * self._most * len(self._bars) + 10_000:
            self._trim()

    def candidates(self) -> pa.Table:
        """The rows with a column `stratum`, by stratum and random number."""
        self._trim()
        if not self._kept:
            schema = [RESULTS_SCHEMA.field(name) for name in _OF_RESULTS]
            return pa.schema([*schema, ("run_id", pa.string()), ("stratum", pa.int64())]).empty_table()
        ((_, stratum, table),) = self._kept
        return table.append_column("stratum", pa.array(stratum))

    def _trim(self) -> None:
        if not self._kept:
            return
        numbers = np.concatenate([each for each, _, _ in self._kept])
        stratum = np.concatenate([each for _, each, _ in self._kept])
        table = pa.concat_tables([each for _, _, each in self._kept])
        order = np.lexsort((numbers, stratum))
        starts = np.searchsorted(stratum[order], np.arange(len(self._bars) + 1))
        ranks = np.arange(len(order)) - starts[stratum[order]]
        order = order[ranks < self._most]
        self._kept = [(numbers[order], stratum[order], table.take(pa.array(order)).combine_chunks())]
        self._count = len(order)
        for index in range(len(self._bars)):
            here = numbers[order][stratum[order] == index]
            if len(here) == self._most:
                self._bars[index] = here.max()


def _add_domains(domains: dict[str, Totals], rows: Rows, names: pa.Array, by: str) -> None:
    encoded = names.dictionary_encode()
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    for code, name in enumerate(encoded.dictionary.to_pylist()):
        here = codes == code
        found = domains.setdefault(name, Totals(0, 0.0, np.zeros(rows.model.shape[1])))
        found.images += int(here.sum())
        found.pixels += float(rows.pixels[here].sum())
        found.model += rows.model[here].sum(axis=0)
    if len(domains) > MOST_DOMAINS:
        raise InputError(
            f"--by {by} makes more than {MOST_DOMAINS} domains, of which a sample can say nothing; choose a coarser one"
        )


def _pilot(population: Population) -> Iterator[pa.RecordBatch]:
    """All rows, or those of some files where there are many: current or not makes no difference to a rule."""
    chosen = population.where is not None or population.without or population.only
    files = [] if chosen else [info for info in population.store.list("results/") if shard_number(info.key) is not None]
    if len(files) <= PILOT_FILES:
        yield from population.batches()
        return
    record = population.record
    for info in files[:: len(files) // PILOT_FILES]:
        table = read_table(population.store.get(info.key), info.key, _OF_RESULTS)
        for column, value in (("model_id", record.model_id), ("params_id", record.params_id)):
            table = table.filter(pc.equal(table[column], value))
        yield from table.combine_chunks().to_batches()
