"""What the tests of training share: a tiny problem that can be learnt, and a network for it."""

import numpy as np

from fcn_core.bundle import ModelBundle
from fcn_core.data.augmentation import Augmentation
from fcn_core.data.datasets import Example, InMemory
from fcn_core.inference.settings import resolve_settings
from fcn_core.labels import LabelSet
from fcn_core.models.architecture import Architecture
from fcn_core.models.fcn import FCN
from fcn_core.training.config import TrainConfig

LABELS = LabelSet(name="sides", names=("dark", "bright"), palette=((0, 0, 0), (255, 255, 255)))
TINY = Architecture(arch="fcn8s", num_classes=2, width=0.125, head_width=16, dropout=0.2)
SETTINGS = resolve_settings(device="cpu", precision="float32", threads=1)
AUGMENTATION = Augmentation(crop_height=32, crop_width=40, scale_min=0.9, scale_max=1.1)


def halves(count: int = 6, size: tuple[int, int] = (48, 56)) -> InMemory:
    """Pictures with one dark and one bright half, at varying places."""
    rng = np.random.default_rng(0)
    height, width = size
    examples = []
    for k in range(count):
        mask = np.zeros(size, np.uint8)
        mask[:, int(rng.integers(width // 4, width - width // 4)) :] = 1
        image = np.where(mask == 1, 190, 60)[..., None] + rng.normal(0, 12, (height, width, 3))
        examples.append(Example(f"example-{k}", np.clip(image, 0, 255).astype(np.uint8), mask))
    return InMemory(examples, LABELS)


def config(**changes: object) -> TrainConfig:
    base = {
        "steps": 4,
        "batch_size": 2,
        "learning_rate": 2e-3,
        "weight_decay": 1e-4,
        "warmup_steps": 2,
        "augmentation": AUGMENTATION,
    }
    return TrainConfig.model_validate(base | changes)


def fresh_model(architecture: Architecture = TINY) -> FCN:
    return ModelBundle.new(architecture, LABELS, seed=3).build()
