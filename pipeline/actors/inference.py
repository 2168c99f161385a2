"""The model in a thread of its own, and who is to blame when it fails on an image."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt

from fcn_core import ModelBundle, Predictor, PredictorSettings, Segmentation
from pipeline.actors.stages import StageClock
from pipeline.errors import ImageError, WorkerBroken

Image = npt.NDArray[np.uint8]


class ModelThread:
    """A Predictor that any thread may ask. There is one thread for the model, whoever calls: OpenMP gives every calling
    thread a team of its own, and the idle team would spin on the cores that the busy one needs.
    """

    def __init__(self, bundle: ModelBundle, settings: PredictorSettings, clock: StageClock) -> None:
        """Raises DeviceError when this machine cannot do what `settings` says. `clock` counts the stage "predict"."""
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, "model")
        self.predictor = self._thread.submit(Predictor, bundle, settings).result()

    def predict(self, images: list[Image]) -> Sequence[Segmentation | ImageError]:
        """Masks of a batch. Where the batch fails, each image alone; an image that fails alone is the one to blame.

        Raises WorkerBroken when it is the device that fails.
        """
        return self._thread.submit(self._predict, images).result()

    def predict_one(self, image: Image) -> Segmentation:
        """The mask of one image; raises whatever goes wrong."""
        (result,) = self._thread.submit(self.predictor.predict, [image]).result()
        return result

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _predict(self, images: list[Image]) -> Sequence[Segmentation | ImageError]:
        with self._clock("predict"):
            try:
                return self.predictor.predict(images)
            except (RuntimeError, MemoryError):
                return [self._predict_alone(image) for image in images]

    def _predict_alone(self, image: Image) -> Segmentation | ImageError:
        try:
            return self.predictor.predict([image])[0]
        except (RuntimeError, MemoryError) as error:
            # A device that fails a harmless image too is broken: no image is to blame, and this process is of no use.
            try:
                self.predictor.predict([np.zeros((64, 64, 3), np.uint8)])
            except (RuntimeError, MemoryError):
                raise WorkerBroken(f"the model stopped working in this process: {_first_line(error)}") from error
            size = f"{image.shape[1]}x{image.shape[0]}"
            return ImageError("prediction_failed", f"The network failed on this {size} image: {_first_line(error)}.")


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
