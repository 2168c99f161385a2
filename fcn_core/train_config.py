"""How to train, as one flat form, and the two recipes that fill it in: `modern`, and `paper` as the authors trained.

The one thing to know: everything here changes the weights that come out (or, for device and loader, may change their
last bits), so a run is continued only under the config it was begun with.
"""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fcn_core.architecture import STRIDES, ArchName
from fcn_core.transforms import Augmentation

RecipeName = Literal["modern", "paper"]

DEFAULT_EPOCHS = 30.0

PAPER_STEPS = 100_000
PAPER_RATES = {32: 1e-10, 16: 1e-12, 8: 1e-14}
"""The authors' fixed learning rates by the network's stride, for a loss summed over all pixels of one image."""


class TrainConfig(BaseModel):
    """How to train. With the mean loss, learning rates are for the mean a labelled pixel."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: float | None = Field(None, gt=0, description="Passes over the training set. Default: 30, unless steps say.")
    steps: int | None = Field(None, ge=1, description="Optimiser steps, instead of epochs.")
    max_seconds: float | None = Field(
        None,
        gt=0,
        description="Time budget of the training steps; the schedule then follows whichever runs out first.",
    )
    batch_size: int = Field(4, ge=1, description="Examples a step, of all workers together.")
    accumulate: int = Field(1, ge=1, description="Parts that a worker's share of a step is cut into, to save memory.")
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="AdamW, or SGD with momentum as in the paper.")
    learning_rate: float = Field(1.5e-4, gt=0, description="Largest learning rate, reached after the warm-up.")
    backbone_rate_factor: float = Field(
        1.0, ge=0, description="Times this for the backbone; below 1 spares a pretrained one, 0 freezes it."
    )
    bias_rate_factor: float = Field(1.0, gt=0, description="Times this for biases; the paper doubles theirs.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD; AdamW uses its usual betas.")
    weight_decay: float = Field(0.01, ge=0, description="Weight decay; biases have none.")
    warmup_steps: int = Field(100, ge=0, description="Steps over which the learning rate rises from zero.")
    poly_power: float = Field(
        0.9, ge=0, description="The rate falls as (1 - progress) to this power; 0 keeps it constant."
    )
    clip_norm: float | None = Field(5.0, gt=0, description="Largest norm of the whole gradient. Empty: not clipped.")
    loss: Literal["mean", "sum"] = Field("mean", description="Loss a labelled pixel, or summed over them (the paper).")
    class_weights: tuple[float, ...] | None = Field(None, description="Weight of each class in the loss. Default: 1.")
    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="Where to train: cpu, cuda, cuda:1, ...")
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Other than float32: autocast, the weights stay float32. float16 is for CUDA."
    )
    workers: int = Field(0, ge=0, description="Processes that read and vary examples. 0: the training process does.")
    seed: int = Field(0, ge=0, description="Seed of order, augmentation and dropout.")
    augmentation: Augmentation = Field(default_factory=Augmentation, description="How examples are varied.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.steps is not None and self.epochs is not None:
            raise ValueError(f"steps {self.steps} and epochs {self.epochs:g} are both given: give one")
        if self.precision == "float16" and self.device == "cpu":
            raise ValueError("float16 needs a CUDA device: use bfloat16 or float32 on the CPU")
        if self.class_weights is not None and not all(0 <= weight < float("inf") for weight in self.class_weights):
            raise ValueError("class_weights must be finite and not negative")
        return self

    def total_steps(self, examples: int) -> int:
        """Optimiser steps for a training set of so many examples, at least 1."""
        if self.steps is not None:
            return self.steps
        return max(1, round((self.epochs or DEFAULT_EPOCHS) * examples / self.batch_size))


def recipe(name: RecipeName, arch: ArchName = "fcn8s") -> TrainConfig:
    """A config to start from.

    modern: random scales and crops, AdamW, warm-up and poly decay. paper: one whole image a step, unvaried, SGD with
    momentum 0.99 on the summed loss, a fixed rate for each of the stages 32s, 16s and 8s, where each starts from the
    one before (Long, Shelhamer and Darrell 2015, section 4.3, and the authors' solver files).
    """
    if name == "modern":
        return TrainConfig()
    return TrainConfig(
        steps=PAPER_STEPS,
        batch_size=1,
        optimizer="sgd",
        learning_rate=PAPER_RATES[STRIDES[arch]],
        bias_rate_factor=2.0,
        momentum=0.99,
        weight_decay=5e-4,
        warmup_steps=0,
        poly_power=0.0,
        clip_norm=None,
        loss="sum",
        augmentation=Augmentation.none(),
    )
