"""What does planning cost at ten million keys, half of which are done, and what does the index cost that it reads?

Writes results files for half of the keys, compacts them, and plans the other half, each in a fresh process, on local
disk. The listing comes as ready batches, so that planning is timed alone; what the listing client costs beside it is
timed on canned pages: reading S3's XML (by botocore as it is, and by ours), and turning objects into batches.

    python benchmarks/plan.py                   # 10^6 and 10^7 keys
    python benchmarks/plan.py --keys 100000
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore.session
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc

from pipeline.outputs.compact import compact
from pipeline.outputs.identity import Recipe
from pipeline.outputs.plan import choose_shard_size, read_manifest, read_shards, write_plan
from pipeline.outputs.results import RESULTS_SCHEMA, shard_key
from pipeline.outputs.seal import to_parquet
from pipeline.segmentation.selection import DoneIndex, SelectionCounts, select
from pipeline.storage.batches import BATCH_ROWS, LISTING_SCHEMA, to_batches, to_infos
from pipeline.storage.opening import open_store
from pipeline.storage.s3_responses import read_fast
from pipeline.storage.store import Store

RECIPE = Recipe("0123456789abcdef", "fedcba9876543210")
RUN = "20260101T000000Z-0000"
SHARD = 4096
"""Images a results file: those of a GPU's shards."""

FAILED = 100
"""One of so many done images is an error."""

