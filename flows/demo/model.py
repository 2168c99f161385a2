"""The demo's own model: a small FCN-8s, trained from scratch on generated scenes in under two minutes.

It exists so that the demo downloads nothing. The recipe is a rather narrow VGG-16 without any normalisation
layers: what makes it train from random weights is AdamW, a short warm-up and clipped gradients. The time
budget ends the run well on slower machines, with fewer steps.
"""

import os
from collections.abc import Callable

import torch

from fcn_core.bundle import ModelBundle
from fcn_core.datasets import Example, InMemory
from fcn_core.evaluation import evaluate
from fcn_core.fcn import Architecture
from fcn_core.metrics import Scores
from fcn_core.predict import resolve_settings
from fcn_core.train_config import TrainConfig
from fcn_core.trainer import StepReport, Trainer
from fcn_core.transforms import Augmentation
from flows.demo.scenes import SCENE_LABELS, generate_scene, scene_size

DEMO_ARCHITECTURE = Architecture(
    arch="fcn8s", num_classes=SCENE_LABELS.num_classes, width=0.25, head_width=128, dropout=0.0
)

DEMO_TRAINING = TrainConfig(
    steps=1500,
    max_seconds=100,
    batch_size=4,
    learning_rate=3e-3,
    warmup_steps=20,
    clip_norm=1.0,
    augmentation=Augmentation(crop_height=192, crop_width=192, scale_min=0.8, scale_max=1.4),
)

MOST_THREADS = 8  # convolutions as small as these gain nothing from more

TRAINING_SEEDS = range(240)
HELD_OUT_SEEDS = range(10_000, 10_040)


def demo_dataset(seeds: range, progress: Callable[[int], None] = lambda done: None) -> InMemory:
    """The generated scenes of those seeds, named scene-<seed>, in the sizes that the demo gives them.

    `progress` is told how many there are so far.
    """
    examples = []
    for seed in seeds:
        scene = generate_scene(seed, *scene_size(seed))
        examples.append(Example(f"scene-{seed:05d}", scene.image, scene.mask))
        progress(len(examples))
    return InMemory(examples, SCENE_LABELS)


def train_demo_model(
    training: InMemory,
    held_out: InMemory,
    progress: Callable[[StepReport], None] | None = None,
    config: TrainConfig | None = None,
) -> tuple[ModelBundle, Scores]:
    """Train the demo's model; returns it with its scores on held-out scenes, which are also noted in the bundle.

    `progress` is called after every step. The weights at the start are those of `config.seed`. Without a `config` it is
    DEMO_TRAINING, in bfloat16 where this machine's processor computes in it. Sets PyTorch's number of CPU threads.
    """
    settings = resolve_settings(device="cpu")
    config = config or DEMO_TRAINING.model_copy(update={"precision": settings.precision})
    start = ModelBundle.new(DEMO_ARCHITECTURE, SCENE_LABELS, seed=config.seed)
    torch.set_num_threads(_fastest_threads(start, training, config))
    trainer = Trainer(start.build(), training, config, start.normalization)
    trained = trainer.fit(progress)
    scores = evaluate(trained, held_out, settings)
    return trainer.bundle(scores), scores


def _fastest_threads(start: ModelBundle, training: InMemory, config: TrainConfig) -> int:
    """One thread or all (up to MOST_THREADS), by trying: beside other work, two threads that wait for each other lose.

    On two idle cores two threads are nearly twice as fast as one, on two cores of which one is busy a third as fast.
    """
    trial = config.model_copy(update={"steps": 4, "max_seconds": None})
    seconds = {}
    for threads in sorted({1, min(MOST_THREADS, len(os.sched_getaffinity(0)))}):
        torch.set_num_threads(threads)
        reports: list[StepReport] = []
        Trainer(start.build(), training, trial, start.normalization).fit(reports.append)
        seconds[threads] = reports[-1].seconds - reports[0].seconds  # the first step warms up
    return min(seconds, key=lambda threads: seconds[threads])
