"""A run's plan: which images, cut into shards, on disk before any work starts.

The plan is written in parts as the listing streams in, and `plan.json` last: a run without it was never planned. A
resumed run reads the same plan, so its shards hold the same images in the same order.
"""

import re
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import ObjectMissing, PipelineError, StorageError
from pipeline.outputs.results import read_table
from pipeline.outputs.seal import BrokenSeal, check_json, to_json, to_parquet
from pipeline.outputs.shard import Earlier, Shard
from pipeline.storage.batches import LISTING_SCHEMA, to_infos
from pipeline.storage.store import Store, create_own

IMAGES_PER_PART = 1 << 16
"""A part has as many whole shards as fit in so many images, and one at least. Parts are written and read back one at a
time, so this, not the number of images, bounds what the driver holds.
"""

_MANIFEST = re.compile(r"runs/([^/]+)/plan/plan\.json")

EARLIER = (pa.field("earlier_run", pa.string()), pa.field("earlier_shard", pa.int32()))
"""Where an image has a committed row already that only has to be said again: not null of reconfirmed images."""

PLAN_SCHEMA = pa.schema(
    [pa.field("shard", pa.int32(), nullable=False), *LISTING_SCHEMA, *EARLIER], metadata={"fcn_schema": "plan/1"}
)
"""Parts without reconfirmed images lack the columns of EARLIER, as those of 0.1 do."""


class PlanManifest(BaseModel):
    """plan.json: what the parts hold together. `reconfirmed` of the images have a committed row already."""

    model_config = ConfigDict(frozen=True)

    images: int
    bytes: int
    shards: int
    parts: int
    reconfirmed: int = 0


