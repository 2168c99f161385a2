"""Prediction: images in, masks out. Everybody who wants a model's opinion of an image asks a Predictor.

The one thing to know: settings are resolved once (`resolve_settings`, on the machine that decides) and then
obeyed. A Predictor that cannot have the device or precision it was told to use raises, rather than give other
masks.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from fcn_core.bundle import ModelBundle
from fcn_core.errors import DataError, DeviceError
from fcn_core.labels import LabelSet, Mask
from fcn_core.render import colorize, overlay
from fcn_core.tiling import tiled_scores
from fcn_core.upsample import label_pixels, mean_confidence

Image = npt.NDArray[np.uint8]
Precision = Literal["float32", "bfloat16"]

TILE_PIXELS = 1 << 22
"""Default for the largest number of pixels in one pass: 2048 x 2048, or 2 GiB of activations in float32."""

_SMALLEST_TILE = 1 << 17  # below this, margins are most of a tile
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

# Linux names for instructions that multiply bfloat16 (x86, x86, Arm). Without them PyTorch emulates it,
# slowly.
_BFLOAT16_CPU_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


@dataclass(frozen=True)
class Outputs:
    """What `predict` is to give beside the mask; each costs time and memory, so nothing is on by itself.

    probabilities: of every class, at the network's stride. overlay: the photo tinted with its mask. colors: the mask
    in its label set's colours.
    """

    probabilities: bool = False
    overlay: bool = False
    colors: bool = False


@dataclass(frozen=True)
class Segmentation:
    """What the network says about one image.

    mask: class indices, uint8 [H, W], of the image's size. areas: pixels per class, int64 [num_classes],
    summing to H * W. confidence: mean over the cells of the score map (one cell per stride x stride pixels)
    of the largest softmax probability, 1/num_classes to 1. Cells are counted before the last upsampling,
    where the network's own opinions are.

    Only where asked for: probabilities, float32 [num_classes, h, w], softmax of the scores, which sum to 1 in each
    cell (`Network.upsampling` says where cells lie; in "same" geometry h = ceil(H / stride)); overlay and colors,
    uint8 RGB [H, W, 3].
    """

    mask: Mask
    areas: npt.NDArray[np.int64]
    confidence: float
    probabilities: npt.NDArray[np.float32] | None = None
    overlay: Image | None = None
    colors: Image | None = None


class PredictorSettings(BaseModel):
    """How to predict; every field can change a mask in its last near-ties, and nothing is left to "auto".

    batch_size: images of equal size predicted together. tile_pixels: the most pixels in one pass; larger images are
    tiled, and batches are kept within it too (a border that the network wants counts). threads: of the CPU.
    deterministic: predict every image alone and with repeatable algorithms, so that its mask does not depend on which
    others happened to be in the batch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str = Field(pattern=r"^(cpu|cuda(:\d+)?)$")
    precision: Precision
    batch_size: int = Field(ge=1)
    tile_pixels: int = Field(ge=_SMALLEST_TILE)
    threads: int = Field(ge=1)
    deterministic: bool


