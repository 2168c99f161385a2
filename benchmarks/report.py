"""How long does a run's report take, how much memory, how large is the page?

Writes the results of a made-up run into a local folder (thousands of images per shard, as on a GPU; some images and
masks stands for all of them, so that the gallery has something to draw), with an earlier run of another recipe to
compare with, and makes the report in a fresh process.

    python benchmarks/report.py                       # a million images
    python benchmarks/report.py --images 10000000 --alone
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from fcn_core import PredictorSettings, preset
from fcn_core.labels import encode_mask
from pipeline.outputs.areas import class_areas, count_areas
from pipeline.outputs.results import RESULTS_SCHEMA, shard_key
from pipeline.outputs.runs import Counts, RunRecord, write_record
from pipeline.outputs.seal import to_parquet
from pipeline.report.make import write_report
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store

LABELS = preset("cityscapes")
PHOTOS = 64
SIZE = (480, 360)
ERROR_RATE = 0.002
LINKED = 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--shard-size", type=int, default=4096)
    parser.add_argument("--alone", action="store_true", help="no earlier run to compare with")
    parser.add_argument("--make", nargs=2, metavar=("OUTPUT", "RUN"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        make(*options.make)
        return
    with tempfile.TemporaryDirectory(prefix="fcn-report-") as folder:
        source, output = open_store(f"{folder}/photos"), open_store(f"{folder}/labels")
        began = time.perf_counter()
        pool = fill(source, output)
        runs = ["20261122T000000Z-0002"] if options.alone else ["20261121T000000Z-0001", "20261122T000000Z-0002"]
        for number, run_id in enumerate(runs):
            write_run(source, output, run_id, f"{number:016d}", pool, options.images, options.shard_size)
        print(
            f"{len(runs)} runs of {options.images:,} images written in {time.perf_counter() - began:.0f} s", flush=True
        )
        subprocess.run([sys.executable, __file__, "--make", output.uri, runs[-1]], check=True)


def make(output: str, run_id: str) -> None:
    """In a process of its own, whose memory is the report's."""
    store, before = open_store(output), peak_mb()
    began = time.perf_counter()
    key = write_report(store, run_id, lambda name: print(f"{time.perf_counter() - began:6.1f} s  {name}", flush=True))
    seconds = time.perf_counter() - began
    size = len(store.get(key)) / 1e6
    print(
        f"{seconds:6.1f} s  done: {size:.1f} MB of HTML, peak memory {peak_mb():.0f} MB ({before:.0f} before it began)"
    )


def fill(source: Store, output: Store) -> pa.Table:
    """Photos and masks that stand for all, as rows that want only a key."""
    rng = np.random.default_rng(0)
    rows = []
    for index in range(PHOTOS):
        coarse = rng.integers(0, 256, (8, 10, 3), dtype=np.uint8)
        photo = np.asarray(Image.fromarray(coarse).resize(SIZE, Image.Resampling.BICUBIC))
        blocks = rng.choice(rng.permutation(LABELS.num_classes)[:8], (9, 12)).astype(np.uint8)
        mask = np.asarray(Image.fromarray(blocks).resize(SIZE, Image.Resampling.NEAREST))
        name, mask_key = f"{index:02d}.jpg", f"masks/pool/{index:02d}.png"
        Path(source.uri).mkdir(exist_ok=True)
        Image.fromarray(photo).save(Path(source.uri) / name, quality=90)
        output.put(mask_key, encode_mask(mask, LABELS))
        info = source.head(name)
        rows.append(
            {
                "key": name,
                "etag": info.etag,
                "size": info.size,
                "last_modified": info.last_modified,
                "status": "ok",
                "width": SIZE[0],
                "height": SIZE[1],
                "orientation": 1,
                "mask_key": mask_key,
                "mask_sha256": "",
                "areas": [asdict(area) for area in class_areas(count_areas(mask, LABELS), LABELS)],
                "model_id": "0123456789abcdef",
                "params_id": "",
            }
        )
    return pa.Table.from_pylist(rows, schema=RESULTS_SCHEMA)


def write_run(
    source: Store, output: Store, run_id: str, params_id: str, pool: pa.Table, images: int, shard_size: int
) -> None:
    """Results and record of a run. One photo in LINKED is there, a link into the pool; the others count as gone."""
    rng = np.random.default_rng(int(params_id))
    started = datetime.now(UTC)
    failed = 0
    for shard, first in enumerate(range(0, images, shard_size)):
        count = min(shard_size, images - first)
        chosen = rng.integers(0, PHOTOS, count)
        keys = [f"camera-{index % 40:02d}/2026-11-22/{index:010d}.jpg" for index in range(first, first + count)]
        for key, photo in zip(keys[::LINKED], chosen[::LINKED].tolist(), strict=True):
            path = Path(source.uri) / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            path.hardlink_to(Path(source.uri) / f"{photo:02d}.jpg")
        bad = pa.array(rng.random(count) < ERROR_RATE)
        failed += pc.sum(bad).as_py()
        digests = rng.bytes(32 * count).hex()
        table = pool.take(chosen)
        columns: dict[str, Any] = {name: table.column(name).combine_chunks() for name in RESULTS_SCHEMA.names}
        columns |= {
            "key": pa.array(keys),
            "mask_sha256": pa.array([digests[at : at + 64] for at in range(0, 64 * count, 64)]),
            "confidence": pa.array(rng.beta(8, 2, count), pa.float32()),
            "params_id": pa.array([params_id] * count),
        }
        for name in ("width", "height", "mask_key", "mask_sha256", "confidence"):
            columns[name] = pc.if_else(bad, None, columns[name])
        columns["areas"] = pc.if_else(bad, pa.scalar(None, columns["areas"].type), columns["areas"])
        columns["status"] = pc.if_else(bad, "error", "ok")
        columns["error"] = pc.if_else(bad, "truncated", None)
        columns["message"] = pc.if_else(bad, "The file ends before the picture does.", None)
        path = Path(output.uri) / shard_key("results", run_id, shard)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Not through the store, which makes every file durable.
        path.write_bytes(to_parquet(pa.table(columns, schema=RESULTS_SCHEMA)))
    write_record(
        output,
        RunRecord(
            run_id=run_id,
            state="finished",
            job={"source": source.uri, "output": output.uri, "model": "model"},
            job_digest="",
            model_id="0123456789abcdef",
            params_id=params_id,
            recipe=params_id[-8:],
            settings=PredictorSettings(
                device="cpu", precision="float32", batch_size=1, tile_pixels=1 << 22, threads=1, deterministic=False
            ),
            images=images,
            shards=-(-images // shard_size),
            started=started,
            finished=datetime.now(UTC) + timedelta(seconds=1),
            counts=Counts(images=images, ok=images - failed, errors={"truncated": failed}),
            seconds=(datetime.now(UTC) - started).total_seconds(),
            version="0.2.0",
        ),
    )


def peak_mb() -> float:
    """The most resident memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
