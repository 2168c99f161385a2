"""What a run leaves behind as tables: one results file per shard, and the tables derived from them.

The results file is the shard's commit record: it is written with one create-only PUT after the shard's masks, and there
is no other truth about what is done. Everything else here can be made again from it.
"""

import contextlib
import io
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fcn_core.labels import VOID, void_name
from pipeline.errors import ObjectExists, StorageError, StorageUnavailable
from pipeline.outputs.seal import BrokenSeal, check_parquet, to_parquet
from pipeline.parallel import in_parallel
from pipeline.storage.store import ObjectInfo, Store, create_or_read

READS_AT_ONCE = 16

_DAMAGED = "bring it back from a copy, or move it away and run again"

NEWEST_SCHEMA = 1
"""The highest number that a table of this version has: the 1 of "results/1". A change that an older program would
misread makes it 2, and this one refuses what it does not know.
"""

AREA = pa.struct(
    [
        pa.field("class_id", pa.int16(), nullable=False),
        pa.field("class_name", pa.string(), nullable=False),
        pa.field("pixels", pa.int64(), nullable=False),
        pa.field("fraction", pa.float64(), nullable=False),
    ]
)

RESULTS_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("etag", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("last_modified", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error", pa.string()),
        pa.field("message", pa.string()),
        pa.field("width", pa.int32()),
        pa.field("height", pa.int32()),
        pa.field("orientation", pa.int8()),
        pa.field("mask_key", pa.string()),
        pa.field("mask_sha256", pa.string()),
        pa.field("areas", pa.list_(AREA)),
        pa.field("confidence", pa.float32()),
        pa.field("model_id", pa.string(), nullable=False),
        pa.field("params_id", pa.string(), nullable=False),
        pa.field("taken_at", pa.timestamp("us")),
        pa.field("taken_at_offset", pa.int16()),
    ],
    metadata={"fcn_schema": "results/1"},
)
"""One row per image. See docs/results.md for what each column means."""

SINCE_0_2 = ("taken_at", "taken_at_offset")
"""Columns of results that files of 0.1 lack; they are read as null."""

CLASS_AREAS_SCHEMA = pa.schema(
    [
        pa.field("key", pa.string(), nullable=False),
        pa.field("etag", pa.string(), nullable=False),
        pa.field("last_modified", pa.timestamp("us", tz="UTC"), nullable=False),
        *AREA,
        pa.field("model_id", pa.string(), nullable=False),
        pa.field("params_id", pa.string(), nullable=False),
    ],
    metadata={"fcn_schema": "class_areas/1"},
)
"""One row per image and class present in it."""

CLASS_TOTALS_SCHEMA = pa.schema(
    [
        pa.field("class_id", pa.int16(), nullable=False),
        pa.field("class_name", pa.string(), nullable=False),
        pa.field("pixels", pa.int64(), nullable=False),
        pa.field("fraction", pa.float64(), nullable=False),
        pa.field("images", pa.int64(), nullable=False),
        pa.field("model_id", pa.string(), nullable=False),
        pa.field("params_id", pa.string(), nullable=False),
    ],
    metadata={"fcn_schema": "class_totals/1"},
)
"""One row per class of the label set: its pixels over the whole run, and in how many images it appears."""

MACHINE_ERRORS = frozenset({"access_denied", "storage"})
"""Error reasons that may be those of one machine: its credentials, its network, its disk."""

TRANSIENT_ERRORS = frozenset(
    {"changed", "missing", "link_refused", "access_denied", "storage", "prediction_failed", "extra_missing"}
)
"""Error reasons that say nothing about the image itself: such a row is reported, but the image is not done."""


@dataclass(frozen=True, slots=True)
class ClassArea:
    """How much of one image one class covers."""

    class_id: int
    class_name: str
    pixels: int
    fraction: float


@dataclass(frozen=True, slots=True)
class ResultRow:
    """What is known of one image after its shard: status "ok" with a mask, or "error" with a reason."""

    key: str
    etag: str
    size: int
    last_modified: datetime
    status: str
    model_id: str
    params_id: str
    error: str | None = None
    message: str | None = None
    width: int | None = None
    height: int | None = None
    orientation: int | None = None
    mask_key: str | None = None
    mask_sha256: str | None = None
    areas: tuple[ClassArea, ...] | None = None
    confidence: float | None = None
    taken_at: datetime | None = None
    taken_at_offset: int | None = None


_RUN_ID = re.compile(r"run_id=([^/]+)")
_SHARD = re.compile(r"shard-(\d{8})\.parquet")


def shard_key(table: str, run_id: str, shard: int) -> str:
    """The name under OUTPUT of `table`'s file ("results" or "class_areas") for one shard."""
    return f"{table}/run_id={run_id}/shard-{shard:08d}.parquet"


