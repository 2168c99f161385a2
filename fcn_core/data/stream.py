"""The endless stream of training examples, and how steps and workers share it.

The one thing to know: position p of the stream is always the same example, varied the same way. Which positions a
step takes follows from its number alone, and which of those a worker takes from its rank, so a run may be resumed
anywhere and by any number of workers: each example of an epoch is seen as often as its order has it.
"""

import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from fcn_core.data.datasets import Dataset
from fcn_core.data.sampling import epoch_order
from fcn_core.data.transform import TrainTransform, as_tensors


@dataclass(frozen=True)
class Batch:
    """Varied examples, stacked. `images`: uint8 [N, 3, H, W] RGB; `masks`: uint8 [N, H, W]; `names`: where
    they are from."""

    images: Tensor
    masks: Tensor
    names: tuple[str, ...]

    def pin_memory(self) -> "Batch":
        """A copy in page-locked memory, from where a CUDA device fetches by itself. PyTorch's loader calls it."""
        return Batch(self.images.pin_memory(), self.masks.pin_memory(), self.names)


class ExampleStream:
    """Example and variation of every position. Each epoch has an order of its own, in which every example occurs once,
    or, with `weights`, as often as `epoch_order` says."""

    def __init__(
        self,
        dataset: Dataset,
        transform: TrainTransform,
        seed: int,
        weights: npt.NDArray[np.float64] | None = None,
    ) -> None:
        self.dataset = dataset
        self.transform = transform
        self.seed = seed
        self.weights = weights
        self._order: tuple[int, Any] = (-1, None)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor, str]:
        epoch, place = divmod(position, len(self.dataset))
        if self._order[0] != epoch:
            self._order = (epoch, epoch_order(len(self.dataset), self.seed, epoch, self.weights))
        example = self.dataset[int(self._order[1][place])]
        with torch.random.fork_rng(devices=[]):
            # torch.manual_seed would seed every kind of device too, which takes as long as decoding a small JPEG.
            torch.default_generator.manual_seed(mixed_seed(self.seed, position, 0))
            image, mask = self.transform(*as_tensors(example.image, example.mask))
        return image, mask, example.name


@dataclass(frozen=True)
class Shares:
    """The positions a worker takes, a list for each part of each step, from step `first` up to but not `last`.

    Of a step's `batch_size` positions, worker `rank` of `world` takes every world-th, cut into `parts`.
    """

    first: int
    last: int
    batch_size: int
    rank: int = 0
    world: int = 1
    parts: int = 1

    def __len__(self) -> int:
        return (self.last - self.first) * self.parts

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.first, self.last):
            begin = step * self.batch_size
            mine = range(begin + self.rank, begin + self.batch_size, self.world)
            for part in np.array_split(np.arange(mine.start, mine.stop, mine.step), self.parts):
                yield part.tolist()


def load_batches(stream: ExampleStream, shares: Shares, workers: int, *, pin_memory: bool = False) -> Iterator[Batch]:
    """The batches of these positions, in order, made ahead by `workers` processes if there are any."""
    ignore_index = stream.dataset.labels.ignore_index
    loader: DataLoader[tuple[Tensor, Tensor, str]] = DataLoader(
        stream,  # type: ignore[arg-type]  # by position, not by index into a data set
        batch_sampler=shares,
        num_workers=workers,
        collate_fn=_Stack(ignore_index),
        pin_memory=pin_memory,
        generator=torch.Generator(),  # else it draws a seed from the caller's
        multiprocessing_context=_starter() if workers else None,
    )
    return iter(loader)


def _starter() -> BaseContext:
    """Starts the loader's processes from a process without threads: a trainer has threads (PyTorch's, Ray's), and what
    is forked from it may find their locks held for ever."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])  # imported once, not once per process
    return context


@dataclass(frozen=True)
class _Stack:
    """Examples of several sizes are padded to the largest at the right and bottom, black and ignored."""

    ignore_index: int

    def __call__(self, examples: list[tuple[Tensor, Tensor, str]]) -> Batch:
        images, masks, names = zip(*examples, strict=True)
        height, width = (max(mask.shape[axis] for mask in masks) for axis in (0, 1))
        return Batch(
            torch.stack([_padded(image, height, width, 0) for image in images]),
            torch.stack([_padded(mask, height, width, self.ignore_index) for mask in masks]),
            names,
        )


def _padded(picture: Tensor, height: int, width: int, value: int) -> Tensor:
    missing = (0, width - picture.shape[-1], 0, height - picture.shape[-2])
    return F.pad(picture, missing, value=value) if any(missing) else picture


def mixed_seed(*parts: int) -> int:
    """One well mixed 63-bit seed from several numbers: neighbouring steps must not get related streams."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
