"""How to train, as one flat form, and the two recipes that fill it in: `modern`, and `paper` as the authors trained.

The one thing to know: everything here changes the weights that come out (or, for device and loader, may change their
last bits), so a run is continued only under the config it was begun with.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from fcn_core.data.augmentation import Augmentation
from fcn_core.data.sampling import Sampling
from fcn_core.models.networks import ArchName
from fcn_core.options import Options

RecipeName = Literal["modern", "paper"]

DEFAULT_EPOCHS = 30.0

LONGEST = 1_000_000_000
"""Steps or seconds of a run: far more than any has, and far less than what integers and clocks can hold."""

LARGEST_BATCH = 65_536

_COARSE: dict[str, Any] = {"learning_rate": 1e-10, "steps": 100_000}
_FINER: dict[str, Any] = {"learning_rate": 1e-12, "steps": 100_000}
_FINEST: dict[str, Any] = {"learning_rate": 1e-14, "steps": 100_000}

PAPER_SOLVERS: dict[ArchName, dict[str, Any]] = {
    "fcn32s": _COARSE,
    "fcn16s": _FINER,
    "fcn8s": _FINEST,
    "fcn32s_padded": _COARSE,
    "fcn16s_padded": _FINER,
    "fcn8s_padded": _FINEST,
    "fcn8s_atonce_padded": {"learning_rate": 1e-10, "steps": 300_000},
    "fcn_alexnet_padded": {
        "learning_rate": 1e-4,
        "steps": 100_000,
        "batch_size": 20,
        "gradient_accumulation_steps": 20,
        "momentum": 0.9,
        "loss": "image_mean",
        "biases_as_weights": True,
    },
}
"""What differs between the authors' solver files (shelhamer/fcn.berkeleyvision.org, voc-fcn*/solver.prototxt and
net.py). The rates of the VGG networks are for a loss summed over the pixels of one image, AlexNet's for its mean.
"""


class TrainConfig(Options):
    """How to train. With the mean loss, learning rates are for the mean per labelled pixel."""

    epochs: float | None = Field(
        None, gt=0, le=1e6, description="Passes over the training set. Default: 30, unless steps say."
    )
    steps: int | None = Field(None, ge=1, le=LONGEST, description="Optimiser steps, instead of epochs.")
    max_seconds: float | None = Field(
        None,
        gt=0,
        le=LONGEST,
        description="Time budget of the training steps; the schedule then follows whichever runs out first.",
    )
    batch_size: int = Field(4, ge=1, le=LARGEST_BATCH, description="Examples per step, of all workers together.")
    gradient_accumulation_steps: int = Field(
        1,
        ge=1,
        le=LARGEST_BATCH,
        description="Number of gradient accumulation steps, to save memory: at most one per example of a worker.",
    )
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="AdamW, or SGD with momentum as in the paper.")
    learning_rate: float = Field(
        1.5e-4, gt=0, le=1_000, description="Largest learning rate, reached after the warm-up."
    )
    backbone_lr_multiplier: float = Field(
        1.0,
        ge=0,
        le=1_000,
        description="Factor on the backbone's learning rate; below 1 changes a pretrained one less, 0 freezes it, "
        "its batch normalization included.",
    )
    bias_lr_multiplier: float = Field(
        1.0, gt=0, le=1_000, description="Factor on the learning rate of biases; 2 in the paper."
    )
    biases_as_weights: bool = Field(
        False,
        description="Train all biases but the score layers' like weights: same rate, with weight decay. The authors' "
        "AlexNet does.",
    )
    sync_batch_norm: bool = Field(
        True,
        description="Batch normalization over the examples of all workers, so that their number does not matter; "
        "no: each worker normalizes its own, and the first one's running statistics are kept.",
    )
    freeze_upsampling: bool = Field(
        False, description="Keep transposed convolutions as they are (bilinear in a new network), as the authors do."
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum of SGD; AdamW uses its usual betas.")
    weight_decay: float = Field(
        0.01,
        ge=0,
        le=1_000,
        description="Weight decay; biases have none unless they train as weights.",
    )
    warmup_steps: int = Field(100, ge=0, le=LONGEST, description="Steps over which the learning rate rises from zero.")
    poly_power: float = Field(
        0.9, ge=0, le=100, description="The rate falls as (1 - progress) to this power; 0 keeps it constant."
    )
    max_grad_norm: float | None = Field(
        5.0,
        gt=0,
        le=1e30,
        description="Maximum norm of the whole gradient; a larger one is scaled down. Empty: no limit.",
    )
    loss: Literal["mean", "image_mean", "sum"] = Field(
        "mean",
        description="Mean over the annotated pixels of a step; image_mean: of each image, then over images (the "
        "authors' AlexNet); sum: over all annotated pixels, not divided (the paper).",
    )
    class_weights: tuple[Annotated[float, Field(ge=0, le=1e30)], ...] | None = Field(
        None, description="Weight of each class in the loss. Default: 1."
    )
    sampling: Sampling = Field(
        "uniform",
        description="How often an epoch shows each image: all once, or class_balanced: those with rare classes more "
        "often, by 1 / sqrt(share of the images that hold the class), 10 times at most.",
    )
    device: str = Field("cpu", pattern=r"^(cpu|cuda(:\d+)?)$", description="Where to train: cpu, cuda, cuda:1, ...")
    ema_decay: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Decay per step of an exponential moving average of the weights, such as 0.99; the average is what "
        "is scored and kept. Empty: the weights of the last step are.",
    )
    precision: Literal["float32", "bfloat16", "float16", "auto"] = Field(
        "float32",
        description="Other than float32: autocast, the weights stay float32. float16 is for CUDA. auto: bfloat16 where "
        "the hardware of all workers computes in it, else float32.",
    )
    workers: int = Field(
        0,
        ge=0,
        le=1024,
        description="Processes that read and augment examples. 0: the training process does. They are started anew, "
        'not forked, so a script of your own that asks for some needs `if __name__ == "__main__":`.',
    )
    seed: int = Field(0, ge=0, le=2**63 - 1, description="Seed of order, augmentation and dropout.")
    augmentation: Augmentation = Field(default_factory=Augmentation, description="How examples are augmented.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.steps is not None and self.epochs is not None:
            raise ValueError(f"steps {self.steps} and epochs {self.epochs:g} are both given: give one")
        if self.precision == "float16" and self.device == "cpu":
            raise ValueError("float16 needs a CUDA device: use bfloat16 or float32 on the CPU")
        if self.class_weights is not None and not any(self.class_weights):
            raise ValueError("class_weights are all 0, so that nothing would be learnt: give one that is larger")
        return self

    def total_steps(self, examples: int) -> int:
        """Optimiser steps for a training set of so many examples, at least 1."""
        if self.steps is not None:
            return self.steps
        return max(1, round((self.epochs or DEFAULT_EPOCHS) * examples / self.batch_size))


class LoopPlan(Options):
    """How often the loop validates, saves and notes the loss. None of it changes the weights of a step."""

    validate_every: float = Field(
        1.0, gt=0, le=1e6, description="Epochs between validations; the last step always validates."
    )
    save_every: int = Field(
        200, ge=1, le=LONGEST, description="Steps between checkpoints; a crash costs at most so many."
    )
    log_every: int = Field(20, ge=1, le=LONGEST, description="Steps that one point of the loss curve is the mean of.")


def recipe(name: RecipeName, arch: ArchName = "fcn8s") -> TrainConfig:
    """A config to start from.

    modern: random scales and crops, AdamW, warm-up and poly decay. paper: whole images, unvaried, SGD at a fixed rate,
    and transposed convolutions that stay bilinear, as in the authors' solver files (PAPER_SOLVERS). The stages 32s, 16s
    and 8s each start from the one before (Long, Shelhamer and Darrell 2015, section 4.3).

    Raises ValueError for the paper's recipe of a network that the authors have no counterpart of.
    """
    if name == "modern":
        return TrainConfig()
    if arch not in PAPER_SOLVERS:
        raise ValueError(
            f"recipe paper is how the authors trained their networks, and {arch} is not one of them; "
            f"leave the recipe out, or choose one of {', '.join(PAPER_SOLVERS)}"
        )
    usual: dict[str, Any] = {"batch_size": 1, "momentum": 0.99, "loss": "sum"}
    return TrainConfig(
        optimizer="sgd",
        bias_lr_multiplier=2.0,
        freeze_upsampling=True,
        weight_decay=5e-4,
        warmup_steps=0,
        poly_power=0.0,
        max_grad_norm=None,
        augmentation=Augmentation.none(),
        **(usual | PAPER_SOLVERS[arch]),
    )