def encode_results(rows: Sequence[ResultRow]) -> bytes:
    """`rows` as Parquet. Equal rows give equal bytes."""
    columns = {
        column.name: (
            [None if row.areas is None else [_area_dict(area) for area in row.areas] for row in rows]
            if column.name == "areas"
            else [getattr(row, column.name) for row in rows]
        )
        for column in RESULTS_SCHEMA
    }
    return to_parquet(pa.table(columns, schema=RESULTS_SCHEMA))


def encode_class_areas(results: pa.Table) -> bytes:
    """The class_areas file that follows from one shard's results."""
    rows = [
        {"key": row["key"], "etag": row["etag"], "last_modified": row["last_modified"]}
        | area
        | {"model_id": row["model_id"], "params_id": row["params_id"]}
        for row in results.to_pylist()
        for area in row["areas"] or ()
    ]
    return to_parquet(pa.Table.from_pylist(rows, schema=CLASS_AREAS_SCHEMA))


def commit_shard(store: Store, run_id: str, shard: int, rows: Sequence[ResultRow]) -> pa.Table:
    """Commit one shard: its results file, create-only, then its class_areas.

    The first writer wins. When the file is there already, whether a rival wrote it or a retried PUT had worked after
    all, it is read back and is the truth. Returns the committed table.
    """
    data = encode_results(rows)
    key = shard_key("results", run_id, shard)
    table = read_table(create_or_read(store, key, data), key)
    # The shard is done; should this fail, the end of the run makes it good.
    with contextlib.suppress(StorageUnavailable):
        _create_if_absent(store, shard_key("class_areas", run_id, shard), encode_class_areas(table))
    return table


def committed_shards(store: Store, run_id: str) -> set[int]:
    """Numbers of the shards of `run_id` that are committed."""
    return set(committed_files(store, run_id))


def committed_files(store: Store, run_id: str) -> dict[int, ObjectInfo]:
    """The results files of `run_id` by the numbers of their shards."""
    infos = store.list(f"results/run_id={run_id}/")
    return {number: info for info in infos if (number := shard_number(info.key)) is not None}


