"""Trains an FCN on a data set of labelled images, step by step, on one device.

The one thing to know: all randomness of step s - which examples, how they are varied, which units drop out -
follows from the seed and s alone. So model, optimiser and step number are the whole state of a run
(`state_dict`), and a run that goes on from them takes the same steps as one that never stopped.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fcn_core.bundle import IMAGENET, ModelBundle, Normalization
from fcn_core.datasets import Dataset
from fcn_core.errors import DataError, FcnError
from fcn_core.losses import pixel_cross_entropy
from fcn_core.metrics import ConfusionMatrix, Scores
from fcn_core.network import Network
from fcn_core.predict import Predictor, PredictorSettings, resolve_settings
from fcn_core.transforms import Augmentation, TrainTransform, as_tensors


class DivergedError(FcnError):
    """The loss is no longer a finite number."""


class TrainConfig(BaseModel):
    """How to train. Learning rates are for the mean loss a labelled pixel."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int = Field(2000, ge=1, description="optimiser steps at most")
    max_seconds: float | None = Field(
        None,
        gt=0,
        description="time budget of the training steps; the schedule then follows whichever runs out first",
    )
    batch_size: int = Field(4, ge=1, description="examples a step")
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="AdamW, or SGD with momentum as in the paper")
    learning_rate: float = Field(3e-4, gt=0, description="largest learning rate, reached after the warm-up")
    backbone_rate_factor: float = Field(
        1.0, ge=0, description="times this for the backbone; below 1 spares a pretrained one"
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of SGD; AdamW uses its usual betas")
    weight_decay: float = Field(1e-4, ge=0, description="weight decay; biases have none")
    warmup_steps: int = Field(50, ge=0, description="steps over which the learning rate rises from zero")
    poly_power: float = Field(
        0.9, ge=0, description="the rate falls as (1 - progress) to this power; 0 keeps it constant"
    )
    clip_norm: float | None = Field(5.0, gt=0, description="largest norm of the whole gradient; none: not clipped")
    device: str = Field("cpu", description="where to train: cpu, cuda, cuda:1, ...")
    precision: Literal["float32", "bfloat16"] = Field("float32", description="bfloat16: autocast; weights stay float32")
    workers: int = Field(0, ge=0, description="processes that read and vary examples; 0: this process does")
    seed: int = Field(0, ge=0, description="seed of order, augmentation and dropout")
    augmentation: Augmentation = Field(default_factory=Augmentation, description="how examples are varied")


@dataclass(frozen=True)
class StepReport:
    """One step done.

    `step` of at most `steps`, 1 is the first; `loss` is the mean a labelled pixel; `seconds` of training so
    far, over all of the run's parts; `progress` 0..1, which reaches 1 before the last step if time runs out
    first.
    """

    step: int
    steps: int
    loss: float
    learning_rate: float
    images_per_second: float
    seconds: float
    progress: float


@dataclass(frozen=True)
class Batch:
    """Varied examples, stacked. `images`: uint8 [N, 3, H, W] RGB; `masks`: uint8 [N, H, W]; `names`: where
    they are from."""

    images: Tensor
    masks: Tensor
    names: tuple[str, ...]


class Trainer:
    """Owns model, optimiser and schedule; `fit` runs the steps that are left.

    The model is trained in place, on `config.device`. Raises DataError for examples that cannot be used,
    DivergedError when the loss is not finite.
    """

    def __init__(
        self,
        model: Network,
        dataset: Dataset,
        config: TrainConfig,
        normalization: Normalization = IMAGENET,
    ) -> None:
        classes = model.architecture.num_classes
        if dataset.labels.num_classes != classes:
            raise DataError(
                f"the network scores {classes} classes, label set {dataset.labels.name!r} has "
                f"{dataset.labels.num_classes}: build the network for the label set"
            )
        if not len(dataset):
            raise DataError("the training set is empty: check the split")
        self.config = config
        self.dataset = dataset
        self.normalization = normalization
        self.device = torch.device(config.device)
        self.model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = _optimizer(model, config)
        self.step = 0
        self.seconds = 0.0
        self._transform = TrainTransform(config.augmentation, dataset.labels.ignore_index)

    @property
    def progress(self) -> float:
        """How much of the run is over, 0..1: of its steps or of its time budget, whichever is further."""
        share = self.step / self.config.steps
        if self.config.max_seconds is not None:
            share = max(share, self.seconds / self.config.max_seconds)
        return min(share, 1.0)

    def fit(self, on_step: Callable[[StepReport], None] | None = None) -> ModelBundle:
        """Train until steps or time run out; returns the model as `bundle` does.

        A time budget makes a run end well on any machine, its learning rate decayed to zero, but the number
        of steps is then that machine's. `on_step` is called after every step; what it raises ends the run.
        """
        self.model.train()
        seconds_before, steps_before, started = self.seconds, self.step, time.perf_counter()
        batches = self._batches()
        while self.progress < 1:
            batch = next(batches)
            rate = self._set_learning_rate()
            loss = self._train_step(batch)
            self.step += 1
            elapsed = time.perf_counter() - started
            self.seconds = seconds_before + elapsed
            if on_step is not None:
                speed = (self.step - steps_before) * self.config.batch_size / elapsed
                on_step(StepReport(self.step, self.config.steps, loss, rate, speed, self.seconds, self.progress))
        return self.bundle()

    def bundle(self, scores: Scores | None = None) -> ModelBundle:
        """A snapshot of the model, with how it was made and, if given, how good it is."""
        provenance = {
            "trained_on": {"labels": self.dataset.labels.name, "examples": len(self.dataset)},
            "train_config": self.config.model_dump(mode="json"),
            "steps": self.step,
            "seconds": round(self.seconds, 1),
            "torch": torch.__version__,
        }
        return ModelBundle.from_model(
            self.model,
            self.dataset.labels,
            self.normalization,
            provenance=provenance,
            scores=scores.model_dump(mode="json") if scores else None,
        )

    def state_dict(self) -> dict[str, Any]:
        """All that a run needs to go on, besides its config and its data."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave; model and optimiser must be of the same make."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = int(state["step"])
        self.seconds = float(state["seconds"])

    def learning_rate(self) -> float:
        """The rate of the next step: warm-up, times the poly decay (DeepLab) over the run's progress."""
        warmup = min(1.0, (self.step + 1) / self.config.warmup_steps) if self.config.warmup_steps else 1.0
        decay = float((1 - self.progress) ** self.config.poly_power)
        return self.config.learning_rate * warmup * decay

    def _set_learning_rate(self) -> float:
        rate = self.learning_rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["rate_factor"]
        return rate

    def _train_step(self, batch: Batch) -> float:
        """One optimiser step; the mean loss a labelled pixel, 0 if there is none."""
        inputs = self.normalization.apply(batch.images.to(self.device))
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        target = batch.masks.to(self.device)
        with torch.random.fork_rng(devices=_rng_devices(self.device)):
            torch.manual_seed(_seed(self.config.seed, self.step, 1))
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"):
                logits = self.model(inputs)
            total, valid = pixel_cross_entropy(logits, target, self.dataset.labels.ignore_index)
            loss = total / valid.clamp(min=1)
            value = float(loss.detach())
            if not math.isfinite(value):
                raise DivergedError(
                    f"the loss of step {self.step + 1} is {value}, learning rate {self.learning_rate():.3g}, "
                    f"examples {', '.join(batch.names)}: lower the learning rate, or look at these examples"
                )
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
        if self.config.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm)
        self.optimizer.step()
        return value

    def _batches(self) -> Iterator[Batch]:
        """The batches of the steps that are left, made ahead by worker processes if there are any."""
        first, last = self.step * self.config.batch_size, self.config.steps * self.config.batch_size
        source = _Varied(self.dataset, self._transform, self.config.seed)
        loader: DataLoader[tuple[Tensor, Tensor, str]] = DataLoader(
            source,  # type: ignore[arg-type]  # by position, not by index into a data set
            batch_size=self.config.batch_size,
            sampler=range(first, last),
            num_workers=self.config.workers,
            collate_fn=_stack,
            generator=torch.Generator(),  # else it draws a seed from the caller's
        )
        return iter(loader)


