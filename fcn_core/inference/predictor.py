"""Prediction: images in, masks out. Everything that asks a model about an image asks a Predictor.

The one thing to know: it obeys its settings (`fcn_core.inference.settings`). A Predictor that cannot have the device,
precision or engine of its settings raises; it never returns other masks. Scores come from an engine; what follows is
the same for all engines.

`predict` is `launch` and then waiting for the result. On CUDA the next images can be launched, and travel to the
device, while it is still busy with the last ones.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fcn_core.bundle import ModelBundle
from fcn_core.errors import DataError, DeviceError, PredictionError
from fcn_core.inference.argmax import label_pixels, mean_confidence
from fcn_core.inference.engines.engine import Engine, Image
from fcn_core.inference.engines.onnx_engine import OnnxEngine
from fcn_core.inference.engines.openvino_engine import OpenVINOEngine
from fcn_core.inference.engines.torch_engine import TorchEngine
from fcn_core.inference.features import pooled_features
from fcn_core.inference.fit import Fit, NetworkFit, OnnxFit
from fcn_core.inference.halving import run_halving
from fcn_core.inference.openvino_runtime import INSTALL
from fcn_core.inference.settings import PredictorSettings, require_scores, require_settings, resolve_settings
from fcn_core.inference.views import Grid, Scored, averaged, require_size, scaled_size
from fcn_core.inference.windows import label_windows
from fcn_core.labels import LabelSet, Mask
from fcn_core.models.onnx_graph.architecture import OnnxArchitecture
from fcn_core.models.upsampling import Upsampling
from fcn_core.render import colorize, overlay

_MOST_IN_FLIGHT = 2
"""Launches that a CUDA device has at once: one to compute and one to follow. More would only take memory, and take from
who launches the choice of what comes next."""


@dataclass(frozen=True)
class Outputs:
    """What `predict` is to give beside the mask; each costs time and memory, so nothing is on by itself.

    probabilities: of every class, at the network's stride. overlay: the photo tinted with its mask. colors: the mask
    in its label set's colours. features: 128 numbers that say what the image looks like to the
    network, by a second, small pass.
    """

    probabilities: bool = False
    overlay: bool = False
    colors: bool = False
    features: bool = False


@dataclass(frozen=True)
class Segmentation:
    """What the network says about one image.

    mask: class indices, uint8 [H, W], of the image's size; VOID (255) for pixels that `void_below` of
    the settings leaves without a class. areas: pixels per class, int64 [num_classes], summing to H * W less the void
    ones. confidence: mean over the cells of the score map (one cell per stride x stride pixels) of the largest softmax
    probability, 1/num_classes to 1. Cells are counted before the last upsampling,
    where the network's own opinions are.

    Only where asked for: probabilities, float32 [num_classes, h, w], softmax of the scores, which sum to 1 in each
    cell (`Network.upsampling` says where cells lie; in "same" geometry h = ceil(H / stride)); overlay and colors,
    uint8 RGB [H, W, 3]; features, float16 [128], of length 1: the smaller the distance of two, the
    more alike the images.
    """

    mask: Mask
    areas: npt.NDArray[np.int64]
    confidence: float
    probabilities: npt.NDArray[np.float32] | None = None
    overlay: Image | None = None
    colors: Image | None = None
    features: npt.NDArray[np.float16] | None = None

    @property
    def void(self) -> int:
        """Pixels without a class."""
        return self.mask.size - int(self.areas.sum())

    def __repr__(self) -> str:
        height, width = self.mask.shape
        classes = f"{int(np.count_nonzero(self.areas))} of {len(self.areas)} classes"
        return f"<Segmentation {width}x{height}, {classes}, confidence {self.confidence:.3f}>"


@dataclass(frozen=True)
class _Pending:
    """What becomes one image's Segmentation, in memory of this process; on CUDA it may still have to arrive there."""

    image: Image
    mask: Tensor
    areas: Tensor
    confidence: Tensor
    finite: Tensor
    """bool: whether all scores are numbers that can be compared."""
    probabilities: Tensor | None
    features: Tensor | None = None