def read_results(store: Store, run_id: str, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The committed results of one run, a shard at a time, in shard order; of all columns or those named."""
    return (table for _, table in read_result_files(store, run_id, columns))


def read_result_files(
    store: Store, run_id: str, columns: Sequence[str] | None = None, *, but: Collection[int] = frozenset()
) -> Iterator[tuple[ObjectInfo, pa.Table]]:
    """The same with each shard's file, whose date tells when the shard was committed; without the shards in `but`."""

    def read(info: ObjectInfo) -> tuple[ObjectInfo, pa.Table]:
        return info, read_table(store.get(info.key, size=info.size, etag=info.etag), info.key, columns)

    numbered = ((info, shard_number(info.key)) for info in store.list(f"results/run_id={run_id}/"))
    infos = (info for info, number in numbered if number is not None and number not in but)
    yield from in_parallel(read, infos, threads=READS_AT_ONCE, name="results")


def result_runs(store: Store) -> list[str]:
    """Ids of the runs that have committed anything, oldest first."""
    found = {match[1] for info in store.list("results/") if (match := _RUN_ID.search(info.key))}
    return sorted(found)


@dataclass(frozen=True, slots=True)
class ClassTotal:
    """What one class covers over many images: `fraction` of all their pixels, `images` in which it appears."""

    class_id: int
    class_name: str
    pixels: int
    fraction: float
    images: int


@dataclass(frozen=True)
class RunTotals:
    """What the committed results of a run add up to; `classes` has every class, in index order, and void, if any is."""

    ok: int
    errors: dict[str, int]
    classes: list[ClassTotal]


@dataclass(frozen=True)
class Tally:
    """What committed rows add up to: how many are ok, errors by reason; of each class id, its pixels, and the images
    that it appears in."""

    ok: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    pixels: Mapping[int, int] = field(default_factory=dict)
    images: Mapping[int, int] = field(default_factory=dict)


def tally(table: pa.Table) -> Tally:
    """The sums of one shard's results."""
    areas = table.column("areas").combine_chunks().flatten()
    class_ids = areas.field("class_id").to_numpy()
    pixels = np.zeros(int(class_ids.max(initial=-1)) + 1, np.int64)
    np.add.at(pixels, class_ids, areas.field("pixels").to_numpy())
    errors = Counter(reason for reason in table.column("error").to_pylist() if reason is not None)
    images = Counter(class_ids.tolist())
    return Tally(len(table) - errors.total(), errors, {index: int(pixels[index]) for index in images}, images)


class RunTally:
    """The sums of the shards of a run whose results were seen when they were committed; they need no second look."""

    def __init__(self) -> None:
        self.shards: set[int] = set()
        self.ok = 0
        self.errors: Counter[str] = Counter()
        self.pixels: Counter[int] = Counter()
        self.images: Counter[int] = Counter()

    def add(self, shard: int, found: Tally) -> None:
        """Count a shard, once."""
        if shard in self.shards:
            return
        self.shards.add(shard)
        self.ok += found.ok
        self.errors.update(found.errors)
        self.pixels.update(found.pixels)
        self.images.update(found.images)


def finish_tables(
    store: Store, run_id: str, classes: Sequence[str], model_id: str, params_id: str, seen: RunTally | None = None
) -> RunTotals:
    """Fill gaps in class_areas and write class_totals, both from the committed results.

    `classes` are the label set's names in index order; a class that never appears has a row of zeros, and void pixels
    have a row, the last, where there are any. The shards that
    are in `seen` are read only where their class_areas are missing; the others are added to it.
    """
    seen = seen or RunTally()
    present = set(_shard_numbers(store, f"class_areas/run_id={run_id}/"))
    for info, table in read_result_files(store, run_id, but=seen.shards & present):
        shard = shard_number(info.key)
        assert shard is not None, "only shards' files are read"
        if shard not in present:
            _create_if_absent(store, shard_key("class_areas", run_id, shard), encode_class_areas(table))
        seen.add(shard, tally(table))
    indices = range(len(classes))
    totals = class_totals(
        classes,
        [seen.pixels[index] for index in indices],
        [seen.images[index] for index in indices],
        (seen.pixels[VOID], seen.images[VOID]),
    )
    rows = [{**asdict(total), "model_id": model_id, "params_id": params_id} for total in totals]
    table = pa.Table.from_pylist(rows, schema=CLASS_TOTALS_SCHEMA)
    store.put(f"class_totals/run_id={run_id}.parquet", to_parquet(table))
    return RunTotals(seen.ok, dict(sorted(seen.errors.items())), totals)


def class_totals(
    classes: Sequence[str], pixels: Sequence[int], images: Sequence[int], void: tuple[int, int] = (0, 0)
) -> list[ClassTotal]:
    """One total a class from its pixels and images, all lists in index order; then that of void pixels, if any are."""
    everything = sum(pixels) + void[0]
    counted = [*enumerate(zip(classes, pixels, images, strict=True))]
    if void[0]:
        counted.append((VOID, (void_name(classes), *void)))
    return [
        ClassTotal(class_id, name, count, count / everything if everything else 0.0, present)
        for class_id, (name, count, present) in counted
    ]


def read_class_totals(store: Store, run_id: str) -> list[ClassTotal]:
    """The class_totals of a finished run."""
    key = f"class_totals/run_id={run_id}.parquet"
    columns = ["class_id", "class_name", "pixels", "fraction", "images"]
    return [ClassTotal(**row) for row in read_table(store.get(key), key).select(columns).to_pylist()]


def read_table(data: bytes, key: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Parquet bytes as a table, of all columns or those named; `key` names the file in the error.

    Raises StorageError for what is no Parquet file, is damaged, lacks a column, or is a table of a newer version.
    """
    try:
        check_parquet(data)
        file = pq.ParquetFile(io.BytesIO(data))
        there = file.schema_arrow.names
        table = file.read(columns=None if columns is None else [name for name in columns if name in there])
        table.validate(full=True)
    except BrokenSeal as error:
        raise StorageError(f"{key} {error}; {_DAMAGED}") from error
    except Exception as error:  # Arrow answers damaged bytes with errors of many kinds, some of them Python's own
        raise StorageError(f"{key} is not a readable Parquet file ({error}); {_DAMAGED}") from error
    schema = (table.schema.metadata or {}).get(b"fcn_schema", b"").decode(errors="replace")
    number = schema.rpartition("/")[2]
    if number.isdecimal() and int(number) > NEWEST_SCHEMA:
        raise StorageError(f"{key} is of a newer version of fcn-pipeline ({schema}); upgrade this one to read it")
    if schema.startswith("results/"):
        for name in SINCE_0_2:
            if name not in table.column_names and (columns is None or name in columns):
                field = RESULTS_SCHEMA.field(name)
                table = table.append_column(field, pa.nulls(len(table), field.type))
        if columns is not None:
            table = table.select([name for name in columns if name in table.column_names])
    missing = [name for name in columns or () if name not in table.column_names]
    if missing:
        raise StorageError(f"{key} has no column {missing[0]!r}; {_DAMAGED}")
    return table


def _area_dict(area: ClassArea) -> dict[str, object]:
    return {
        "class_id": area.class_id,
        "class_name": area.class_name,
        "pixels": area.pixels,
        "fraction": area.fraction,
    }


def _create_if_absent(store: Store, key: str, data: bytes) -> None:
    with contextlib.suppress(ObjectExists):
        store.create(key, data)


def _shard_numbers(store: Store, prefix: str) -> Iterator[int]:
    for info in store.list(prefix):
        number = shard_number(info.key)
        if number is not None:
            yield number


def shard_number(key: str) -> int | None:
    """The number of the shard whose file `key` names; None for what is no shard's file."""
    match = _SHARD.fullmatch(key.rpartition("/")[2])
    return int(match[1]) if match else None
