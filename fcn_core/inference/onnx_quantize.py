"""An imported ONNX graph in 8-bit integers: what NNCF makes of it is an ONNX graph again.

The one thing to know: values are rounded by ONNX's own QuantizeLinear and DequantizeLinear, so the new graph passes the
same checks as any imported one. OpenVINO computes such pairs in integers, ONNX Runtime many of them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fcn_core.bundle import ModelBundle
from fcn_core.errors import ExportError
from fcn_core.inference.engines.engine import Image
from fcn_core.inference.extras import require
from fcn_core.inference.fit import OnnxFit
from fcn_core.inference.onnx_trial import PACKAGES, try_onnx
from fcn_core.inference.reporting_packages import import_nncf, import_onnxruntime
from fcn_core.inference.settings import resolve_settings
from fcn_core.models.onnx_graph.architecture import OnnxArchitecture

OLDEST_OPSET = 13
"""Of earlier ones QuantizeLinear has one scale for all channels."""

_WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


def quantized_onnx(bundle: ModelBundle, images: Sequence[Image]) -> bytes:
    """The graph of a bundle, rounded as these images, each uint8 [H, W, 3], call for.

    Raises ExportError for a graph that is int8 already, or that NNCF cannot make int8; BundleError where the graph is
    of no use.
    """
    require("int8", PACKAGES, "onnx")
    assert bundle.onnx is not None, "an imported graph"
    assert isinstance(bundle.architecture, OnnxArchitecture), "an imported graph"
    if not bundle.graph_tried:
        try_onnx(bundle.onnx, bundle.architecture)
    model = _parse(bundle.onnx)
    _check(model, bundle.model_id)
    import_onnxruntime()  # before NNCF imports it, so that it does not report its use
    nncf = import_nncf()
    inputs = [_input(bundle, bundle.architecture, image) for image in images]
    data = nncf.Dataset(inputs, lambda values: {model.graph.input[0].name: values})
    scores = nncf.IgnoredScope(names=_name_scores(model))
    try:
        made: bytes = nncf.quantize(model, data, subset_size=len(inputs), ignored_scope=scores).SerializeToString(
            deterministic=True
        )
    except Exception as error:  # of NNCF, ONNX and ONNX Runtime, which have no class in common
        raise ExportError(
            f"model {bundle.model_id} is an ONNX graph that NNCF {nncf.__version__} cannot make int8"
            f" ({str(error).strip()[:200]}); use bfloat16"
        ) from error
    try_onnx(made, bundle.architecture)
    return made


def _parse(model: bytes) -> Any:
    import onnx  # here, as few programs need it

    return onnx.load_model_from_string(model)


def _check(model: Any, model_id: str) -> None:
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise ExportError(f"model {model_id} is int8 already; quantize the float model that it was made of")
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset < OLDEST_OPSET:
        raise ExportError(
            f"model {model_id} is an ONNX graph of opset {opset}, and int8 needs {OLDEST_OPSET} or newer; export it"
            " anew"
        )


def _input(bundle: ModelBundle, architecture: OnnxArchitecture, image: Image) -> npt.NDArray[np.float32]:
    """An image as the graph gets it, float32 [1, 3, h, w]; of one that is seen through windows, the first window."""
    settings = resolve_settings(device="cpu", kind="onnx")
    fit = OnnxFit(architecture, settings.snap)
    window = fit.window((image.shape[0], image.shape[1]), settings.window, settings.tile_pixels)
    part = image if window is None else image[: window[0], : window[1]]
    seen = fit.image(np.ascontiguousarray(part), fit.seen((part.shape[0], part.shape[1])))
    pixels = torch.from_numpy(np.array(seen)).permute(2, 0, 1)[None]
    values: npt.NDArray[np.float32] = bundle.normalization.apply(pixels).contiguous().numpy()
    return values


def _name_scores(model: Any) -> list[str]:
    """Names of the layers that score: nothing with weights lies between them and the output. They cost next to
    nothing, and decide between classes, so they stay as they are. Layers without a name are given one."""
    taken = {node.name for node in model.graph.node}
    makers = {}
    for index, node in enumerate(model.graph.node):
        if not node.name:
            node.name = next(name for name in (f"node{index}{'_' * count}" for count in range(99)) if name not in taken)
        makers.update(dict.fromkeys(node.output, node))
    found, seen, waiting = [], set(), [model.graph.output[0].name]
    while waiting:
        node = makers.get(waiting.pop())
        if node is None or node.name in seen:
            continue
        seen.add(node.name)
        if node.op_type in _WEIGHTED:
            found.append(node.name)
        else:
            waiting += node.input
    return found