class Launched:
    """Images that a Predictor has begun to segment."""

    def __init__(self, answers: list[_Pending], outputs: Outputs, labels: LabelSet, device: torch.device) -> None:
        self._answers = answers
        self._outputs = outputs
        self._labels = labels
        self.arrived: torch.cuda.Event | None = None
        """On CUDA, what happens when the device is done."""
        if device.type == "cuda":
            self.arrived = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            self.arrived.record(torch.cuda.current_stream(device))

    def result(self) -> list[Segmentation]:
        """The segmentations, in the images' order, as soon as the device is done with them. From any thread.

        Raises PredictionError if the scores of an image are not finite.
        """
        if self.arrived is not None:
            self.arrived.synchronize()
        for index, answer in enumerate(self._answers):
            if not answer.finite:
                raise PredictionError(
                    f"the scores of image {index} are not all finite numbers, so they name no class; use precision"
                    " float32, or look at the model's weights"
                )
        return [self._segmentation(answer) for answer in self._answers]

    def _segmentation(self, answer: _Pending) -> Segmentation:
        mask = self._array(answer.mask)
        return Segmentation(
            mask,
            self._array(answer.areas),
            float(answer.confidence),
            probabilities=None if answer.probabilities is None else self._array(answer.probabilities),
            overlay=overlay(answer.image, mask, self._labels) if self._outputs.overlay else None,
            colors=colorize(mask, self._labels) if self._outputs.colors else None,
            features=None if answer.features is None else self._array(answer.features),
        )

    def _array(self, arrived: Tensor) -> npt.NDArray[Any]:
        # Pages that a device may write to are scarce: whoever keeps masks is not to keep them.
        return arrived.numpy() if self.arrived is None else arrived.numpy().copy()


