"""How the demo's model is trained: as `fcn train` does it, on Ray Train, from the bucket and into it.

It exists so that the demo downloads nothing. The network is a rather narrow VGG-16 without any normalisation layers:
what makes it train from random weights is AdamW, a short warm-up and clipped gradients. The time budget ends the run
well on slower machines, with fewer steps.
"""

import tempfile
from collections.abc import Mapping
from typing import Any

from fcn_core.inference.settings import resolve_settings
from flows.demo.steps import Step
from pipeline.actors import cluster
from pipeline.jobs.train import TrainJob, merged
from pipeline.training.job import train
from pipeline.training.observer import TrainObserver
from pipeline.training.progress import TrainProgress
from pipeline.training.report import TrainReport

RUN_NAME = "street-scenes"

MOST_WORKERS = 2
MOST_THREADS = 4  # convolutions as small as these gain nothing from more

DEMO_TRAINING: Mapping[str, Any] = {
    "arch": "fcn8s",
    "width": 0.25,
    "head_width": 128,
    "dropout": 0.0,
    "validate_every": 5,
    "save_every": 300,
    "use_gpu": False,
    "train": {
        "steps": 1500,
        "max_seconds": 100,
        "batch_size": 4,
        "learning_rate": 3e-3,
        "warmup_steps": 20,
        "max_grad_norm": 1.0,
        "augmentation": {"crop_height": 192, "crop_width": 192, "scale_min": 0.8, "scale_max": 1.4},
    },
}
"""Options of the training job; what depends on the machine is added by `demo_job`."""


def demo_job(dataset: str, output: str, cache: str, changes: Mapping[str, Any]) -> TrainJob:
    """The training job for this machine: a worker for each of its first two CPUs, in bfloat16 where they compute in it.

    `changes` are options that win. Files of `dataset` are fetched once, into the folder `cache`.
    """
    cpus = int(cluster.nodes()[0].cpus)
    workers = max(1, min(MOST_WORKERS, cpus))
    here: dict[str, Any] = {
        "name": RUN_NAME,
        "dataset": dataset,
        "output": output,
        "cache": cache,
        "workers": workers,
        "cpus_per_worker": max(1, min(MOST_THREADS, cpus // workers)),
        "train": {"precision": resolve_settings(device="cpu").precision},
    }
    return TrainJob.model_validate(merged(merged(dict(DEMO_TRAINING), here), dict(changes)))


def train_demo_model(dataset: str, output: str, changes: Mapping[str, Any], step: Step) -> TrainReport:
    """Train on the data set at `dataset`, keep everything below `output`, and tell `step` how far it is.

    Uses the Ray that is connected, or starts one of its own.
    """
    with tempfile.TemporaryDirectory(prefix="fcn-demo-") as cache:
        return train(demo_job(dataset, output, cache, changes), _StepObserver(step))


class _StepObserver(TrainObserver):
    """Phases and progress to a step of the demo."""

    def __init__(self, step: Step) -> None:
        self._step = step

    def phase(self, name: str) -> None:
        self._step.update(None, name)

    def progress(self, progress: TrainProgress) -> None:
        if progress.loss is None or not progress.images_per_second:
            return
        # By time, for it is the time budget that ends the run on most machines.
        seconds = progress.step * DEMO_TRAINING["train"]["batch_size"] / progress.images_per_second
        share = seconds / (seconds + (progress.eta_seconds or 0.0))
        text = f"step {progress.step}, loss {progress.loss:.2f}, {progress.images_per_second:.0f} images/s"
        if progress.best_mean_iou is not None:
            text += f", mean IoU {progress.best_mean_iou:.2f}"
        self._step.update(share, text)
