"""A run's plan: which images, cut into shards, on disk before any work starts.

The plan is written in parts as the listing streams in, and `plan.json` last: a run without it was never planned. A
resumed run reads the same plan, so its shards hold the same images in the same order.
"""

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, ValidationError

from pipeline.errors import ObjectMissing, StorageError
from pipeline.outputs.results import read_table
from pipeline.storage.store import ObjectInfo, Store

SHARDS_PER_PART = 64
"""Plan parts are read back one at a time, so this bounds what the driver holds."""

PLAN_SCHEMA = pa.schema(
    [
        pa.field("shard", pa.int32(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("etag", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("last_modified", pa.timestamp("us", tz="UTC"), nullable=False),
    ],
    metadata={"fcn_schema": "plan/1"},
)


@dataclass(frozen=True, slots=True)
class Shard:
    """A piece of a run that is committed as a whole: its number, and its images in plan order.

    `culprits` are keys of images that were found to kill the process that works on them; they are not touched again.
    """

    number: int
    entries: tuple[ObjectInfo, ...]
    culprits: frozenset[str] = frozenset()


class PlanManifest(BaseModel):
    """plan.json: what the parts hold together."""

    model_config = ConfigDict(frozen=True)

    images: int
    bytes: int
    shards: int
    parts: int


def write_plan(output: Store, run_id: str, entries: Iterable[ObjectInfo], shard_size: int) -> PlanManifest:
    """Cut `entries` into shards of `shard_size`, write the parts and then the manifest."""
    stream = iter(entries)
    images = size = shards = parts = 0
    while chunk := list(islice(stream, shard_size * SHARDS_PER_PART)):
        numbers = [shards + index // shard_size for index in range(len(chunk))]
        output.put(_part_key(run_id, parts), _encode_part(numbers, chunk))
        images += len(chunk)
        size += sum(info.size for info in chunk)
        shards = numbers[-1] + 1
        parts += 1
    manifest = PlanManifest(images=images, bytes=size, shards=shards, parts=parts)
    output.put(_manifest_key(run_id), manifest.model_dump_json(indent=2).encode())
    return manifest


def read_manifest(output: Store, run_id: str) -> PlanManifest | None:
    """The manifest of a run, or None when its plan was never finished."""
    key = _manifest_key(run_id)
    try:
        return PlanManifest.model_validate_json(output.get(key))
    except ObjectMissing:
        return None
    except ValidationError as error:
        raise StorageError(
            f"{key} is damaged ({error.error_count()} errors); delete runs/{run_id} and run again"
        ) from error


def read_shards(output: Store, run_id: str, manifest: PlanManifest) -> Iterator[Shard]:
    """The shards of a plan in order, one part in memory at a time."""
    for part in range(manifest.parts):
        key = _part_key(run_id, part)
        table = read_table(output.get(key), key)
        shard_numbers = table.column("shard").to_pylist()
        columns = (table.column(name).to_pylist() for name in ("key", "etag", "size", "last_modified"))
        entries = [ObjectInfo(*values) for values in zip(*columns, strict=True)]
        start = 0
        for index in range(1, len(entries) + 1):
            if index == len(entries) or shard_numbers[index] != shard_numbers[start]:
                yield Shard(shard_numbers[start], tuple(entries[start:index]))
                start = index


def choose_shard_size(images: int, actors: int, largest: int) -> int:
    """Images a shard when the job does not say: eight shards an actor, within 16..`largest`.

    Depends on counts alone, never on timing, so that equal jobs are cut alike.
    """
    return max(16, min(largest, -(-images // (actors * 8))))


def _encode_part(shards: list[int], entries: list[ObjectInfo]) -> bytes:
    columns: dict[str, list[object]] = {"shard": list(shards)}
    for name in ("key", "etag", "size", "last_modified"):
        columns[name] = [getattr(info, name) for info in entries]
    sink = io.BytesIO()
    pq.write_table(pa.table(columns, schema=PLAN_SCHEMA), sink, compression="zstd")
    return sink.getvalue()


def _part_key(run_id: str, part: int) -> str:
    return f"runs/{run_id}/plan/part-{part:05d}.parquet"


def _manifest_key(run_id: str) -> str:
    return f"runs/{run_id}/plan/plan.json"
