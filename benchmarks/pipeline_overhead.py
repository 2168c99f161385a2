"""How much of the model's own speed does the pipeline keep?

Rounds of the same images through the bare Predictor (decoded beforehand, masks thrown away) and through the whole
pipeline (local folder, Ray actor, masks and tables written), taking turns in one run. The pipeline's clock runs from
the moment its actor is ready to its last commit; the time to get there is shown beside it.

    python benchmarks/pipeline_overhead.py --images FOLDER --model BUNDLE
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from fcn_core import Architecture, ModelBundle, Predictor, preset
from pipeline.actors import cluster
from pipeline.codec.images import decode
from pipeline.outputs.runs import Progress
from pipeline.segmentation.job import segment
from pipeline.segmentation.observer import Observer
from pipeline.segmentation.options import SegmentJob
from pipeline.segmentation.prepare import check_inputs, resolve
from pipeline.segmentation.segmenter import ShardOutcome


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

        alone, piped, startup = [], [], []
        with cluster.connect():
            for number in range(options.rounds):
                began = time.perf_counter()
                predictor.predict(pixels)
                alone.append(len(pixels) / (time.perf_counter() - began))
                watch = Stopwatch()
                segment(job.model_copy(update={"output": f"{scratch}/round{number}"}), watch)
                piped.append(len(pixels) / (watch.last - watch.ready))
                startup.append(watch.ready - watch.began)

    table = Table(
        title=f"{len(pixels)} images, {settings.precision}, {settings.threads} threads, {options.rounds} rounds"
    )
    for name in ("", "images/s (median)", "of the Predictor", "all rounds"):
        table.add_column(name)
    base = statistics.median(alone)
    for name, rates in (("Predictor alone", alone), ("pipeline", piped)):
        median = statistics.median(rates)
        table.add_row(name, f"{median:.2f}", f"{median / base:.3f}", ", ".join(f"{rate:.2f}" for rate in rates))
    Console().print(table)
    print(f"start-up before the first image: {statistics.median(startup):.1f} s (median)")


if __name__ == "__main__":
    main()