def write_plan(output: Store, run_id: str, entries: Iterable[pa.RecordBatch], shard_size: int) -> PlanManifest:
    """Cut `entries` into shards of `shard_size`, write the parts and then the manifest.

    The batches are of LISTING_SCHEMA, with the columns of EARLIER where there are reconfirmed images.
    Raises PipelineError where another plan has that run's name.
    """
    images = size = parts = reconfirmed = 0
    with ThreadPoolExecutor(1, "plan") as thread:
        # One part is written while the next is selected.
        written: Future[None] | None = None
        for part in _in_parts(entries, shard_size * max(1, IMAGES_PER_PART // shard_size)):
            numbers = (images + np.arange(len(part), dtype=np.int64)) // shard_size
            table = part.add_column(0, PLAN_SCHEMA.field("shard"), pa.array(numbers.astype(np.int32)))
            if written is not None:
                written.result()
            written = thread.submit(_write_part, output, _part_key(run_id, parts), table)
            images += len(part)
            size += pc.sum(part["size"]).as_py()
            parts += 1
            if EARLIER[0].name in part.column_names:
                reconfirmed += len(part) - part[EARLIER[0].name].null_count
        if written is not None:
            written.result()
    manifest = PlanManifest(
        images=images, bytes=size, shards=-(-images // shard_size), parts=parts, reconfirmed=reconfirmed
    )
    _create(output, manifest_key(run_id), to_json(manifest.model_dump_json(indent=2)))
    return manifest


def read_manifest(output: Store, run_id: str) -> PlanManifest | None:
    """The manifest of a run, or None when its plan was never finished."""
    key = manifest_key(run_id)
    try:
        data = output.get(key)
        manifest = PlanManifest.model_validate_json(data)
        check_json(data)
    except ObjectMissing:
        return None
    except BrokenSeal as error:
        raise StorageError(f"{key} {error}; delete runs/{run_id} and run again") from error
    except ValidationError as error:
        raise StorageError(
            f"{key} is damaged ({error.error_count()} errors); delete runs/{run_id} and run again"
        ) from error
    return manifest


def require_plan(output: Store, run_id: str, manifest: PlanManifest) -> None:
    """Raise PipelineError unless all files of a plan are there.

    Asked once the run's record is written, when no gc removes the plan any more (`pipeline.outputs.claim`). Without its
    plan nobody could tell which masks the run will still name.
    """
    there = {info.key for info in output.list(f"runs/{run_id}/plan/")}
    for key in [*(_part_key(run_id, part) for part in range(manifest.parts)), manifest_key(run_id)]:
        if key not in there:
            raise PipelineError(f"{output.uri}: {key} is gone; delete runs/{run_id} and run again")


def planned_runs(output: Store) -> list[str]:
    """Ids of all plans that were written to the end, oldest first, whether they became a run or not."""
    return sorted(match[1] for info in output.list("runs/") if (match := _MANIFEST.fullmatch(info.key)))


def read_shards(
    output: Store, run_id: str, manifest: PlanManifest, but: Collection[int] = frozenset()
) -> Iterator[Shard]:
    """The shards of a plan in order, without those numbered in `but`; one part in memory at a time."""
    for part in range(manifest.parts):
        key = _part_key(run_id, part)
        table = read_table(output.get(key), key).combine_chunks()
        numbers = table["shard"].to_numpy()
        starts = np.flatnonzero(np.diff(numbers, prepend=-1))
        entries = table.select(LISTING_SCHEMA.names)
        for start, stop in zip(starts.tolist(), [*starts[1:].tolist(), len(table)], strict=True):
            number = int(numbers[start])
            if number not in but:
                rows = slice(start, stop)
                yield Shard(number, tuple(to_infos(entries[rows])), earlier=tuple(_earlier(table[rows])))


def _earlier(rows: pa.Table) -> Iterator[Earlier]:
    if EARLIER[0].name in rows.column_names:
        runs, shards = (rows[field.name].to_pylist() for field in EARLIER)
        for index, (run_id, shard) in enumerate(zip(runs, shards, strict=True)):
            if run_id is not None:
                yield Earlier(index, run_id, shard)


LARGEST_SHARD_CPU = 512
LARGEST_SHARD_GPU = 4096
"""One to two minutes of FCN-8s VGG16 on two cores, and on a fast GPU. Each costs two requests, or three packed."""


def choose_shard_size(images: int, actors: int, largest: int) -> int:
    """Images per shard when the job does not say: eight shards per actor, within 16..`largest`. A multiple of eight, so
    that batches of images of one shape come out even.

    Depends on counts alone, never on timing, so that equal jobs are cut alike.
    """
    return max(16, min(largest, -(-images // (actors * 64)) * 8))


def _in_parts(batches: Iterable[pa.RecordBatch], rows: int) -> Iterator[pa.Table]:
    """The same rows, `rows` a table, the last one excepted; none empty."""
    held = LISTING_SCHEMA.empty_table()
    for batch in batches:
        held = pa.concat_tables([held, pa.Table.from_batches([batch])], promote_options="default")
        while len(held) >= rows:
            yield held.slice(0, rows)
            held = held.slice(rows)
    if len(held):
        yield held


def _write_part(output: Store, key: str, table: pa.Table) -> None:
    there = [name for name in PLAN_SCHEMA.names if name in table.column_names and table[name].null_count < len(table)]
    schema = pa.schema([PLAN_SCHEMA.field(name) for name in there], PLAN_SCHEMA.metadata)
    _create(output, key, to_parquet(table.select(there).cast(schema).combine_chunks()))


def _create(output: Store, key: str, data: bytes) -> None:
    if not create_own(output, key, data):
        raise PipelineError(
            f"{output.uri}: {key} is of another run that has taken this id at this very moment; run again"
        )


def _part_key(run_id: str, part: int) -> str:
    return f"runs/{run_id}/plan/part-{part:05d}.parquet"


def manifest_key(run_id: str) -> str:
    """The name under OUTPUT of a plan's manifest, which is written last."""
    return f"runs/{run_id}/plan/plan.json"