PAGES = 200
"""Pages of 1,000 keys over which the listing client is timed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, nargs="+", default=[10**6, 10**7])
    parser.add_argument("--folder", help="where to write; default: a temporary folder")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        began = time.perf_counter()
        told = STEPS[options.step](Path(options.folder))
        print(json.dumps(told | {"seconds": time.perf_counter() - began, "peak": peak_bytes()}))
        return
    print(f"{'keys':>12}{'step':>22}{'seconds':>10}{'peak MB':>10}{'on disk MB':>12}   ")
    for keys in options.keys:
        with tempfile.TemporaryDirectory(prefix="fcn-plan-", dir=options.folder) as folder:
            write_world(Path(folder), keys)
            for step in STEPS:
                line(keys, step, measured(step, folder))
        for client, seconds in listing_client().items():
            line(keys, client, {"seconds": seconds * keys})


def line(keys: int, step: str, told: dict[str, Any]) -> None:
    peak, size = (f"{told[name] / 1e6:.0f}" if name in told else "" for name in ("peak", "bytes"))
    print(f"{keys:12,}{step:>22}{told['seconds']:10.1f}{peak:>10}{size:>12}   {told.get('note', '')}", flush=True)


def measured(step: str, folder: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--step", step, "--folder", folder]
    told: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return told


def peak_bytes() -> int:
    """The most memory that this process has had. (getrusage would tell of the process that started it, too.)"""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def nothing(folder: Path) -> dict[str, Any]:
    return {"note": "the modules alone"}


def compaction(folder: Path) -> dict[str, Any]:
    output = open_store(str(folder / "labels"))
    done = compact(output)
    assert done is not None
    return {"bytes": size_of(output, "index/"), "note": f"{done.rows:,} rows of {done.shards:,} files"}


def planning(folder: Path) -> dict[str, Any]:
    output = open_store(str(folder / "labels"))
    counts = SelectionCounts()
    done = DoneIndex.of(output, RECIPE)
    chosen = select(listing(folder), include=(), exclude=(), done=done, counts=counts)
    manifest = write_plan(output, "new", chosen, choose_shard_size(10**6, 8, SHARD))
    assert counts.selected == manifest.images == counts.listed - counts.done
    return {
        "bytes": size_of(output, "runs/new/"),
        "note": f"{counts.selected:,} planned in {manifest.shards:,} shards, {manifest.parts} parts; "
        f"{counts.done:,} done, {counts.failed_before:,} of them failed",
    }


def reading(folder: Path) -> dict[str, Any]:
    output = open_store(str(folder / "labels"))
    manifest = read_manifest(output, "new")
    assert manifest is not None
    images = sum(len(shard.entries) for shard in read_shards(output, "new", manifest))
    assert images == manifest.images
    return {"note": "what a run hands out"}


STEPS = {"(start)": nothing, "compact": compaction, "plan": planning, "read the plan": reading}


def size_of(output: Store, prefix: str) -> int:
    return sum(info.size for info in output.list(prefix))


def listing(folder: Path) -> Iterator[pa.RecordBatch]:
    # Not a memory map: its pages would count as memory of the process.
    with pa.OSFile(str(folder / "listing.arrow")) as file, pa.ipc.open_stream(file) as reader:
        yield from reader


def write_world(folder: Path, keys: int) -> None:
    """The listing of `keys` objects, and results for every other one."""
    output = open_store(str(folder / "labels"))
    pending, shard = RESULTS_SCHEMA.empty_table(), 0
    with pa.OSFile(str(folder / "listing.arrow"), "wb") as file, pa.ipc.new_stream(file, LISTING_SCHEMA) as writer:
        for first in range(0, keys, SHARD * 32):
            objects = some_objects(first, min(keys, first + SHARD * 32))
            writer.write_table(objects, max_chunksize=BATCH_ROWS)
            pending = pa.concat_tables([pending, results_of(objects.take(pa.array(range(0, len(objects), 2))))])
            while len(pending) >= SHARD or (len(pending) and first + SHARD * 32 >= keys):
                data = to_parquet(pending.slice(0, SHARD))
                (folder / "labels" / shard_key("results", RUN, shard)).parent.mkdir(parents=True, exist_ok=True)
                (folder / "labels" / shard_key("results", RUN, shard)).write_bytes(data)
                pending, shard = pending.slice(SHARD), shard + 1
    assert next(output.list("results/"), None) is not None


def some_objects(first: int, stop: int) -> pa.Table:
    numbers = np.arange(first, stop)
    folders = pc.utf8_lpad(pa.array(numbers // 5000).cast(pa.string()), 4, "0")
    names = pc.utf8_lpad(pa.array(numbers).cast(pa.string()), 9, "0")
    digests = np.random.default_rng(first).bytes(16 * len(numbers)).hex()
    offsets = pa.array(np.arange(len(numbers) + 1) * 32, pa.int32())
    columns = {
        "key": pc.binary_join_element_wise("2026/camera-", folders, "/2026-03-04/", names, ".jpg", ""),
        "etag": pa.StringArray.from_buffers(len(numbers), offsets.buffers()[1], pa.py_buffer(digests.encode())),
        "size": pa.array(40_000 + numbers % 50_000),
        "last_modified": pa.array(1_772_600_000_000_000 + numbers * 1_000_003).cast(pa.timestamp("us", tz="UTC")),
    }
    return pa.table(columns, schema=LISTING_SCHEMA)


def results_of(objects: pa.Table) -> pa.Table:
    failed = pa.array(np.arange(len(objects)) % FAILED == 0)
    columns = {name: objects[name] for name in LISTING_SCHEMA.names} | {
        "status": pc.if_else(failed, "error", "ok"),
        "error": pc.if_else(failed, "truncated", None),
        "model_id": pa.repeat(RECIPE.model_id, len(objects)),
        "params_id": pa.repeat(RECIPE.params_id, len(objects)),
    }
    nulls = {field.name: pa.nulls(len(objects), field.type) for field in RESULTS_SCHEMA if field.name not in columns}
    return pa.table(columns | nulls, schema=RESULTS_SCHEMA)


def listing_client() -> dict[str, float]:
    """CPU seconds per key, before planning sees it."""
    objects = to_infos(some_objects(0, BATCH_ROWS))
    page = "".join(
        f"<Contents><Key>{each.key}</Key><LastModified>{each.last_modified:%Y-%m-%dT%H:%M:%S}.000Z</LastModified>"
        f"<ETag>&quot;{each.etag}&quot;</ETag><Size>{each.size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        for each in objects
    )
    xml = (
        '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>bucket</Name><IsTruncated>true</IsTruncated>{page}</ListBucketResult>"
    ).encode()
    answer = {"status_code": 200, "headers": {}, "body": xml}
    timings = {}
    for name, prepare in (("botocore's pages", lambda session: None), ("our S3 pages", read_fast)):
        session = botocore.session.Session()
        prepare(session)
        shape = session.get_service_model("s3").operation_model("ListObjectsV2").output_shape
        parser = session.get_component("response_parser_factory").create_parser("rest-xml")
        pages = PAGES // 10 if prepare is not read_fast else PAGES
        began = time.process_time()
        for _ in range(pages):
            assert len(parser.parse(answer, shape)["Contents"]) == BATCH_ROWS
        timings[name] = (time.process_time() - began) / pages / BATCH_ROWS
    began = time.process_time()
    for batch in to_batches(objects * PAGES):
        assert len(batch)
    timings["objects to batches"] = (time.process_time() - began) / PAGES / BATCH_ROWS
    return timings


if __name__ == "__main__":
    main()
