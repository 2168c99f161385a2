"""How to predict: settings with nothing left open, and how what is left to "auto" is decided on a machine.

The one thing to know: settings are resolved once (`resolve_settings`, on the machine that decides) and then obeyed. Who
cannot have what they say raises DeviceError, rather than give other masks. PyTorch is imported where a CUDA device is
asked about: records of runs hold settings, and reading them takes no PyTorch.
"""

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from fcn_core.errors import DeviceError
from fcn_core.inference import onnx_runtime, openvino_runtime
from fcn_core.inference.scales import Scales
from fcn_core.models.description import ModelKind
from fcn_core.models.onnx_graph.architecture import OnnxArchitecture

Precision = Literal["float32", "bfloat16"]
EngineName = Literal["torch", "openvino", "onnxruntime"]

TILE_PIXELS = 1 << 22
"""Default for the largest number of pixels in one pass: 2048 x 2048, or 2 GiB of activations in float32."""

SMALLEST_TILE = 1 << 17
"""Below this, margins are most of a tile."""

ENGINES: dict[ModelKind, tuple[EngineName, ...]] = {
    "network": ("torch", "openvino"),
    "int8": ("openvino",),
    "onnx": ("openvino", "onnxruntime"),
}
"""Which engines compute what kind of model."""

_MODELS: dict[ModelKind, str] = {
    "network": "networks of this library",
    "int8": "int8 models",
    "onnx": "imported ONNX graphs",
}

# Linux names for instructions that multiply bfloat16 (x86, x86, Arm). Without them PyTorch emulates it, slowly.
_BFLOAT16_CPU_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


