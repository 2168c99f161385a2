"""How much of a core does an image cost that only passes through: fetched, decoded, encoded, written, and a null model?

One Segmenter, as a Ray actor has it, works through shards of 500x375 JPEGs of about 60 kB, from a loopback S3 server in
a process of its own (see memory_s3.py) or from a local folder. The model is a stand-in that answers at once with a mask
of many regions. CPU time is what Linux counts for this process and its codec workers; the server's is apart, so "images
a core-second" is what a core of a worker machine feeds to a model. (What the driver and Ray add is a matter of shards,
not of images: see scaling.py.) Below it, each stage's own CPU time, taken alone.

    python benchmarks/data_path.py --images 4000
"""

import argparse
import contextlib
import hashlib
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from rich.console import Console
from rich.table import Table

from fcn_core import Architecture, ModelBundle, PredictorSettings, Segmentation, preset, resolve_settings
from fcn_core.labels import LabelSet, encode_mask
from pipeline.actors.read_ahead import SHARDS_IN_FLIGHT
from pipeline.codec.images import decode
from pipeline.codec.processes import CodecPool
from pipeline.outputs.areas import class_areas, count_areas
from pipeline.outputs.identity import Recipe
from pipeline.outputs.results import ResultRow, commit_shard
from pipeline.outputs.shard import Shard
from pipeline.segmentation.segmenter import Segmenter, SegmenterSpec
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store

WIDTH, HEIGHT, FILE_BYTES = 500, 375, 60_000
DIFFERENT = 64
"""Pictures that differ; the rest are copies under other names."""

Pixels = npt.NDArray[np.uint8]


def photo(seed: int) -> bytes:
    """A JPEG of about FILE_BYTES: noise with the spectrum of photographs, at the quality that gives this size."""
    rng = np.random.default_rng(seed)
    across, down = np.meshgrid(np.fft.fftfreq(WIDTH), np.fft.fftfreq(HEIGHT))
    falloff = 1 / np.maximum(np.hypot(across, down), 1 / WIDTH)
    waves = np.fft.fft2(rng.standard_normal((HEIGHT, WIDTH, 3)), axes=(0, 1)) * falloff[..., None]
    field = np.fft.ifft2(waves, axes=(0, 1)).real
    pixels = (127 + 50 * field / field.std()).clip(0, 255).astype(np.uint8)
    low, high = 1, 95
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if len(jpeg(pixels, middle)) <= FILE_BYTES else (low, middle - 1)
    return jpeg(pixels, low)


def jpeg(pixels: Pixels, quality: int) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "JPEG", quality=quality)
    return sink.getvalue()


def regions(height: int, width: int, classes: int) -> Pixels:
    """A mask as a network might give: some dozens of smooth regions."""
    coarse = np.random.default_rng(0).standard_normal((classes, 7, 9)).astype(np.float32)
    layers = [Image.fromarray(layer).resize((width, height), Image.Resampling.BICUBIC) for layer in coarse]
    return np.stack([np.asarray(layer) for layer in layers]).argmax(0).astype(np.uint8)


@dataclass(frozen=True)
class Answers:
    """What was there at once."""

    found: list[Segmentation]

    def result(self) -> list[Segmentation]:
        return self.found


class NullModel:
    """Answers at once: the same mask for all images of a shape."""

    def __init__(self, bundle: ModelBundle, settings: PredictorSettings) -> None:
        self._labels = bundle.labels
        self._known: dict[tuple[int, ...], Segmentation] = {}

    def launch(self, images: Sequence[Pixels], /, *, sizes: Sequence[tuple[int, int]] | None = None) -> "Answers":
        return Answers([self._answer(image.shape[:2]) for image in images])

    def _answer(self, shape: tuple[int, ...]) -> Segmentation:
        if shape not in self._known:
            mask = regions(shape[0], shape[1], self._labels.num_classes)
            self._known[shape] = Segmentation(mask, count_areas(mask, self._labels), 0.5)
        return self._known[shape]