def resolve_settings(
    device: str = "auto",
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    batch_size: int | None = None,
    tile_pixels: int = TILE_PIXELS,
    threads: int | None = None,
    deterministic: bool = False,
) -> PredictorSettings:
    """Settings with each "auto" or None decided for this machine.

    device: a CUDA device if there is one. precision: bfloat16 where the hardware computes in it. threads: all
    the cores this process may use. batch_size: what was measured fastest. Raises DeviceError if a device
    or precision asked for is not there.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    _require_device(device)
    if precision == "auto":
        precision = "bfloat16" if _has_bfloat16(device) else "float32"
    settings = PredictorSettings(
        device=device,
        precision=precision,
        batch_size=_default_batch_size(device, precision) if batch_size is None else batch_size,
        tile_pixels=tile_pixels,
        threads=len(os.sched_getaffinity(0)) if threads is None else threads,
        deterministic=deterministic,
    )
    _require_precision(settings)
    return settings


class Predictor:
    """A bundle's network on a device, ready to segment images. Use it from one thread at a time.

    Building one sets PyTorch's number of CPU threads for the whole process, and predicts a small image once,
    so that what cannot work fails here and the first real image is not slow. Raises DeviceError if this
    machine cannot comply with the settings.
    """

    def __init__(self, bundle: ModelBundle, settings: PredictorSettings | None = None) -> None:
        self.settings = settings or resolve_settings()
        _require_device(self.settings.device)
        _require_precision(self.settings)
        torch.set_num_threads(self.settings.threads)
        self._device = torch.device(self.settings.device)
        self._dtype = _DTYPES[self.settings.precision]
        self._normalization = bundle.normalization
        self.labels: LabelSet = bundle.labels
        self._model = bundle.build().to(self._device, self._dtype).to(memory_format=torch.channels_last)
        self._fitting_pixels = self.settings.tile_pixels  # less once a batch was too large for the device's memory
        self.predict([np.zeros((64, 64, 3), np.uint8)])

    def predict(self, images: Sequence[Image], outputs: Outputs = Outputs()) -> list[Segmentation]:
        """Segment RGB images, each uint8 [H, W, 3] of any size from 1x1, in their order.

        A batch too large for a CUDA device's memory is halved until it fits, and later ones are kept as small. Raises
        DataError, before any work, if one is something else; DeviceError if not even one image fits.
        """
        for index, image in enumerate(images):
            _check_image(index, image)
        results: dict[int, Segmentation] = {}
        with torch.inference_mode(), self._algorithms():
            for indices in self._batches(images):
                batch = [images[index] for index in indices]
                found = run_halving(lambda part: self._predict_batch(part, outputs), batch, self._note_too_large)
                results.update(zip(indices, found, strict=True))
        return [results[index] for index in range(len(images))]

    def _batches(self, images: Sequence[Image]) -> Iterator[list[int]]:
        """Indices of images to predict together: of one size, and within the limits of the settings."""
        by_size: dict[tuple[int, ...], list[int]] = {}
        for index, image in enumerate(images):
            by_size.setdefault(image.shape, []).append(index)
        for (height, width, _), indices in by_size.items():
            remaining = indices
            while remaining:
                limit = 1 if self.settings.deterministic else self.settings.batch_size
                limit = max(1, min(limit, self._fitting_pixels // self._pixels(height, width)))
                yield remaining[:limit]
                remaining = remaining[limit:]

    def _pixels(self, height: int, width: int) -> int:
        """How many pixels the network sees of an image: those of the border it wants too."""
        return (height + 2 * self._model.border) * (width + 2 * self._model.border)

    def _note_too_large(self, batch: list[Image]) -> None:
        """Keep the batches to come at half of this one, which did not fit."""
        self._fitting_pixels = len(batch) * self._pixels(*batch[0].shape[:2]) // 2
        torch.cuda.empty_cache()  # what the failed pass left behind, in pieces that fit nothing else

    def _predict_batch(self, images: list[Image], outputs: Outputs) -> list[Segmentation]:
        height, width = images[0].shape[:2]
        if self._pixels(height, width) > self.settings.tile_pixels:
            scores = tiled_scores(self._model, images[0], lambda part: self._prepare([part]), self.settings.tile_pixels)
        else:
            scores = self._model.scores(self._prepare(images))
        masks, areas = label_pixels(scores, self._model.upsampling((height, width)))
        confidences = mean_confidence(scores).tolist()
        return [
            self._segmentation(image, mask, area, confidence, cells, outputs)
            for image, mask, area, confidence, cells in zip(
                images, masks.cpu().numpy(), areas.cpu().numpy(), confidences, scores, strict=True
            )
        ]

    def _segmentation(
        self,
        image: Image,
        mask: Mask,
        areas: npt.NDArray[np.int64],
        confidence: float,
        scores: Tensor,
        outputs: Outputs,
    ) -> Segmentation:
        """One result with its optional parts; scores [C, h, w] are the image's own."""
        return Segmentation(
            mask,
            areas,
            confidence,
            probabilities=scores.float().softmax(0).contiguous().cpu().numpy() if outputs.probabilities else None,
            overlay=overlay(image, mask, self.labels) if outputs.overlay else None,
            colors=colorize(mask, self.labels) if outputs.colors else None,
        )

    def _prepare(self, images: list[Image]) -> Tensor:
        """Network input [N, 3, H, W], of images of one size; pixels travel to the device as bytes."""
        pixels = torch.from_numpy(np.stack(images)).to(self._device).permute(0, 3, 1, 2)
        return self._normalization.apply(pixels).to(self._dtype, memory_format=torch.channels_last)

    def _algorithms(self) -> AbstractContextManager[None]:
        """cuDNN's choices: never by timing, which varies; and float32 means float32, not TF32."""
        if self._device.type == "cpu":
            return nullcontext()
        return torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=self.settings.deterministic, allow_tf32=False
        )


