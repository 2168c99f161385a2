"""How much of the model's own speed does the pipeline keep?

Rounds of the same images through the bare Predictor (decoded beforehand, masks thrown away) and through the whole
pipeline (Ray actor, masks and tables written), from and to a local folder and S3, taking turns in one run. The
pipeline's clock runs from the moment its actor is ready to its last commit; the time to get there is shown beside it.
The S3 server is on this machine, which it would not be, so its CPU seconds, divided by the cores, are taken off.

    python benchmarks/pipeline_overhead.py --images FOLDER --model BUNDLE
"""

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from data_path import cpu_seconds, s3_server
from rich.console import Console
from rich.table import Table

from fcn_core import Architecture, ModelBundle, Predictor, preset
from pipeline.actors import cluster
from pipeline.actors.observer import Observer
from pipeline.actors.outcome import ShardOutcome
from pipeline.codec.images import decode
from pipeline.jobs.segment import SegmentJob
from pipeline.outputs.runs import Progress
from pipeline.segmentation.job import segment
from pipeline.segmentation.prepare import check_inputs, resolve
from pipeline.storage.opening import open_store


class Stopwatch(Observer):
    """Notes when the first actor was ready and when the last shard was committed."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.ready = 0.0
        self.last = 0.0

    def progress(self, progress: Progress) -> None:
        if progress.actors and not self.ready:
            self.ready = time.perf_counter()

    def shard(self, run_id: str, outcome: ShardOutcome, done: int, images: int) -> None:
        self.last = time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", required=True, help="a local folder of images")
    parser.add_argument("--model", help="a bundle; default: an untrained full-width FCN-8s VGG16 with 21 classes")
    parser.add_argument("--limit", type=int, default=200, help="images a round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch:
        model = options.model or f"{scratch}/model"
        if options.model is None:
            ModelBundle.new(Architecture(num_classes=21), preset("voc")).save(model)
        job = SegmentJob(source=options.images, output=f"{scratch}/warm", model=model, limit=options.limit)
        inputs = check_inputs(job)
        settings = resolve(job, inputs).settings
        keys = [info.key for info in inputs.source.list()][: options.limit]
        pixels = [decode((Path(options.images) / key).read_bytes(), 10**9).pixels for key in keys]
        predictor = Predictor(inputs.bundle, settings)
        predictor.predict(pixels[: settings.batch_size])

        rates: dict[str, list[float]] = {"Predictor alone": [], "pipeline, folder": [], "pipeline, S3": []}
        startup = []
        with s3_server() as (address, server), s3_at(address), cluster.connect():
            bucket = open_store("s3://photos/")
            for key in keys:
                bucket.put(key, (Path(options.images) / key).read_bytes())
            for number in range(options.rounds):
                began = time.perf_counter()
                predictor.predict(pixels)
                rates["Predictor alone"].append(len(pixels) / (time.perf_counter() - began))
                places = {"folder": (options.images, f"{scratch}/labels"), "S3": (bucket.uri, "s3://labels")}
                for name, (source, output) in places.items():
                    watch, before = Stopwatch(), cpu_seconds([server])
                    report = segment(job.model_copy(update={"source": source, "output": f"{output}/{number}"}), watch)
                    assert report.counts.ok == len(pixels), report
                    others = (cpu_seconds([server]) - before) / len(os.sched_getaffinity(0))
                    rates[f"pipeline, {name}"].append(len(pixels) / (watch.last - watch.ready - others))
                    startup.append(watch.ready - watch.began)

    table = Table(
        title=f"{len(pixels)} images, {settings.engine}, {settings.precision}, {settings.threads} threads,"
        f" {options.rounds} rounds"
    )
    for name in ("", "images/s (median)", "of the Predictor", "all rounds"):
        table.add_column(name)
    base = statistics.median(rates["Predictor alone"])
    for name, found in rates.items():
        median = statistics.median(found)
        table.add_row(name, f"{median:.2f}", f"{median / base:.3f}", ", ".join(f"{rate:.2f}" for rate in found))
    Console().print(table)
    print(f"start-up before the first image: {statistics.median(startup):.1f} s (median)")


@contextlib.contextmanager
def s3_at(address: str) -> Iterator[None]:
    """Let s3:// be at `address`, here and in what is started from here."""
    told = {"AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any"}
    with mock.patch.dict(os.environ, told | {"AWS_DEFAULT_REGION": "us-east-1"}):
        yield


if __name__ == "__main__":
    main()
