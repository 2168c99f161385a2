"""An imported ONNX graph, computed by ONNX Runtime or by OpenVINO: what it says of each class becomes scores.

The one thing to know: neither gets a graph that `fcn_core.inference.onnx_trial` has not examined and run first.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fcn_core.bundle import ModelBundle
from fcn_core.errors import BundleError, DeviceError, PredictionError
from fcn_core.inference.engines.engine import Image
from fcn_core.inference.onnx_trial import try_onnx
from fcn_core.inference.openvino_runtime import compile_for_cpu, core
from fcn_core.inference.reporting_packages import import_onnxruntime
from fcn_core.inference.settings import PredictorSettings
from fcn_core.models.onnx_graph.architecture import OnnxArchitecture

_LEAST_PROBABILITY = 1e-12
_CERTAIN = 50.0
"""The score of the class that a class map names, beside 0 for all others: a probability of 1 in float32."""

_Run = Callable[[npt.NDArray[np.float32]], npt.NDArray[Any]]


class OnnxEngine:
    """A bundle's imported graph, ready to compute."""

    smallest_side = 1

    def __init__(self, bundle: ModelBundle, settings: PredictorSettings) -> None:
        """Raises BundleError for a graph that cannot be run, DeviceError where this machine cannot."""
        if bundle.onnx is None or not isinstance(bundle.architecture, OnnxArchitecture):
            raise BundleError(f"model {bundle.model_id} is no imported ONNX graph")
        if not bundle.graph_tried:
            try_onnx(bundle.onnx, bundle.architecture)
        self._architecture = bundle.architecture
        self._normalization = bundle.normalization
        compiled = _in_openvino if settings.engine == "openvino" else _in_onnxruntime
        self._run = compiled(bundle.onnx, bundle.architecture, settings)

    def scores(self, images: Sequence[Image]) -> Tensor:
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        values = self._normalization.apply(pixels).contiguous().numpy()
        parts = [values] if self._architecture.batches else np.split(values, len(values))
        scores = [self._scores(self._run(part)) for part in parts]
        return scores[0] if len(scores) == 1 else torch.cat(scores)

    def _scores(self, values: npt.NDArray[Any]) -> Tensor:
        """Scores [N, C, h, w], float32, of what the graph gives."""
        kind, classes = self._architecture.scores, self._architecture.num_classes
        if kind == "classes":
            return _one_hot(values.reshape(values.shape[0], *values.shape[-2:]), classes)
        if values.ndim != 4 or values.shape[1] != classes:
            raise PredictionError(
                f"the graph gives an image values of shape {list(values.shape)}, not {classes} scores"
            )
        scores = torch.from_numpy(np.ascontiguousarray(values))
        return scores.clamp_(min=_LEAST_PROBABILITY).log_() if kind == "probabilities" else scores


def _one_hot(indices: npt.NDArray[Any], classes: int) -> Tensor:
    if indices.size and not 0 <= int(indices.min()) <= int(indices.max()) < classes:
        raise PredictionError(f"the graph names classes {indices.min()} to {indices.max()}, where there are {classes}")
    found = torch.from_numpy(indices.astype(np.int64))
    scores = torch.zeros(found.shape[0], classes, *found.shape[1:])
    return scores.scatter_(1, found[:, None], _CERTAIN)


def _in_onnxruntime(model: bytes, architecture: OnnxArchitecture, settings: PredictorSettings) -> _Run:
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.use_deterministic_compute = settings.deterministic
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # others need the cores meanwhile
    providers: list[Any] = ["CPUExecutionProvider"]
    if settings.device != "cpu":
        number = int(settings.device.partition(":")[2] or 0)
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": number, "use_tf32": 0}))
    try:
        session = onnxruntime.InferenceSession(model, options, providers=providers)
    except Exception as error:  # its exceptions have no class in common
        raise BundleError(f"ONNX Runtime {onnxruntime.__version__} cannot run the model ({_first(error)})") from error
    if settings.device != "cpu" and "CUDAExecutionProvider" not in session.get_providers():
        raise DeviceError(
            f"ONNX Runtime cannot use device {settings.device} here, though it was asked for; see that its CUDA"
            " libraries are those it was made for, or use device cpu"
        )

    def run(images: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        try:
            values: npt.NDArray[Any] = session.run([architecture.output], {architecture.input: images})[0]
        except Exception as error:
            raise PredictionError(f"ONNX Runtime fails on images {list(images.shape)} ({_first(error)})") from error
        return values

    return run


def _in_openvino(model: bytes, architecture: OnnxArchitecture, settings: PredictorSettings) -> _Run:
    try:
        request = compile_for_cpu(core().read_model(model), settings.precision, settings.threads).create_infer_request()
    except RuntimeError as error:
        raise BundleError(
            f"OpenVINO cannot read the model's ONNX graph ({_first(error)}); use engine onnxruntime"
        ) from error

    def run(images: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
        try:
            (values,) = request.infer([images], share_inputs=True).to_tuple()
        except RuntimeError as error:
            raise PredictionError(f"OpenVINO fails on images {list(images.shape)} ({_first(error)})") from error
        return np.array(values)

    return run


def _first(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:200]