_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def run_halving(
    run: Callable[[list[_Item]], list[_Result]], batch: list[_Item], too_large: Callable[[list[_Item]], None]
) -> list[_Result]:
    """run(batch), or if the device's memory does not hold it, its halves one after the other, and so on.

    too_large hears of each batch that did not fit. Raises DeviceError if one item alone does not.
    """
    try:
        return run(batch)
    except torch.OutOfMemoryError as error:
        if len(batch) == 1:
            raise DeviceError(
                "the device's memory does not hold one image in one pass; lower tile_pixels, which changes no mask,"
                f" or use another device ({str(error).splitlines()[0]})"
            ) from error
    # Out of the except block, where the error would keep the failed pass and its tensors alive.
    too_large(batch)
    half = len(batch) // 2
    return run_halving(run, batch[:half], too_large) + run_halving(run, batch[half:], too_large)


def _check_image(index: int, image: object) -> None:
    if not isinstance(image, np.ndarray):
        found = type(image).__name__
    elif image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        found = f"{image.dtype} {list(image.shape)}"
    else:
        return
    raise DataError(f"image {index} must be an RGB array, uint8 [H, W, 3] of at least one pixel, not {found}")


def _default_batch_size(device: str, precision: str) -> int:
    """By device and precision.

    On a CPU, bfloat16 gains about a fifth from batches of 4 (fc6's 200 MB of weights are repacked once a
    batch); float32 gains nothing, so it keeps the memory of one image.
    """
    if device != "cpu":
        return 8
    return 4 if precision == "bfloat16" else 1


def _require_device(device: str) -> None:
    if device == "cpu":
        return
    kind, _, number = device.partition(":")
    if kind != "cuda":
        raise DeviceError(f"there is no device {device!r}; use 'cpu', 'cuda' or 'cuda:N'")
    if not torch.cuda.is_available():
        raise DeviceError(f"device {device!r} was asked for, but PyTorch sees no CUDA device here; use 'cpu'")
    if number and int(number) >= torch.cuda.device_count():
        raise DeviceError(
            f"device {device!r} was asked for, but there are {torch.cuda.device_count()}; they count from 0"
        )


def _require_precision(settings: PredictorSettings) -> None:
    if settings.precision == "bfloat16" and not _has_bfloat16(settings.device):
        raise DeviceError(
            f"precision bfloat16 was asked for, but the {settings.device} here does not compute in it; use float32"
        )


def _has_bfloat16(device: str) -> bool:
    """Whether the hardware has bfloat16 arithmetic of its own; PyTorch would otherwise emulate it."""
    if device != "cpu":
        with torch.cuda.device(torch.device(device)):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(_BFLOAT16_CPU_FLAGS & _cpu_flags())


def _cpu_flags() -> set[str]:
    """The instruction set extensions that Linux lists; empty where there is no such list."""
    try:
        text = Path("/proc/cpuinfo").read_text(errors="replace")
    except OSError:
        return set()
    for line in text.splitlines():
        name, _, values = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return set(values.split())
    return set()
