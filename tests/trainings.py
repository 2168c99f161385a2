"""What the tests of training jobs share: a tiny data set that can be learnt, a job for it, and what became of it."""

import io
import json
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fcn_core import LabelSet
from fcn_core.labels import encode_mask
from pipeline.storage.store import Store, open_store
from pipeline.training.job import TrainObserver
from pipeline.training.options import TrainJob
from pipeline.training.progress import TrainProgress
from pipeline.training.store import TrainStore
from tests.processes import descendants

LABELS = LabelSet(name="three", names=("ground", "red", "green"), palette=((0, 0, 0), (255, 0, 0), (0, 255, 0)))
COLOURS = np.array([[30, 30, 30], [200, 40, 40], [40, 200, 40]], np.uint8)


def write_scenes(place: Path | str, train: int = 12, val: int = 4, size: int = 32) -> None:
    """Coloured squares on dark ground, in PASCAL VOC's layout, in a folder or a bucket."""
    store: Store = open_store(str(place))
    rng = np.random.default_rng(0)
    names = {
        split: [f"{split}-{index:02d}" for index in range(count)] for split, count in (("train", train), ("val", val))
    }
    for index, name in enumerate(names["train"] + names["val"]):
        mask = np.zeros((size, size), np.uint8)
        top, left = rng.integers(0, size // 2, 2)
        mask[top : top + size // 2, left : left + size // 2] = 1 + index % 2
        picture = COLOURS[mask] + rng.integers(0, 30, (size, size, 3), dtype=np.uint8)
        jpeg = io.BytesIO()
        Image.fromarray(picture).save(jpeg, "JPEG", quality=95)
        store.put(f"JPEGImages/{name}.jpg", jpeg.getvalue())
        store.put(f"SegmentationClass/{name}.png", encode_mask(mask, LABELS))
    for split, listed in names.items():
        store.put(f"ImageSets/Segmentation/{split}.txt", "".join(f"{name}\n" for name in listed).encode())
    store.put("classes.txt", "".join(f"{name}\n" for name in LABELS.names).encode())


def options(place: Path | str, **changes: Any) -> dict[str, Any]:
    """The options of a small job on the scenes under `place`/data, kept under `place`/runs."""
    train = {
        "steps": 6,
        "batch_size": 4,
        "learning_rate": 1e-3,
        "warmup_steps": 0,
        "augmentation": {"crop_height": 32, "crop_width": 32},
    } | changes.pop("train", {})
    return {
        "name": "run",
        "output": f"{place}/runs",
        "dataset": f"{place}/data",
        "arch": "fcn8s",
        "width": 0.125,
        "head_width": 16,
        "workers": 1,
        "cpus_per_worker": 1,
        "use_gpu": False,
        "save_every": 2,
        "log_every": 1,
        "train": train,
    } | changes


def job(place: Path | str, **changes: Any) -> TrainJob:
    return TrainJob.model_validate(options(place, **changes))


def kept(job: TrainJob) -> TrainStore:
    """What a job has written."""
    return TrainStore(open_store(job.output).at(job.name))


class Watcher(TrainObserver):
    """Remembers what it is told, and does something at each progress."""

    def __init__(self, at_progress: Callable[[TrainProgress], None] = lambda progress: None) -> None:
        self.phases: list[str] = []
        self.notes: list[str] = []
        self.workers: list[int] = []
        self._at_progress = at_progress

    def phase(self, name: str) -> None:
        self.phases.append(name)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def progress(self, progress: TrainProgress) -> None:
        if not self.workers or self.workers[-1] != progress.workers:
            self.workers.append(progress.workers)
        self._at_progress(progress)


def training_workers(root: int | None = None) -> list[int]:
    """The processes of Ray Train's workers that were started below `root`, this process unless told."""
    return sorted(
        pid for pid, title in descendants(root or os.getpid()).items() if title.startswith("ray::RayTrainWorker")
    )


def kill_a_worker(root: int | None = None) -> None:
    os.kill(training_workers(root)[-1], signal.SIGKILL)


def seen_examples(store: TrainStore) -> dict[int, Counter[str]]:
    """What all workers together saw at each step that the newest checkpoint stands on."""
    checkpoint = store.newest_checkpoint()
    assert checkpoint is not None
    steps: dict[int, Counter[str]] = {}
    for folder in checkpoint.examples:
        for info in store.store.list(f"{folder}/"):
            for step, names in json.loads(store.store.get(info.key)).items():
                steps.setdefault(int(step), Counter()).update(names)
    return steps


def assert_each_once_an_epoch(store: TrainStore, examples: int, steps: int, batch_size: int) -> None:
    """No example was skipped or doubled: every epoch's worth of positions has each name once."""
    seen = seen_examples(store)
    assert sorted(seen) == list(range(1, steps + 1)), "every committed step has its record"
    assert all(counts.total() == batch_size for counts in seen.values())
    per_epoch, rest = divmod(examples, batch_size)
    assert rest == 0, "the test wants whole epochs"
    for first in range(1, steps + 1, per_epoch):
        if first + per_epoch - 1 <= steps:
            epoch = sum((seen[step] for step in range(first, first + per_epoch)), Counter())
            assert len(epoch) == examples, "an example was skipped"
            assert set(epoch.values()) == {1}, "an example was seen twice"