class _Varied:
    """The endless stream of training examples: position p is always the same example, varied the same way.

    Every pass over the data set has an order of its own, and every example occurs once a pass.
    """

    def __init__(self, dataset: Dataset, transform: TrainTransform, seed: int) -> None:
        self.dataset = dataset
        self.transform = transform
        self.seed = seed
        self._order: tuple[int, Any] = (-1, None)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor, str]:
        epoch, place = divmod(position, len(self.dataset))
        if self._order[0] != epoch:
            self._order = (epoch, np.random.default_rng([self.seed, epoch]).permutation(len(self.dataset)))
        example = self.dataset[int(self._order[1][place])]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_seed(self.seed, position, 0))
            image, mask = self.transform(*as_tensors(example.image, example.mask))
        return image, mask, example.name


def _stack(examples: list[tuple[Tensor, Tensor, str]]) -> Batch:
    images, masks, names = zip(*examples, strict=True)
    return Batch(torch.stack(images), torch.stack(masks), names)


def _seed(*parts: int) -> int:
    """One well mixed 63-bit seed from several numbers: neighbouring steps must not get related streams."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _rng_devices(device: torch.device) -> list[int]:
    """The CUDA devices whose random state a step may change."""
    if device.type != "cuda":
        return []
    return [torch.cuda.current_device() if device.index is None else device.index]


def _optimizer(model: Network, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimiser over four groups: backbone or not, weights (decayed) or biases (not)."""
    backbone = {id(parameter) for parameter in model.backbone_parameters()}
    groups: list[dict[str, Any]] = []
    for in_backbone in (True, False):
        for decayed in (True, False):
            members = [
                parameter
                for parameter in model.parameters()
                if parameter.requires_grad
                and (id(parameter) in backbone) == in_backbone
                and (parameter.ndim > 1) == decayed
            ]
            groups.append(
                {
                    "params": members,
                    "weight_decay": config.weight_decay if decayed else 0.0,
                    "rate_factor": config.backbone_rate_factor if in_backbone else 1.0,
                }
            )
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.learning_rate)
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum)


def evaluate(bundle: ModelBundle, dataset: Dataset, settings: PredictorSettings | None = None) -> Scores:
    """Scores of a model on whole, unvaried images, predicted as a labelling run predicts them."""
    if bundle.labels.num_classes != dataset.labels.num_classes:
        raise DataError(
            f"the model knows {bundle.labels.num_classes} classes, label set {dataset.labels.name!r} has "
            f"{dataset.labels.num_classes}: evaluate it on data with its own label set"
        )
    settings = settings or resolve_settings()
    predictor = Predictor(bundle, settings)
    matrix = ConfusionMatrix(bundle.labels.num_classes, dataset.labels.ignore_index)
    for first in range(0, len(dataset), settings.batch_size):
        examples = [dataset[i] for i in range(first, min(first + settings.batch_size, len(dataset)))]
        for example, found in zip(examples, predictor.predict([e.image for e in examples]), strict=True):
            matrix.update(example.mask, found.mask)
    return matrix.scores()