class Predictor:
    """A bundle's network on a device, ready to segment images. Use it from one thread at a time.

    `bundle` may be the folder of one. `resolve_settings` makes the settings; by default, those that fit this machine.

    Building one sets PyTorch's number of CPU threads for the whole process, and predicts a small image once,
    so that what cannot work fails here and the first real image is not slow. Raises DeviceError if this
    machine cannot comply with the settings.
    """

    def __init__(self, bundle: ModelBundle | str | PathLike[str], settings: PredictorSettings | None = None) -> None:
        if not isinstance(bundle, ModelBundle):
            bundle = ModelBundle.load(bundle)
        self._what = f"{bundle.architecture.title}, {bundle.labels.num_classes} classes"
        self.settings = settings or resolve_settings(kind=bundle.kind)
        if bundle.int8 is not None and self.settings.engine != "openvino":
            raise DeviceError(
                f"the model is an int8 graph that only OpenVINO computes, not engine {self.settings.engine}; use"
                f" engine openvino ({INSTALL}) on a CPU, or the float model that it was made of"
            )
        require_settings(self.settings, bundle.kind)
        require_scores(self.settings.void_below, bundle.architecture)
        torch.set_num_threads(self.settings.threads)
        self._device = torch.device(self.settings.device)
        self.labels: LabelSet = bundle.labels.of_masks(self.settings.void_below)
        self._torch: TorchEngine | None = None
        self._engine: Engine
        self._fit: Fit
        self._windows: OnnxFit | None = None
        if isinstance(bundle.architecture, OnnxArchitecture):
            self._device = torch.device("cpu")  # where its scores arrive, whatever computes them
            self._engine = OnnxEngine(bundle, self.settings)
            self._windows = self._fit = OnnxFit(bundle.architecture, self.settings.snap)
            size = bundle.architecture.size
            if size and self.settings.window and size != (self.settings.window,) * 2:
                raise DeviceError(
                    f"the model takes images of {size[1]}x{size[0]} alone, so its windows cannot be of"
                    f" {self.settings.window}; "
                    + (
                        f"use window {size[0]}"
                        if size[0] == size[1]
                        else "images are resized to it: leave the window out"
                    )
                )
        else:
            self._torch = TorchEngine(bundle, self.settings)  # for tiles of large images, and tiny ones, in any case
            self._fit = NetworkFit(self._torch.network, self.settings.snap, self.settings.tile_pixels)
            self._engine = OpenVINOEngine(bundle, self.settings) if self.settings.engine == "openvino" else self._torch
        self._one_view = self.settings.scales == (1.0,) and not self.settings.flip
        self._in_flight: deque[torch.cuda.Event] = deque()
        self._fitting_pixels = self.settings.tile_pixels  # less once a batch was too large for the device's memory
        with suppress(PredictionError):  # that says something about one image; each is told for itself
            self.predict([np.zeros((64, 64, 3), np.uint8)])

    def __repr__(self) -> str:
        chosen = self.settings
        return f"<Predictor {self._what}, on {chosen.device} in {chosen.precision} by {chosen.engine}>"

    def predict(
        self,
        images: Sequence[Image],
        outputs: Outputs = Outputs(),
        sizes: Sequence[tuple[int, int]] | None = None,
    ) -> list[Segmentation]:
        """Segment RGB images, each uint8 [H, W, 3] of any size from 1x1, in their order.

        With `sizes`, (H, W) each, masks and areas are those of pictures of that size, of which `images` are smaller (or
        larger) versions: the scores are upsampled that much further, so that edges stay smooth. No overlays then.

        A batch too large for a CUDA device's memory is halved until it fits, and later ones are kept as small. Raises
        DataError, before any work, if one is something else; DeviceError if not even one image fits; PredictionError if
        the scores of one are not finite (weights that overflow in this precision), or a scale makes it too large.
        """
        return self.launch(images, outputs, sizes).result()

    def launch(
        self,
        images: Sequence[Image],
        outputs: Outputs = Outputs(),
        sizes: Sequence[tuple[int, int]] | None = None,
    ) -> Launched:
        """Begin to `predict`. On CUDA this returns while the device is at work, and first waits until it has no more
        than one other launch to do; on a CPU everything is done when it returns.

        Raises what `predict` does; what the device finds wrong later, waiting for the result raises.
        """
        for index, image in enumerate(images):
            _check_image(index, image)
            require_size(image.shape[:2], self.settings.scales)
        if sizes is not None and outputs.overlay:
            raise DataError("an overlay wants the photo in its mask's size; give images of full size, or no sizes")
        if outputs.features and self._torch is None:
            raise DataError("an imported ONNX graph gives no features, only scores; use a network of this library")
        wanted = [image.shape[:2] for image in images] if sizes is None else sizes
        while len(self._in_flight) >= _MOST_IN_FLIGHT:
            self._in_flight.popleft().synchronize()
        answers: dict[int, _Pending] = {}
        with torch.inference_mode(), self._algorithms():
            for indices in self._batches(images):
                batch = [(images[index], wanted[index]) for index in indices]
                found = run_halving(lambda part: self._launch_batch(part, outputs), batch, self._note_too_large)
                answers.update(zip(indices, found, strict=True))
        launched = Launched([answers[index] for index in range(len(images))], outputs, self.labels, self._device)
        if launched.arrived is not None:
            self._in_flight.append(launched.arrived)
        return launched

    def upsampling(self, height: int, width: int) -> Upsampling:
        """From the cells of an image's `Outputs.probabilities` to its pixels; `height` and `width` are the image's.

        Raises PredictionError for an imported graph, of which only its scores tell.
        """
        if self._torch is None:
            raise PredictionError(
                "of an imported ONNX graph it is not known where its cells lie between pixels; use a network of this"
                " library"
            )
        largest = scaled_size((height, width), max(self.settings.scales))
        return self._torch.network.upsampling(largest).stretched(height, width)

    def _batches(self, images: Sequence[Image]) -> Iterator[list[int]]:
        """Indices of images to predict together: of one size, and within the limits of the settings."""
        by_size: dict[tuple[int, int], list[int]] = {}
        for index, image in enumerate(images):
            by_size.setdefault(self._batch_size(image), []).append(index)
        for indices in by_size.values():
            remaining = indices
            pixels = self._pixels(*self._largest_seen(images[indices[0]]))
            while remaining:
                limit = 1 if self.settings.deterministic else self.settings.batch_size
                limit = max(1, min(limit, self._fitting_pixels // pixels))
                yield remaining[:limit]
                remaining = remaining[limit:]

    def _batch_size(self, image: Image) -> tuple[int, int]:
        """(H, W) that images share in a batch: as the engine sees them; their own where there are several views."""
        return self._largest_seen(image) if self._one_view else image.shape[:2]

    def _largest_seen(self, image: Image) -> tuple[int, int]:
        """(H, W) of an image's largest view as the engine sees it; its own where it is seen through windows."""
        height, width = image.shape[:2]
        if self._windows is not None and self._window(self._windows, image) is not None:
            return height, width
        return self._fit.seen(scaled_size((height, width), max(self.settings.scales)))

    def _pixels(self, height: int, width: int) -> int:
        """How many pixels the network sees of an image: those of the border it wants too."""
        return (height + 2 * self._fit.border) * (width + 2 * self._fit.border)

    def _note_too_large(self, batch: list[tuple[Image, tuple[int, int]]]) -> None:
        """Keep the batches to come at half of this one, which did not fit."""
        self._fitting_pixels = len(batch) * self._pixels(*self._largest_seen(batch[0][0])) // 2
        torch.cuda.empty_cache()  # what the failed pass left behind, in pieces that fit nothing else

    def _launch_batch(self, batch: list[tuple[Image, tuple[int, int]]], outputs: Outputs) -> list[_Pending]:
        """Images that the engine sees in one size, each with the size of its mask."""
        if self._windows is not None:
            window = self._window(self._windows, batch[0][0])
            if window is not None:
                return [self._through_windows(self._windows, window, *item, outputs) for item in batch]
        images = [image for image, _ in batch]
        if self._one_view:
            scores = self._scores(images)
            grids = [self._grid(image, scores) for image in images]
        else:
            scored = averaged(images, self.settings.scales, self.settings.flip, self._scored)
            scores, grids = scored.scores, [scored.grid] * len(images)
        features = pooled_features(self._torch, images) if outputs.features and self._torch else None
        answers = []
        for index, ((image, size), grid) in enumerate(zip(batch, grids, strict=True)):
            masks, areas = label_pixels(scores[index, None], grid.upsampling.stretched(*size), self.settings.void_below)
            cells = scores[index, :, : grid.rows, : grid.columns]
            probabilities = _to_here(cells.float().softmax(0).contiguous()) if outputs.probabilities else None
            mask, area, confidence = (_to_here(part[0]) for part in (masks, areas, mean_confidence(cells[None])))
            # Those of the padding, too: pixels at the border are interpolated from them.
            finite = _to_here(torch.isfinite(scores[index]).all())
            seen_as = None if features is None else _to_here(features[index])
            answers.append(_Pending(image, mask, area, confidence, finite, probabilities, seen_as))
        return answers

    def _scores(self, images: Sequence[Image]) -> Tensor:
        """Scores of images that the engine sees in one size."""
        seen = self._fit.seen(images[0].shape[:2])
        if self._torch is not None and self._pixels(*seen) > self.settings.tile_pixels:
            return torch.cat([self._torch.tiled_scores(image, self.settings.tile_pixels) for image in images])
        engine = self._torch if self._torch and min(seen) < self._engine.smallest_side else self._engine
        return engine.scores([self._fit.image(image, seen) for image in images])

    def _grid(self, image: Image, scores: Tensor) -> Grid:
        size, cells = image.shape[:2], (scores.shape[-2], scores.shape[-1])
        seen = self._fit.seen(size)
        return Grid(self._fit.upsampling(size, seen, cells), *self._fit.own_cells(size, seen, cells))

    def _scored(self, images: Sequence[Image]) -> Scored:
        scores = self._scores(images)
        return Scored(scores, self._grid(images[0], scores))

    def _window(self, fit: OnnxFit, image: Image) -> tuple[int, int] | None:
        height, width = image.shape[:2]
        return fit.window((height, width), self.settings.window, self.settings.tile_pixels)

    def _through_windows(
        self, fit: OnnxFit, window: tuple[int, int], image: Image, size: tuple[int, int], outputs: Outputs
    ) -> _Pending:
        found = label_windows(
            image,
            window,
            size,
            lambda part: self._engine.scores([part]),
            aligned=fit.aligned,
            with_probabilities=outputs.probabilities,
            void_below=self.settings.void_below,
        )
        return _Pending(image, found.mask, found.areas, found.confidence, found.finite, found.probabilities)

    def _algorithms(self) -> AbstractContextManager[None]:
        """cuDNN's choices: never by timing, which varies; and float32 means float32, not TF32."""
        if self._device.type == "cpu":
            return nullcontext()
        return torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=self.settings.deterministic, allow_tf32=False
        )


def _to_here(tensor: Tensor) -> Tensor:
    """The tensor in memory of this process; from a device it is only begun to be copied."""
    if tensor.device.type == "cpu":
        return tensor
    return torch.empty_like(tensor, device="cpu", pin_memory=True).copy_(tensor, non_blocking=True)


def _check_image(index: int, image: object) -> None:
    if not isinstance(image, np.ndarray):
        found = type(image).__name__
    elif image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        found = f"{image.dtype} {list(image.shape)}"
    else:
        return
    raise DataError(f"image {index} must be an RGB array, uint8 [H, W, 3] of at least one pixel, not {found}")
