"""The model in a thread of its own, and who is to blame when it fails on an image."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np
import numpy.typing as npt

from fcn_core import ModelBundle, Predictor, PredictorSettings, Segmentation
from pipeline.actors.stages import StageClock
from pipeline.codec.images import Decoded
from pipeline.errors import ImageError, WorkerBroken

Image = npt.NDArray[np.uint8]


class Launched(Protocol):
    """Images that a model is at work on."""

    def result(self) -> Sequence[Segmentation]:
        """One result an image, in their order. Raises RuntimeError or MemoryError where the model fails."""


class Model(Protocol):
    """What a Predictor is to this module; benchmarks of what surrounds the model have a cheaper one."""

    def launch(self, images: Sequence[Image], /, *, sizes: Sequence[tuple[int, int]] | None = None) -> Launched:
        """Begin with images; see Predictor. Raises RuntimeError or MemoryError where the model fails."""


MakeModel = Callable[[ModelBundle, PredictorSettings], Model]


class ModelThread:
    """A Predictor that any thread may ask. There is one thread for the model, whoever calls: OpenMP gives every calling
    thread a team of its own, and the idle team would spin on the cores that the busy one needs.
    """

    def __init__(
        self, bundle: ModelBundle, settings: PredictorSettings, clock: StageClock, make: MakeModel = Predictor
    ) -> None:
        """Raises DeviceError when this machine cannot do what `settings` says. `clock` counts the stage "predict"."""
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, "model")
        self.predictor = self._thread.submit(make, bundle, settings).result()

    def predict(self, images: list[Decoded]) -> Sequence[Segmentation | ImageError]:
        """Masks of a batch, in the size of the pictures even where `images` are smaller versions of them.

        Where the batch fails, each image alone; an image that fails alone is the one to blame. Raises WorkerBroken when
        it is the device that fails.
        """
        try:
            return self._ask(images)
        except (RuntimeError, MemoryError):
            return [self._predict_alone(image) for image in images]

    def predict_one(self, image: Decoded) -> Segmentation:
        """The mask of one image; raises whatever goes wrong."""
        (result,) = self._ask([image])
        return result

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _ask(self, images: list[Decoded]) -> Sequence[Segmentation]:
        """Launched by the model's thread, waited for by the caller's: so a GPU has the next batch while it computes."""
        pixels = [image.pixels for image in images]
        full = all(image.full_size is None for image in images)
        launched = self._thread.submit(
            self._launch, pixels, None if full else [image.size for image in images]
        ).result()
        with self._clock("predict"):
            return launched.result()

    def _launch(self, images: Sequence[Image], sizes: Sequence[tuple[int, int]] | None) -> Launched:
        with self._clock("predict"):
            return self.predictor.launch(images, sizes=sizes)

    def _predict_alone(self, image: Decoded) -> Segmentation | ImageError:
        try:
            return self._ask([image])[0]
        except (RuntimeError, MemoryError) as error:
            # A device that fails a harmless image too is broken: no image is to blame, and this process is of no use.
            try:
                self._thread.submit(self._launch, [np.zeros((64, 64, 3), np.uint8)], None).result().result()
            except (RuntimeError, MemoryError):
                raise WorkerBroken(f"the model stopped working in this process: {_first_line(error)}") from error
            size = f"{image.pixels.shape[1]}x{image.pixels.shape[0]}"
            return ImageError("prediction_failed", f"The network failed on this {size} image: {_first_line(error)}.")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
