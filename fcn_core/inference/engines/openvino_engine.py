"""OpenVINO on a CPU: the same network as one graph, from bytes of pixels to scores, for images of any size.

The one thing to know: the graph is compiled once, for all sizes. A size that was not seen before costs some tens of
milliseconds, once; compiling for each size would cost a second each and gains nothing that could be measured.
"""

import math
import warnings
from collections.abc import Sequence
from operator import le
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from fcn_core.bundle import Int8Graph, ModelBundle
from fcn_core.errors import BundleError
from fcn_core.inference.engines.engine import Image
from fcn_core.inference.graph_trial import Expected, try_graph
from fcn_core.inference.openvino_runtime import compile_for_cpu, core
from fcn_core.inference.reporting_packages import import_openvino
from fcn_core.inference.settings import PredictorSettings
from fcn_core.models.architecture import Architecture
from fcn_core.models.building import build_without_values
from fcn_core.models.int8_graph.check import check_graph
from fcn_core.models.network import GRID, Network
from fcn_core.normalization import Normalization

# Of images that take part in tracing: at this size every crop of every network crops something.
_TRACED_SIZE = (2, 75, 107, 3)

_LARGEST_INSIDE = 1e30
"""Of sound networks values stay below a million; no image makes them a hundred million times as large as another."""

_SHAPED_SIZE = (331, 445)
"""Of the image for which the shapes inside a quantized graph are compared with the float network's."""


class OpenVINOEngine:
    """A bundle's network, compiled for this machine's CPU."""

    smallest_side = GRID  # its pooling refuses maps smaller than the kernel, where PyTorch's goes over the edge

    def __init__(self, bundle: ModelBundle, settings: PredictorSettings) -> None:
        if bundle.int8 is None:
            graph = to_graph(bundle)
        else:
            if not bundle.graph_tried:
                try_int8(bundle.int8, bundle.network_architecture, settings)
            graph = _read(bundle.int8, bundle.architecture.num_classes)
        self._request = compile_graph(graph, settings).create_infer_request()

    def scores(self, images: Sequence[Image]) -> Tensor:
        return torch.from_numpy(run(self._request, np.stack(images)))


class _Scorer(nn.Module):
    """From pixels, uint8 [N, H, W, 3], to scores: what the graph computes."""

    def __init__(self, network: Network, normalization: Normalization) -> None:
        super().__init__()
        self.network = network
        self._normalization = normalization

    def forward(self, pixels: Tensor) -> Tensor:
        return self.network.scores(self._normalization.apply(pixels.permute(0, 3, 1, 2)))


def to_graph(bundle: ModelBundle, *, named: bool = False) -> Any:
    """The network as an openvino.Model: pixels, uint8 [N, H, W, 3], to scores, float32 [N, C, h, w]; N, H, W free.

    named: operations have the names of their layers, which takes twice as long: PyTorch then copies every module.

    Raises BundleError if values inside the network come near the largest float.
    """
    openvino = import_openvino()

    module = _Scorer(bundle.build(), bundle.normalization).eval().requires_grad_(False)
    _check_range(module, bundle.model_id)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # about tracing as such, and shapes it may not vary: tests vary them
        example = torch.zeros(_TRACED_SIZE, dtype=torch.uint8)
        function = module if named else lambda pixels: module(pixels)
        traced: Any = torch.jit.trace(function, example, check_trace=False)  # type: ignore[no-untyped-call]
        graph = openvino.convert_model(traced, example_input=example)
    _simplify_pooling(graph)
    graph.reshape([-1, -1, -1, 3])
    return graph


