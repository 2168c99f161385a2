"""The model in a thread of its own, and who is to blame when it fails on an image."""

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from fcn_core import ModelBundle, PredictionError, Predictor, PredictorSettings, Segmentation
from pipeline.actors.priority_thread import RankedThread
from pipeline.actors.stage_clock import StageClock
from pipeline.codec.images import Decoded
from pipeline.errors import ImageError, WorkerBroken, first_line

Image = npt.NDArray[np.uint8]
Item = TypeVar("Item")

BATCHES_AHEAD = 2
"""How many batches a shard has waiting at the model while its last results are taken: with none, the model would turn
to the next shard between any two batches."""


class RunningBatch(Protocol):
    """Images that a model is at work on."""

    def result(self) -> Sequence[Segmentation]:
        """One result per image, in their order. Raises RuntimeError or MemoryError where the model fails."""


class Model(Protocol):
    """What a Predictor is to this module; benchmarks of what surrounds the model have a cheaper one."""

    def launch(self, images: Sequence[Image], /, *, sizes: Sequence[tuple[int, int]] | None = None) -> RunningBatch:
        """Begin with images; see Predictor. Raises RuntimeError or MemoryError where the model fails."""


MakeModel = Callable[[ModelBundle, PredictorSettings], Model]


class ModelThread:
    """A Predictor that any thread may ask. There is one thread for the model, whoever calls: OpenMP gives every calling
    thread a team of its own, and the idle team would spin on the cores that the busy one needs.

    Of several shards the one that began first goes first, as far as its images are there. Were they to take turns, they
    would end together, and the model would stand still while both are committed.
    """

    def __init__(
        self, bundle: ModelBundle, settings: PredictorSettings, clock: StageClock, make: MakeModel = Predictor
    ) -> None:
        """Raises DeviceError when this machine cannot do what `settings` says. `clock` counts the stage "predict"."""
        self._clock = clock
        self._ranks = itertools.count()
        self._thread = RankedThread("model")
        self.predictor = self._thread.submit(next(self._ranks), lambda: make(bundle, settings)).result()

    def predict_each(
        self, batches: Iterable[list[Item]], image: Callable[[Item], Decoded], is_full: Callable[[], bool]
    ) -> Iterator[tuple[list[Item], Sequence[Segmentation | ImageError]]]:
        """Each of a shard's batches with its masks, in the size of the pictures even where images are smaller versions.

        Some batches are asked for ahead, except while `is_full` says that enough is held. Where a batch fails, each of
        its images is tried alone; one that fails alone is the one to blame. Raises WorkerBroken when it is the device
        that fails.
        """
        rank = next(self._ranks)
        waiting: deque[tuple[list[Item], _Asked]] = deque()

        def first() -> tuple[list[Item], Sequence[Segmentation | ImageError]]:
            batch, asked = waiting.popleft()
            return batch, asked.results()

        try:
            for batch in batches:
                waiting.append((batch, self._ask([image(item) for item in batch], rank)))
                del batch  # its pixels, while the next one is awaited
                while waiting and (len(waiting) > BATCHES_AHEAD or is_full()):
                    yield first()
            while waiting:
                yield first()
        finally:
            for _, asked in waiting:
                asked.cancel()

    def predict_one(self, image: Decoded) -> Segmentation:
        """The mask of one image; raises whatever goes wrong."""
        (result,) = self._ask([image], next(self._ranks)).try_once()
        return result

    def close(self) -> None:
        self._thread.close()

    def _ask(self, images: list[Decoded], rank: int) -> "_Asked":
        return _Asked(images, lambda some: self._thread.submit(rank, lambda: self._launch(some)), self._clock)

    def _launch(self, images: list[Decoded]) -> RunningBatch:
        pixels = [image.pixels for image in images]
        full = all(image.full_size is None for image in images)
        with self._clock("predict"):
            return self.predictor.launch(pixels, sizes=None if full else [image.size for image in images])


class _Asked:
    """A batch on its way through the model. The model's thread launches it and the caller's waits for it, so that a GPU
    has the next batch while it computes.
    """

    def __init__(
        self, images: list[Decoded], submit: Callable[[list[Decoded]], Future[RunningBatch]], clock: StageClock
    ) -> None:
        self._images = images
        self._submit = submit
        self._clock = clock
        self._launched = submit(images)

    def results(self) -> Sequence[Segmentation | ImageError]:
        try:
            return self.try_once()
        except (RuntimeError, MemoryError):
            return [self._alone(image) for image in self._images]

    def try_once(self) -> Sequence[Segmentation]:
        """All results, or what the model raised."""
        return self._wait(self._launched)

    def cancel(self) -> None:
        """Let the model leave it out, if it has not begun."""
        self._launched.cancel()

    def _wait(self, coming: Future[RunningBatch]) -> Sequence[Segmentation]:
        launched = coming.result()
        with self._clock("predict"):
            return launched.result()

    def _alone(self, image: Decoded) -> Segmentation | ImageError:
        try:
            return self._wait(self._submit([image]))[0]
        except PredictionError as error:
            # The device did what it was told.
            return ImageError("prediction_failed", f"The network gave no mask: {_sentence(error)}.")
        except (RuntimeError, MemoryError) as error:
            # A device that fails a harmless image too is broken: no image is to blame, and this process is of no use.
            try:
                self._wait(self._submit([Decoded(np.zeros((64, 64, 3), np.uint8), 1)]))
            except (RuntimeError, MemoryError):
                raise WorkerBroken(f"the model stopped working in this process: {_sentence(error)}") from error
            size = f"{image.pixels.shape[1]}x{image.pixels.shape[0]}"
            return ImageError("prediction_failed", f"The network failed on this {size} image: {_sentence(error)}.")


def _sentence(error: BaseException) -> str:
    return first_line(error).rstrip(".")