class PredictorSettings(BaseModel):
    """How to predict; every field can change a mask in its last near-ties, and nothing is left to "auto".

    batch_size: images of equal size predicted together. tile_pixels: the most pixels in one pass; larger images are
    tiled, and batches are kept within it too (a border that the network wants counts). threads: of the CPU.
    deterministic: predict every image alone and with repeatable algorithms, so that its mask does not depend on which
    others happened to be in the batch. engine: what computes the scores. snap: images are padded at the right and the
    bottom, by repeating their edge, to multiples of so many pixels, so that fewer sizes occur; 1 pads nothing. window:
    an imported graph sees larger images through windows of so many pixels a side; 0 does so only over tile_pixels.
    void_below: a pixel whose largest softmax probability is lower is void, 255 in the mask; 0 gives every
    pixel a class. flip: each image is seen mirrored left to right, too, and scores are averaged. scales: factors on an
    image's height and width: it is seen in each of these sizes, and scores are averaged.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str = Field(pattern=r"^(cpu|cuda(:\d+)?)$")
    precision: Precision
    batch_size: int = Field(ge=1)
    tile_pixels: int = Field(ge=SMALLEST_TILE)
    threads: int = Field(ge=1)
    deterministic: bool
    engine: EngineName = "torch"
    snap: int = Field(default=1, ge=1, le=1024)
    window: int = Field(default=0, ge=0, le=8192)
    void_below: float = Field(default=0.0, ge=0, lt=1)
    flip: bool = False
    scales: Scales = (1.0,)


def resolve_settings(
    device: str = "auto",
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    batch_size: int | None = None,
    tile_pixels: int = TILE_PIXELS,
    threads: int | None = None,
    deterministic: bool = False,
    engine: Literal["auto", "torch", "openvino", "onnxruntime"] = "auto",
    snap: int = 1,
    kind: ModelKind = "network",
    window: int = 0,
    void_below: float = 0.0,
    flip: bool = False,
    scales: tuple[float, ...] = (1.0,),
) -> PredictorSettings:
    """Settings with each "auto" or None decided for this machine.

    device: a CUDA device if there is one. precision: bfloat16 where the hardware computes in it. threads: all
    the cores this process may use. batch_size: what was measured fastest. engine: on a CPU OpenVINO where it is
    installed and computes in that precision, else PyTorch, or for an imported graph ONNX Runtime. kind: of the model
    that the settings are for. Raises DeviceError if a device, precision or engine asked for is not there, or is none
    for such a model; ValueError for tiles that are too small.
    """
    if device == "auto":
        import torch

        on_cuda = torch.cuda.is_available() and (kind != "onnx" or (engine != "openvino" and onnx_runtime.has_cuda()))
        device = "cuda" if on_cuda and kind != "int8" else "cpu"
    _require_device(device)
    if tile_pixels < SMALLEST_TILE:
        raise ValueError(f"tile_pixels is {tile_pixels}, and the smallest tile that works has {SMALLEST_TILE} pixels")
    if engine == "auto" and kind == "onnx":
        engine = "openvino" if device == "cpu" and openvino_runtime.is_installed() else "onnxruntime"
    if precision == "auto":
        precision = "bfloat16" if has_bfloat16(device) and engine != "onnxruntime" else "float32"
    settings = PredictorSettings(
        device=device,
        precision=precision,
        batch_size=_default_batch_size(device, precision) if batch_size is None else batch_size,
        tile_pixels=tile_pixels,
        threads=len(os.sched_getaffinity(0)) if threads is None else threads,
        deterministic=deterministic,
        engine=_default_engine(device, precision) if engine == "auto" else engine,
        snap=snap,
        window=window,
        void_below=void_below,
        flip=flip,
        scales=scales,
    )
    require_settings(settings, kind)
    return settings


def require_settings(settings: PredictorSettings, kind: ModelKind = "network") -> None:
    """Raises DeviceError if this machine cannot do what the settings say, or nobody can with a model of that kind."""
    if settings.engine not in ENGINES[kind]:
        raise DeviceError(
            f"engine {settings.engine} does not compute {_MODELS[kind]}; use engine {' or '.join(ENGINES[kind])}"
        )
    if settings.window and kind != "onnx":
        raise DeviceError(
            "windows are for imported ONNX graphs; networks of this library are tiled, with the same masks as of the"
            " whole image, so leave the window out"
        )
    if kind == "onnx" and (settings.flip or settings.scales != (1.0,)):
        raise DeviceError(
            "flip and scales are for networks of this library, not for imported ONNX graphs; leave them out"
        )
    _require_device(settings.device)
    if settings.precision == "bfloat16" and not has_bfloat16(settings.device):
        raise DeviceError(
            f"precision bfloat16 was asked for, but the {settings.device} here does not compute in it; use float32"
        )
    if settings.engine == "openvino":
        _require_openvino(settings)
    elif settings.engine == "onnxruntime":
        _require_onnxruntime(settings)


def require_scores(void_below: float, architecture: object) -> None:
    """Raises DeviceError if pixels are to be void below a probability, and the model gives none."""
    if void_below and isinstance(architecture, OnnxArchitecture) and architecture.scores == "classes":
        raise DeviceError(
            "the model gives the class of each pixel and not how probable it is, so void_below"
            f" {void_below:g} cannot be; use 0"
        )


def _require_onnxruntime(settings: PredictorSettings) -> None:
    if not onnx_runtime.is_installed():
        raise DeviceError(
            f"engine onnxruntime was asked for, but ONNX Runtime is not installed here: {onnx_runtime.INSTALL}"
        )
    if settings.device != "cpu" and not onnx_runtime.has_cuda():
        raise DeviceError(
            f"the ONNX Runtime here does not compute on device {settings.device}: install onnxruntime-gpu, or use"
            " device cpu"
        )
    if settings.precision != "float32":
        raise DeviceError(
            f"engine onnxruntime does not compute in {settings.precision}; use float32, or engine openvino"
        )


def _require_openvino(settings: PredictorSettings) -> None:
    if settings.device != "cpu":
        raise DeviceError(
            f"engine openvino computes on the CPU, but device {settings.device} was asked for; use engine torch there"
        )
    if not openvino_runtime.is_installed():
        raise DeviceError(
            f"engine openvino was asked for, but OpenVINO is not installed here: {openvino_runtime.INSTALL};"
            " or use engine torch"
        )
    if settings.precision not in openvino_runtime.precisions():
        raise DeviceError(
            f"engine openvino does not compute in {settings.precision} on this CPU; use engine torch, or float32"
        )


def _default_engine(device: str, precision: str) -> EngineName:
    if device != "cpu" or not openvino_runtime.is_installed():
        return "torch"
    return "openvino" if precision in openvino_runtime.precisions() else "torch"


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
    import torch

    kind, _, number = device.partition(":")
    if kind != "cuda":
        raise DeviceError(f"there is no device {device!r}; use 'cpu', 'cuda' or 'cuda:N'")
    if not torch.cuda.is_available():
        raise DeviceError(f"device {device!r} was asked for, but PyTorch sees no CUDA device here; use 'cpu'")
    if number and int(number) >= torch.cuda.device_count():
        raise DeviceError(
            f"device {device!r} was asked for, but there are {torch.cuda.device_count()}; they count from 0"
        )


def has_bfloat16(device: str) -> bool:
    """Whether the hardware has bfloat16 arithmetic of its own; PyTorch would otherwise emulate it."""
    if device != "cpu":
        import torch

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