def _check_range(module: _Scorer, model_id: str) -> None:
    """Raises BundleError if a layer's values on an image of noise, or on a white one, are over `_LARGEST_INSIDE`.

    PyTorch carries an overflow on to the scores, where it is noticed. OpenVINO's ReLU makes 0 of NaN, so that the
    scores would be finite, and wrong. Those of the last layers are looked at for every image.
    """
    largest: dict[str, float] = {}

    def watch(name: str, layer: nn.Module) -> RemovableHandle:
        def remember(layer: nn.Module, inputs: object, output: Tensor) -> None:
            largest[name] = max(map(abs, map(float, torch.aminmax(output))), key=lambda end: (math.isnan(end), end))

        return layer.register_forward_hook(remember)

    layers = [each for each in module.network.named_modules() if not any(each[1].children()) and "score" not in each[0]]
    noise = torch.randint(0, 256, _TRACED_SIZE, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    noise[1] = 255
    hooks = [watch(name, layer) for name, layer in layers]
    try:
        with torch.no_grad():
            module(noise)
    finally:
        for hook in hooks:
            hook.remove()
    for name, value in largest.items():
        if not value <= _LARGEST_INSIDE:
            raise BundleError(
                f"model {model_id} is of no use: values in its layer {name!r} reach {value:.0e}, where floats end at"
                " 3e+38; its weights are damaged, or its training diverged: take another"
            )


def _simplify_pooling(graph: Any) -> None:
    """Pooling in the oldest form that says the same: OpenVINO carries 8-bit integers through no other, so that int8
    convolutions behind it would compute in float. On a map without a border, with windows that leave nothing out,
    PyTorch's way of rounding up is the plain one.
    """
    opset1 = import_openvino().opset1

    for node in graph.get_ops():
        if node.get_type_name() != "MaxPool":
            continue
        form = node.get_attributes()
        pads, strides, kernel = (form[name] for name in ("pads_begin", "strides", "kernel"))
        dense = all(map(le, strides, kernel)) and set(form["dilations"]) == {1}
        if form["rounding_type"] == "ceil_torch" and dense and not any(pads):
            plain = opset1.max_pool(node.input_value(0), strides, pads, form["pads_end"], kernel, "ceil")
            plain.set_friendly_name(node.get_friendly_name())
            node.output(0).replace(plain.output(0))
    graph.validate_nodes_and_infer_types()


def try_int8(int8: Int8Graph, architecture: Architecture, settings: PredictorSettings) -> None:
    """Compile a quantized graph once in a process of its own. Raises BundleError if that does not go well.

    For whoever hands a bundle to processes that are not to try it each by itself. Costs about as much as compiling.
    """
    xml = check_graph(int8.graph, int8.values, architecture.num_classes)
    try_graph(xml, int8.values, _expected(architecture), settings.precision, settings.threads)


def _expected(architecture: Architecture) -> Expected:
    """What the float network makes of an image of `_SHAPED_SIZE`; nothing is computed."""
    network = build_without_values(architecture).eval()
    with torch.device("meta"), torch.no_grad():
        sizes = []
        hooks = [
            layer.register_forward_hook(lambda layer, inputs, output: sizes.append(output.numel()))
            for layer in network.modules()
            if not any(layer.children())
        ]
        scores = network.scores(torch.empty(1, 3, *_SHAPED_SIZE))
    for hook in hooks:
        hook.remove()
    batch, classes, height, width = scores.shape
    return Expected(_SHAPED_SIZE, (batch, classes, height, width), max(*sizes, 3 * math.prod(_SHAPED_SIZE)))


def _read(int8: Int8Graph, num_classes: int) -> Any:
    """A quantized network as an openvino.Model. Raises BundleError if OpenVINO cannot read it."""
    openvino = import_openvino()

    xml = check_graph(int8.graph, int8.values, num_classes)
    try:
        # The values go in as an array: as bytes they would be taken for a path.
        values = openvino.Tensor(np.frombuffer(int8.values, np.uint8).copy())
        return core().read_model(xml, values)
    except RuntimeError as error:
        raise BundleError(
            f"OpenVINO {openvino.__version__} cannot read the model's int8 graph ({str(error).splitlines()[0]});"
            " make it anew with fcn model quantize"
        ) from error


def compile_graph(graph: Any, settings: PredictorSettings) -> Any:
    """An openvino.CompiledModel that obeys the settings' precision and threads."""
    return compile_for_cpu(graph, settings.precision, settings.threads)


def run(request: Any, pixels: Image) -> Any:
    """Scores, float32 [N, C, h, w], of pixels [N, H, W, 3]; an array of its own."""
    (scores,) = request.infer([pixels], share_inputs=True).to_tuple()
    return scores
