"""Trains an FCN on a data set of annotated images, step by step, alone or together with other processes.

The one thing to know: all randomness of step s - which examples, how they are varied, which units drop out -
follows from the seed and s alone. So model, optimiser and step number are the whole state of a run
(`state_dict`), and a run that goes on from them takes the same steps as one that never stopped.

Where torch.distributed is initialised, every process builds a Trainer alike and the examples of a step are shared
among them. The loss is divided by the annotated pixels of all of them, so their number does not matter to the result.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fcn_core.bundle import ModelBundle
from fcn_core.data.class_pixels import ClassPresence, check_presence, class_pixels
from fcn_core.data.datasets import Dataset
from fcn_core.data.sampling import image_weights
from fcn_core.data.stream import Batch, ExampleStream, Shares, load_batches, mixed_seed
from fcn_core.data.transform import TrainTransform
from fcn_core.errors import BundleError, DataError, DivergedError
from fcn_core.inference.settings import has_bfloat16
from fcn_core.metrics import Scores
from fcn_core.models.network import Network
from fcn_core.models.state_check import check_finite
from fcn_core.normalization import IMAGENET, Normalization
from fcn_core.training.averaging import WeightAverage
from fcn_core.training.batch_norm import adopt_first_workers_buffers, frozen_norms, synchronize
from fcn_core.training.config import TrainConfig
from fcn_core.training.losses import pixel_cross_entropy
from fcn_core.training.optimizer import (
    learning_rate,
    load_optimizer_state,
    make_optimizer,
    optimizer_state,
    set_learning_rate,
)

_NAMED_AT_MOST = 10

_AUTOCAST = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class StepReport:
    """One step done.

    `step` of at most `steps`, 1 is the first; `epoch`: passes over the training set so far; `loss` as the config wants
    it, mean or sum, of all workers; `images_per_second` of all workers, since this Trainer began; `seconds` of training
    so far, over all of the run's parts; `progress` 0..1, which reaches 1 before the last step if time runs out first;
    `names`: the examples of this worker; `grad_norm`: of the whole gradient, before it is clipped.
    """

    step: int
    steps: int
    epoch: float
    loss: float
    learning_rate: float
    images_per_second: float
    seconds: float
    progress: float
    eta_seconds: float
    names: tuple[str, ...]
    grad_norm: float = math.nan


class Trainer:
    """Owns model, optimiser and schedule; `run` takes the steps that are left.

    The model is trained in place, on `config.device`. `presence`: which classes each image holds, for class_balanced
    sampling; counted here, in all masks, unless it is given. Raises DataError for examples that cannot be used,
    DivergedError when the loss or the gradient is not finite.
    """

    def __init__(
        self,
        model: Network,
        dataset: Dataset,
        config: TrainConfig,
        normalization: Normalization = IMAGENET,
        presence: ClassPresence | None = None,
    ) -> None:
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        _check(model, dataset, config, self.world)
        self.config = config
        self.dataset = dataset
        self.normalization = normalization
        self.device = torch.device(config.device)
        self.model = model.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = make_optimizer(model, config)
        self._shares_norms = self.world > 1 and config.sync_batch_norm and synchronize(model, self.device)
        self._resting = frozen_norms(model)
        self.steps = config.total_steps(len(dataset))
        self.step = 0
        self.seconds = 0.0
        self._average = WeightAverage(model, config.ema_decay) if config.ema_decay is not None else None
        self.precision = self._agreed_precision()
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "float16")
        self._class_weights = None if config.class_weights is None else torch.tensor(config.class_weights)
        transform = TrainTransform(config.augmentation, dataset.labels.ignore_index)
        weights = None
        if config.sampling == "class_balanced":
            presence = presence or class_pixels(dataset).presence
            check_presence(presence, len(dataset), dataset.labels.num_classes)
            weights = image_weights(presence)
        self._stream = ExampleStream(dataset, transform, config.seed, weights)

    @property
    def progress(self) -> float:
        """How much of the run is over, 0..1: of its steps or of its time budget, whichever is further."""
        share = self.step / self.steps
        if self.config.max_seconds is not None:
            share = max(share, self.seconds / self.config.max_seconds)
        return min(share, 1.0)

    @property
    def judged(self) -> Network:
        """The network that is scored and kept: the averaged weights where the config wants an average."""
        return self.model if self._average is None else self._average.network

    @property
    def epoch(self) -> float:
        """Passes over the training set so far."""
        return self.step * self.config.batch_size / len(self.dataset)

    def run(self) -> Iterator[StepReport]:
        """Train until steps or time run out, with a report after every step; what happens between two is not timed.

        A time budget makes a run end well on any machine, its learning rate decayed to zero, but the number
        of steps is then that machine's.
        """
        if self.progress >= 1:
            return
        network = self._network()
        mine = len(range(self.rank, self.config.batch_size, self.world))
        if self._shares_norms:  # all workers meet in every part
            mine = self.config.batch_size // self.world
        per_step = min(self.config.gradient_accumulation_steps, mine)
        shares = Shares(self.step, self.steps, self.config.batch_size, self.rank, self.world, per_step)
        pinned = self.device.type == "cuda"
        batches = load_batches(self._stream, shares, self.config.workers, pin_memory=pinned)
        seconds_before, steps_before = self.seconds, self.step
        while self.progress < 1:
            started = time.perf_counter()
            self.model.train()
            for layer in self._resting:
                layer.eval()
            parts = list(islice(batches, per_step))
            rate = learning_rate(self.config, self.step, self.progress)
            set_learning_rate(self.optimizer, rate)
            loss, grad_norm = self._train_step(network, parts)
            self.step += 1
            self.seconds = self._agreed(self.seconds + time.perf_counter() - started)
            speed = (self.seconds - seconds_before) / (self.step - steps_before)
            yield StepReport(
                step=self.step,
                steps=self.steps,
                epoch=self.epoch,
                loss=loss,
                learning_rate=rate,
                images_per_second=self.config.batch_size / speed,
                seconds=self.seconds,
                progress=self.progress,
                eta_seconds=self._remaining(speed),
                names=tuple(name for part in parts for name in part.names),
                grad_norm=grad_norm,
            )

    def fit(self, on_step: Callable[[StepReport], None] | None = None) -> ModelBundle:
        """Train to the end and return the model as `bundle` does. What `on_step` raises ends the run."""
        for report in self.run():
            if on_step is not None:
                on_step(report)
        return self.bundle()

    def bundle(self, scores: Scores | None = None) -> ModelBundle:
        """A snapshot of the model, with how it was made and, if given, how good it is."""
        provenance = {
            "trained_on": {"labels": self.dataset.labels.name, "examples": len(self.dataset)},
            "train_config": self.config.model_dump(mode="json"),
            "steps": self.step,
            "precision": self.precision,
            "torch": torch.__version__,
        }
        return ModelBundle.from_model(
            self.judged,
            self.dataset.labels,
            self.normalization,
            provenance=provenance,
            scores=scores.model_dump(mode="json") if scores else None,
        )

    def state_dict(self) -> dict[str, Any]:
        """All that a run needs to go on, besides its config and its data: nested, with names for keys. Not a copy."""
        state = {
            "model": self.model.state_dict(),
            "optimizer": optimizer_state(self.optimizer, self.model),
            "step": self.step,
            "seconds": self.seconds,
        }
        if self._scaler.is_enabled():
            state["scaler"] = self._scaler.state_dict()
        if self._average is not None:
            state["average"] = self._average.state_dict()
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave; network and optimiser must be of the same make."""
        self.model.load_state_dict(state["model"])
        load_optimizer_state(self.optimizer, self.model, state["optimizer"])
        if self._scaler.is_enabled():
            self._scaler.load_state_dict(state["scaler"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        self.step = int(state["step"])
        self.seconds = float(state["seconds"])

    def _network(self) -> nn.Module:
        """The model, or what keeps it equal to those of the other workers."""
        if self.world == 1:
            model: nn.Module = self.model
            return model
        return DistributedDataParallel(self.model, device_ids=None if self.device.type == "cpu" else [self.device])

    def check_weights(self) -> None:
        """Raise DivergedError if the model's weights are no longer finite: an update can ruin what no loss has seen."""
        try:
            check_finite(self.model.state_dict(), f"after step {self.step}")
        except BundleError as error:
            raise DivergedError(str(error)) from error

    def share_buffers(self) -> None:
        """Give all workers the first one's running statistics, which are those that are saved. Collective."""
        adopt_first_workers_buffers(self.model)
        if self._average is not None:
            adopt_first_workers_buffers(self._average.network)

    def _train_step(self, network: nn.Module, parts: list[Batch]) -> tuple[float, float]:
        """One optimiser step over all parts of all workers; its loss, 0 without a labelled pixel, and the norm of its
        gradient."""
        # DistributedDataParallel divides the sum of all workers' gradients by their number.
        scale = self.world / self._divisor(parts)
        losses = []
        with torch.random.fork_rng(devices=_rng_devices(self.device)):
            torch.manual_seed(mixed_seed(self.config.seed, self.step, 1 + self.rank))
            for part in parts:
                with self._unsynchronised(network, part is not parts[-1]):
                    loss = self._part_loss(network, part) * scale
                    self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                losses.append(float(loss.detach()) / self.world)
        value = self._sum_of_all(losses)
        if not math.isfinite(value):
            raise DivergedError(self._divergence("loss", value, parts, losses))
        norm = self._clip()
        if not math.isfinite(norm) and not self._scaler.is_enabled():  # which takes no such step, and a smaller scale
            raise DivergedError(self._divergence("norm of the gradient", norm, parts, losses))
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self._average is not None:
            self._average.update(self.model)
        return value, norm

    def _clip(self) -> float:
        """Scale the gradient down where it is too long; its norm before."""
        self._scaler.unscale_(self.optimizer)
        weights = [weight for weight in self.model.parameters() if weight.grad is not None]
        if self.config.max_grad_norm is not None:
            return float(nn.utils.clip_grad_norm_(weights, self.config.max_grad_norm))
        return float(nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None]))

    def _part_loss(self, network: nn.Module, part: Batch) -> Tensor:
        inputs = self.normalization.apply(part.images.to(self.device, non_blocking=True))
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        target = part.masks.to(self.device, non_blocking=True)
        dtype = _AUTOCAST[self.precision]
        with torch.autocast(self.device.type, dtype, enabled=dtype is not None):
            logits = network(inputs)
        weights = None if self._class_weights is None else self._class_weights.to(self.device)
        ignore_index = self.dataset.labels.ignore_index
        if self.config.loss != "image_mean":
            return pixel_cross_entropy(logits, target, ignore_index, weights)[0]
        losses = []
        for image_logits, image_target, mask in zip(
            torch.split(logits, 1), torch.split(target, 1), part.masks, strict=True
        ):
            total, _ = pixel_cross_entropy(image_logits, image_target, ignore_index, weights)
            losses.append(total / (self._pixel_weight(mask) or 1.0))
        return torch.stack(losses).sum()

    def _divisor(self, parts: list[Batch]) -> float:
        """What the sum over all parts of all workers is divided by."""
        if self.config.loss == "sum":
            return 1.0
        if self.config.loss == "image_mean":
            return float(self.config.batch_size)
        return self._sum_of_all([self._pixel_weight(part.masks) for part in parts]) or 1.0

    def _pixel_weight(self, masks: Tensor) -> float:
        """What the annotated pixels of masks count together: their number, or the sum of their class weights."""
        if self._class_weights is None:
            return float((masks != self.dataset.labels.ignore_index).sum())
        counts = torch.bincount(masks.flatten().int(), minlength=256)[: len(self._class_weights)]
        return float((counts * self._class_weights.double()).sum())

    def _sum_of_all(self, values: list[float]) -> float:
        """The sum over this worker's values and those of all others."""
        if self.world == 1:
            return math.fsum(values)
        total = torch.tensor(math.fsum(values) if all(map(math.isfinite, values)) else math.nan, dtype=torch.float64)
        total = total.to(self.device)
        dist.all_reduce(total)
        return float(total)

    def _agreed(self, seconds: float) -> float:
        """The first worker's clock: where there is a time budget, all must end with the same step."""
        if self.world == 1 or self.config.max_seconds is None:
            return seconds
        clock = torch.tensor(seconds, dtype=torch.float64, device=self.device)
        dist.broadcast(clock, src=0)
        return float(clock)

    def _agreed_precision(self) -> Literal["float32", "bfloat16", "float16"]:
        """The config's precision; auto is one that the hardware of every worker has. Collective."""
        wanted = self.config.precision
        if wanted != "auto":
            return wanted
        lacking = 0.0 if has_bfloat16(self.config.device) else 1.0
        return "float32" if self._sum_of_all([lacking]) else "bfloat16"

    def _remaining(self, seconds_per_step: float) -> float:
        by_steps = (self.steps - self.step) * seconds_per_step
        if self.config.max_seconds is None:
            return by_steps
        return min(by_steps, max(0.0, self.config.max_seconds - self.seconds))

    def _unsynchronised(self, network: nn.Module, wanted: bool) -> AbstractContextManager[None]:
        """Gradients are exchanged once a step, with its last part."""
        if wanted and isinstance(network, DistributedDataParallel):
            return network.no_sync()
        return nullcontext()

    def _divergence(self, what: str, value: float, parts: list[Batch], losses: list[float]) -> str:
        """The sentence of a DivergedError: the same for all workers, which all raise it. Collective."""
        guilty = [
            name for part, loss in zip(parts, losses, strict=True) if not math.isfinite(loss) for name in part.names
        ]
        names = self._of_all(guilty) or self._of_all([name for part in parts for name in part.names])
        more = f" and {len(names) - _NAMED_AT_MOST} more" if len(names) > _NAMED_AT_MOST else ""
        rate = learning_rate(self.config, self.step, self.progress)
        return (
            f"the {what} of step {self.step + 1} is {value}, learning rate {rate:.3g}, "
            f"examples {', '.join(names[:_NAMED_AT_MOST])}{more}: lower the learning rate, or look at these examples"
        )

    def _of_all(self, names: list[str]) -> list[str]:
        """These names and those of all other workers, by rank. Collective."""
        if self.world == 1:
            return names
        gathered: list[list[str]] = [[] for _ in range(self.world)]
        dist.all_gather_object(gathered, names)
        return [name for each in gathered for name in each]


def _check(model: Network, dataset: Dataset, config: TrainConfig, world: int) -> None:
    """What cannot be trained is said before anything is."""
    classes = model.architecture.num_classes
    if dataset.labels.num_classes != classes:
        raise DataError(
            f"the network scores {classes} classes, label set {dataset.labels.name!r} has "
            f"{dataset.labels.num_classes}: build the network for the label set"
        )
    if not len(dataset):
        raise DataError("the training set is empty: check the split")
    if config.class_weights is not None and len(config.class_weights) != classes:
        raise DataError(
            f"there are {len(config.class_weights)} class_weights for {classes} classes: give one for each class"
        )
    if config.batch_size < world:
        raise DataError(
            f"a batch_size of {config.batch_size} cannot be shared by {world} workers: make it {world} or more"
        )


def _rng_devices(device: torch.device) -> list[int]:
    """The CUDA devices whose random state a step may change."""
    if device.type != "cuda":
        return []
    return [torch.cuda.current_device() if device.index is None else device.index]
