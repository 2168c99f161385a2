"""The demo's own model: a small FCN-8s, trained from scratch on generated scenes in about a minute.

It exists so that the demo downloads nothing. The recipe is a rather narrow VGG-16 without any normalisation
layers: what makes it train from random weights is AdamW, a short warm-up and clipped gradients. The time
budget ends the run well on slower machines, with fewer steps.
"""

from collections.abc import Callable

from fcn_core.bundle import ModelBundle
from fcn_core.datasets import Example, InMemory
from fcn_core.fcn import Architecture
from fcn_core.metrics import Scores
from fcn_core.predict import resolve_settings
from fcn_core.trainer import StepReport, TrainConfig, Trainer, evaluate
from fcn_core.transforms import Augmentation
from flows.scenes import SCENE_LABELS, generate_scene, scene_size

DEMO_ARCHITECTURE = Architecture(
    arch="fcn8s", num_classes=SCENE_LABELS.num_classes, width=0.25, head_width=128, dropout=0.0
)

DEMO_TRAINING = TrainConfig(
    steps=1100,
    max_seconds=75,
    batch_size=4,
    learning_rate=3e-3,
    warmup_steps=20,
    clip_norm=1.0,
    augmentation=Augmentation(crop_height=192, crop_width=192, scale_min=0.8, scale_max=1.4),
)

TRAINING_SEEDS = range(240)
HELD_OUT_SEEDS = range(10_000, 10_040)


def demo_dataset(seeds: range) -> InMemory:
    """The generated scenes of those seeds, named scene-<seed>, in the sizes that the demo gives them."""
    scenes = ((seed, generate_scene(seed, *scene_size(seed))) for seed in seeds)
    examples = [Example(f"scene-{seed:05d}", scene.image, scene.mask) for seed, scene in scenes]
    return InMemory(examples, SCENE_LABELS)


def train_demo_model(
    progress: Callable[[StepReport], None] | None = None,
    architecture: Architecture = DEMO_ARCHITECTURE,
    config: TrainConfig | None = None,
    training: range = TRAINING_SEEDS,
    held_out: range = HELD_OUT_SEEDS,
) -> tuple[ModelBundle, Scores]:
    """Train the demo's model; returns it with its scores on held-out scenes, which are also noted in the
    bundle.

    `training` and `held_out` are the seeds of the scenes. The weights at the start are those of
    `config.seed`. `progress` is called after every step.
    Without a `config` it is DEMO_TRAINING, in bfloat16 where this machine's processor computes in it.
    """
    settings = resolve_settings(device="cpu")
    config = config or DEMO_TRAINING.model_copy(update={"precision": settings.precision})
    start = ModelBundle.new(architecture, SCENE_LABELS, seed=config.seed)
    trainer = Trainer(start.build(), demo_dataset(training), config, start.normalization)
    trained = trainer.fit(progress)
    scores = evaluate(trained, demo_dataset(held_out), settings)
    return trainer.bundle(scores), scores