@contextlib.contextmanager
def s3_server() -> Iterator[tuple[str, int]]:
    """An in-memory endpoint in a process of its own: its address and process id."""
    script = Path(__file__).with_name("memory_s3.py")
    with subprocess.Popen([sys.executable, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        yield server.stdout.readline().strip(), server.pid
        server.kill()


@dataclass(frozen=True)
class Measured:
    """One pass: wall-clock, and CPU seconds by process."""

    images: int
    wall: float
    actor: float
    codecs: float
    server: float

    @property
    def milliseconds(self) -> float:
        """CPU of ours, an image."""
        return 1000 * (self.actor + self.codecs) / self.images


def run(spec: SegmenterSpec, files: Mapping[str, bytes], shards: list[Shard], server: int) -> Measured:
    """All shards through one Segmenter, the first as its warm-up; as many at once as in a run."""
    segmenter = Segmenter(spec, files, NullModel)
    try:
        segmenter.process(shards[0])
        workers = codec_workers()
        began = time.perf_counter(), time.process_time(), cpu_seconds(workers), cpu_seconds([server])
        with ThreadPoolExecutor(SHARDS_IN_FLIGHT) as threads:
            outcomes = list(threads.map(segmenter.process, shards[1:]))
        ended = time.perf_counter(), time.process_time(), cpu_seconds(workers), cpu_seconds([server])
    finally:
        segmenter.close()
    assert all(outcome.ok == outcome.images for outcome in outcomes), outcomes
    passed = [end - start for start, end in zip(began, ended, strict=True)]
    return Measured(sum(outcome.images for outcome in outcomes), *passed)


def codec_workers() -> list[int]:
    """The codec processes of this one."""
    tasks = Path("/proc/self/task").iterdir()
    children = [pid for task in tasks for pid in map(int, (task / "children").read_text().split())]
    return [pid for pid in children if b"pipeline.codec.worker_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def cpu_seconds(pids: Sequence[int]) -> float:
    """CPU so far of processes, all threads of them that are still there."""
    tasks = [task for pid in pids for task in Path(f"/proc/{pid}/task").iterdir()]
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def cpu_ms(work: Callable[[], object], repeat: int, pool: CodecPool | None = None) -> float:
    """CPU milliseconds of one call, of all threads and of the pool's processes; the median of five rounds."""
    rounds = []
    pids = pool.worker_pids() if pool else []
    for _ in range(5):
        began = time.process_time() + cpu_seconds(pids)
        for _ in range(repeat):
            work()
        rounds.append((time.process_time() + cpu_seconds(pids) - began) / repeat * 1000)
    return statistics.median(rounds)


def stages(source: Store, output: Store, pictures: list[bytes], labels: LabelSet) -> dict[str, float]:
    """Each stage's own CPU milliseconds an image, one after the other in one thread."""
    entries = list(source.list())
    turn = iter(range(10**9))

    def each(items: Sequence[Any]) -> Any:
        return items[next(turn) % len(items)]

    mask = regions(HEIGHT, WIDTH, labels.num_classes)
    png = encode_mask(mask, labels)
    rows = [
        ResultRow(
            entry.key, entry.etag, entry.size, entry.last_modified, "ok", "m" * 16, "p" * 16, None, None, WIDTH, HEIGHT,
            1, f"masks/00000000/{entry.key}.01234567.png", hashlib.sha256(entry.key.encode()).hexdigest(),
            class_areas(count_areas(mask, labels), labels), 0.5,
        )
        for entry in entries[:256]
    ]  # fmt: skip

    def fetch() -> None:
        entry = each(entries)
        source.get(entry.key, size=entry.size, etag=entry.etag)

    found = {}
    found["fetch (MD5 included)"] = cpu_ms(fetch, 200)
    found["decode"] = cpu_ms(lambda: decode(each(pictures), 10**9), 100)
    found["encode"] = cpu_ms(lambda: encode_mask(mask, labels), 100)
    with CodecPool(1) as pool:
        for _ in range(20):
            pool.decode(pictures[0]).result()
        there = cpu_ms(lambda: pool.decode(each(pictures)).result(), 100, pool)
        back = cpu_ms(lambda: pool.encode(mask, labels).result(), 100, pool)
    found["to and from the codec workers"] = there + back - found["decode"] - found["encode"]
    found["SHA-256 of the mask"] = cpu_ms(lambda: hashlib.sha256(png).hexdigest(), 500)
    found["put"] = cpu_ms(lambda: output.create(f"stage/{next(turn)}", png), 200)
    found["commit"] = cpu_ms(lambda: commit_shard(output, "stage", next(turn), rows), 4) / len(rows)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--shard-size", type=int, default=256)
    parser.add_argument("--codec-workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--storage", choices=("s3", "folder"), nargs="+", default=["s3", "folder"])
    parser.add_argument("--no-stages", action="store_true")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory() as scratch, s3_server() as (address, server):
        os.environ |= {
            "AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any",
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
        }  # fmt: skip
        places = {"s3": "s3://bench", "folder": scratch}
        pictures = [photo(seed) for seed in range(DIFFERENT)]
        bundle = ModelBundle.new(Architecture(num_classes=21, width=1 / 64, head_width=8), preset("voc"))
        files = bundle.to_files()
        settings = resolve_settings(device="cpu", precision="float32", threads=1, batch_size=8)

        size = sum(map(len, pictures)) / len(pictures)
        table = Table(title=f"{options.images} images of {WIDTH}x{HEIGHT}, {size / 1000:.0f} kB, and a null model")
        for name in ("storage", "images/s", "CPU ms/image", "actor", "codecs", "(server)", "images per core-second"):
            table.add_column(name, justify="right")
        alone: dict[str, dict[str, float]] = {}
        whole: dict[str, float] = {}
        for name in options.storage:
            source, output = open_store(f"{places[name]}/photos"), open_store(f"{places[name]}/labels")
            for index in range(options.images):
                source.put(f"{index // 1000:04d}/{index:07d}.jpg", pictures[index % DIFFERENT])
            output.put("begun", b"")
            entries = list(source.list())
            parts = [entries[at : at + options.shard_size] for at in range(0, len(entries), options.shard_size)]
            shards = [Shard(number, tuple(part)) for number, part in enumerate(parts)]
            passes = []
            for number in range(options.rounds):
                spec = SegmenterSpec(
                    source=source.uri, output=output.uri, run_id=f"r{number}",
                    recipe=Recipe(bundle.model_id, f"null{number}"), settings=settings, max_pixels=10**9,
                    codec_workers=options.codec_workers, image_timeout=60.0, image_memory=2 << 30,
                )  # fmt: skip
                measured = run(spec, files, shards, server)
                passes.append(measured.milliseconds)
                parts_ms = [1000 * seconds / measured.images for seconds in (measured.actor, measured.codecs)]
                table.add_row(
                    name, f"{measured.images / measured.wall:.0f}", f"{measured.milliseconds:.2f}",
                    *(f"{part:.2f}" for part in parts_ms), f"{1000 * measured.server / measured.images:.2f}",
                    f"{1000 / measured.milliseconds:.0f}",
                )  # fmt: skip
            whole[name] = statistics.median(passes)
            if not options.no_stages:
                alone[name] = stages(source, output, pictures, bundle.labels)
        Console().print(table)

    if alone:
        table = Table(title="CPU ms per image, each stage alone")
        table.add_column("stage")
        for name in alone:
            table.add_column(name, justify="right")
        for stage in next(iter(alone.values())):
            table.add_row(stage, *(f"{found[stage]:.2f}" for found in alone.values()))
        rest = [whole[name] - sum(found.values()) for name, found in alone.items()]
        table.add_row("threads, queues, Python between them", *(f"{value:.2f}" for value in rest))
        table.add_row("all", *(f"{whole[name]:.2f}" for name in alone))
        Console().print(table)


if __name__ == "__main__":
    main()
