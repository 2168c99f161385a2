"""What the tests of training jobs share: a tiny data set that can be learnt, a job for it, and what became of it."""

import contextlib
import io
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotDone
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
from PIL import Image

from fcn_core import LabelSet
from fcn_core.data.datasets import Dataset, Example
from fcn_core.labels import encode_mask
from pipeline.jobs.train import TrainJob
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store
from pipeline.training import job as training
from pipeline.training.group_spec import GroupResult, GroupSpec, GroupStatus
from pipeline.training.observer import TrainObserver
from pipeline.training.progress import TrainProgress
from pipeline.training.store import TrainStore
from pipeline.training.worker import TELL_SECONDS, TrainWorkerSpec, train_stage
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
        "keep_checkpoints": 2,
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


@dataclass(frozen=True)
class Gate:
    """Where each worker of a training waits, once it has read so many `examples`, until the test lets it go on.

    So a run can be disturbed in its middle, and at a known step, however fast or slow the machine is.
    """

    folder: Path
    examples: int

    @contextlib.contextmanager
    def closed(self) -> Iterator[None]:
        """Trainings that start meanwhile have the gate on their way. It opens when they are asked to stop."""
        gate = self

        class Group(training.Group):
            def stop(self) -> None:
                ray.get(self._leader.stop.remote())
                (gate.folder / "open").touch()

        self.folder.mkdir(parents=True, exist_ok=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(training, "TrainWorkerSpec", self._spec)
            patch.setattr(training, "Group", Group)
            yield

    def waiting(self) -> list[int]:
        """The processes that wait, by their ids; those that have died are gone."""
        names = {path.name for path in self.folder.glob("*")}
        found = (int(name) for name in names if name.isdigit() and f"{name}-may-go" not in names)
        return sorted(pid for pid in found if Path(f"/proc/{pid}").exists())

    def let_go(self) -> None:
        """Let all go on that wait now."""
        for pid in self.waiting():
            (self.folder / f"{pid}-may-go").touch()

    def wait(self) -> None:
        """What a worker does at the gate."""
        (self.folder / str(os.getpid())).touch()
        arrived = time.monotonic()
        signs = (self.folder / "open", self.folder / f"{os.getpid()}-may-go")
        # Never less than the time after which it asks again whether it is to stop: at its next step, then.
        while not any(sign.exists() for sign in signs) or time.monotonic() - arrived < TELL_SECONDS:
            time.sleep(0.02)

    def _spec(self, *, train_set: Dataset, **rest: Any) -> TrainWorkerSpec:
        return TrainWorkerSpec(train_set=_Gated(train_set, self), **rest)


class _Gated:
    """A data set with a gate in it."""

    def __init__(self, dataset: Dataset, gate: Gate) -> None:
        self.labels = dataset.labels
        self._dataset = dataset
        self._gate = gate
        self._read = 0

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Example:
        if self._read == self._gate.examples:
            self._gate.wait()
        self._read += 1
        return self._dataset[index]


class InProcess:
    """A group of one worker in this process: what is not about Ray needs none of the processes that take long to start.

    Put in the place of pipeline.training.job.Group.
    """

    def __init__(self, spec: GroupSpec, work: TrainWorkerSpec) -> None:
        assert spec.workers[0] == 1
        self._progress: TrainProgress | None = None
        self._stopping = False
        self._thread = ThreadPoolExecutor(1)
        self._run = self._thread.submit(train_stage, work, self)

    def report_progress(self, progress: TrainProgress) -> bool:
        self._progress = progress
        return not self._stopping

    def wait(self, seconds: float) -> GroupResult | None:
        try:
            return GroupResult(self._run.result(timeout=seconds))
        except NotDone:
            return None

    def status(self) -> GroupStatus:
        return GroupStatus(self._progress, waiting=self._progress is None, failures=0, reason="")

    def stop(self) -> None:
        self._stopping = True

    def end(self) -> None:
        self._thread.shutdown()


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
