"""Does anything grow while a long run goes on?

Many small images through the whole pipeline (local folder, Ray actors, codec workers, masks and tables written), with
a network that costs next to nothing, so that everything around it is what works. The memory of the driver, of each
actor and of the codec workers is sampled all the while; what grows after warm-up grows with the number of images.

    python benchmarks/soak.py --images 100000
"""

import argparse
import io
import os
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from fcn_core import Architecture, ModelBundle, preset
from pipeline.actors.observer import Observer
from pipeline.actors.outcome import ShardOutcome
from pipeline.jobs.segment import SegmentJob
from pipeline.segmentation.job import segment

SIDE = 32
DIFFERENT = 64
"""Pictures that differ; the rest are copies under other names."""

ROLES = {"driver": "", "actors": "ray::_ShardWorker", "codec workers": "pipeline.codec.worker_main"}


@dataclass
class Samples(Observer):
    """Memory by role, each time with the images done by then: [(images, {role: bytes})]."""

    every: float
    images: int
    taken: list[tuple[int, dict[str, int]]] = field(default_factory=list)
    done: int = 0
    first: float = 0.0
    last: float = 0.0

    def shard(self, run_id: str, outcome: ShardOutcome, done: int, images: int) -> None:
        now = time.perf_counter()
        self.first, self.last, self.done = self.first or now, now, self.done + outcome.images

    def watch(self, over: threading.Event) -> None:
        while not over.wait(self.every):
            # After the last image there are no actors to look at.
            if 0 < self.done < self.images:
                self.taken.append((self.done, memory_by_role()))

    def near(self, images: int) -> tuple[int, dict[str, int]]:
        """The median of the five samples around that many images."""
        index = min(range(len(self.taken)), key=lambda at: abs(self.taken[at][0] - images))
        some = self.taken[max(0, index - 2) : index + 3]
        median = {role: int(np.median([memory[role] for _, memory in some])) for role in ROLES}
        return self.taken[index][0], median


def memory_by_role() -> dict[str, int]:
    """Resident bytes without shared files, added up over the processes of each role below this one."""
    parents, commands = {}, {}
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        try:
            parents[pid] = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
            commands[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
    memory = dict.fromkeys(ROLES, 0)
    for pid in commands:
        above = pid
        while above > 1 and above != os.getpid():
            above = parents.get(above, 0)
        if above != os.getpid():
            continue
        for role, mark in ROLES.items():
            if (pid == os.getpid()) if not mark else mark in commands[pid]:
                memory[role] += anonymous(pid)
    return memory


def anonymous(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:")), 0)


def make_photos(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    pictures = []
    for _ in range(DIFFERENT):
        sink = io.BytesIO()
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(sink, "JPEG")
        pictures.append(sink.getvalue())
    for index in range(count):
        if index % 1000 == 0:
            (folder / f"{index // 1000:04d}").mkdir(parents=True)
        (folder / f"{index // 1000:04d}" / f"{index:07d}.jpg").write_bytes(pictures[index % DIFFERENT])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--actors", type=int, default=1)
    parser.add_argument("--shard-size", type=int, default=256)
    parser.add_argument("--warm-up", type=float, default=0.2, help="share of the images after which growth counts")
    parser.add_argument("--folder", help="where images and labels go meanwhile; default: the system's")
    options = parser.parse_args()

    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        root = Path(scratch)
        make_photos(root / "photos", options.images)
        least = Architecture(num_classes=21, width=1 / 64, head_width=8)
        ModelBundle.new(least, preset("voc")).save(root / "model")
        job = SegmentJob(
            source=str(root / "photos"), output=str(root / "labels"), model=str(root / "model"), device="cpu",
            actors=options.actors, cpus_per_actor=1, codec_workers=2, shard_size=options.shard_size, batch_size=64,
        )  # fmt: skip
        samples, over = Samples(every=0.5, images=options.images), threading.Event()
        watcher = threading.Thread(target=samples.watch, args=(over,), daemon=True)
        watcher.start()
        report = segment(job, samples)
        over.set()
        watcher.join()

    counts = report.counts
    rate = (samples.done - options.shard_size) / max(1e-9, samples.last - samples.first)
    marks = {"start": 0, "after warm-up": int(options.images * options.warm_up), "half": options.images // 2}
    table = Table(title=f"{counts.ok} of {counts.images} images segmented, {rate:.0f} images/s; MiB of private memory")
    table.add_column("images")
    for role in ROLES:
        table.add_column(role, justify="right")
    for name, images in (marks | {"end": options.images}).items():
        at, memory = samples.near(images)
        table.add_row(f"{name} ({at:,})", *(f"{memory[role] / 2**20:.1f}" for role in ROLES))
    warm, end = samples.near(marks["after warm-up"])[1], samples.near(options.images)[1]
    table.add_row("growth since warm-up", *(f"{(end[role] - warm[role]) / 2**20:+.1f}" for role in ROLES))
    Console().print(table)


if __name__ == "__main__":
    main()
