"""Where does a network's time go, layer by layer, and how near is each layer to what this CPU can do?

What it can do is measured in the same run, by OpenVINO too: 3x3 convolutions of 512 channels and products of matrices,
shapes that suit it well. The network is compiled as the Predictor compiles it, for any size of image. Times are medians
over the rounds, in milliseconds per image.

    python benchmarks/layers.py                                  # FCN-8s VGG16, 21 classes, 480x360
    python benchmarks/layers.py --model BUNDLE --size 640x480 --precision int8
"""

import argparse
import logging
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from tiling import landscape, speaking_bundle

from fcn_core import Architecture, ModelBundle, Predictor, PredictorSettings, resolve_settings
from fcn_core.inference.engines.openvino_engine import run, to_graph
from fcn_core.inference.openvino_runtime import compile_for_cpu, core
from fcn_core.inference.quantize import quantize
from fcn_core.inference.reporting_packages import import_nncf, import_openvino

LISTED_ABOVE = 0.02
"""Layers that take a larger share of the time are listed; the others are one line for each kind."""

Operations = dict[str, float]
"""By the name of a layer: floating-point operations for one image, two for each multiplication with its addition."""


@dataclass(frozen=True)
class Layer:
    """kind: as OpenVINO runs it. seconds: for one image."""

    name: str
    kind: str
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a bundle; default: an FCN-8s VGG16 with made-up weights")
    parser.add_argument("--size", default="480x360", help="width and height of the image")
    parser.add_argument("--precision", default="auto", choices=("auto", "bfloat16", "float32", "int8"))
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    bundle = ModelBundle.load(options.model) if options.model else speaking_bundle(Architecture(num_classes=21))
    scene = landscape(max(height, 1200), max(width, 1200))
    image = np.ascontiguousarray(scene[:height, :width])
    if options.precision == "int8":
        others = [np.ascontiguousarray(scene[start : start + height, start : start + width]) for start in range(1, 9)]
        bundle, _ = quantize(bundle, others)
    precision = "auto" if options.precision == "int8" else options.precision
    settings = resolve_settings(
        "cpu", precision=precision, threads=options.threads, engine="openvino", kind=bundle.kind
    )

    core().set_property("CPU", {"PERF_COUNT": True})
    graph = graph_of(bundle)
    fixed = graph_of(bundle)
    fixed.reshape([1, height, width, 3])
    operations = operations_of(fixed)
    request = compile_for_cpu(graph, settings.precision, settings.threads).create_infer_request()
    layers = profile(request, image, options.rounds)
    core().set_property("CPU", {"PERF_COUNT": False})

    peaks = {
        name: work / seconds_of(made, bundle.kind == "int8", settings, options.rounds)
        for name, (work, made) in {
            "3x3 convolution of 512 channels, 60x45": convolutions(),
            "product of two matrices, 2048 x 2048": matrices(),
        }.items()
    }
    bare = compile_for_cpu(graph_of(bundle), settings.precision, settings.threads).create_infer_request()
    predictor = Predictor(bundle, settings)
    scores = timed(lambda: run(bare, image[None]), options.rounds)
    masks = timed(lambda: predictor.predict([image]), options.rounds)
    report(layers, operations, peaks, bundle.kind if bundle.kind == "int8" else settings.precision, scores, masks)


def graph_of(bundle: ModelBundle) -> Any:
    """The network as an openvino.Model whose operations have the names of their layers."""
    if bundle.int8 is None:
        return to_graph(bundle, named=True)
    return core().read_model(bundle.int8.graph, bundle.int8.values)


def operations_of(graph: Any) -> Operations:
    """Of what multiplies in a graph of fixed shapes."""
    found: Operations = {}
    for node in graph.get_ops():
        kind = node.get_type_name()
        if kind == "Convolution":  # weights: [out, in, height, width]
            found[node.get_friendly_name()] = 2.0 * size(node.output(0)) * np.prod(node.input(1).get_shape()[1:])
        elif kind == "GroupConvolution":  # [groups, out, in, height, width]
            found[node.get_friendly_name()] = 2.0 * size(node.output(0)) * np.prod(node.input(1).get_shape()[2:])
        elif kind == "ConvolutionBackpropData":  # [in, out, height, width]
            found[node.get_friendly_name()] = 2.0 * size(node.input(0)) * np.prod(node.input(1).get_shape()[1:])
    return found


def size(port: Any) -> float:
    return float(np.prod(port.get_shape()))


def profile(request: Any, image: Any, rounds: int) -> list[Layer]:
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for number in range(rounds + 2):
        run(request, image[None])
        for each in request.get_profiling_info():
            if number >= 2 and each.status == each.Status.EXECUTED:
                seconds[each.node_name, f"{each.node_type} {each.exec_type}"].append(each.real_time.total_seconds())
    return [Layer(name, kind, statistics.median(found)) for (name, kind), found in seconds.items()]


def convolutions() -> tuple[float, Any]:
    """Operations, and the graph: several in a row, for what is first and last has its values converted."""
    ops = import_openvino().opset13
    weights = np.random.default_rng(0).standard_normal((512, 512, 3, 3), np.float32)
    x = y = ops.parameter([1, 512, 45, 60], np.float32)
    for _ in range(8):
        y = ops.relu(ops.convolution(y, ops.constant(weights), [1, 1], [1, 1], [1, 1], [1, 1]))
    return 8 * 2.0 * 512 * 512 * 9 * 45 * 60, import_openvino().Model([y], [x])


def matrices() -> tuple[float, Any]:
    ops = import_openvino().opset13
    weights = np.random.default_rng(0).standard_normal((2048, 2048), np.float32)
    x = y = ops.parameter([2048, 2048], np.float32)
    for _ in range(4):
        y = ops.relu(ops.matmul(y, ops.constant(weights), False, True))
    return 4 * 2.0 * 2048**3, import_openvino().Model([y], [x])


def seconds_of(graph: Any, is_int8: bool, settings: PredictorSettings, rounds: int) -> float:
    values = np.random.default_rng(1).standard_normal(tuple(graph.input(0).get_shape()), np.float32)
    if is_int8:
        nncf = import_nncf()
        logging.getLogger("nncf").setLevel(logging.ERROR)
        graph = nncf.quantize(graph, nncf.Dataset([values]), subset_size=1)
    request = compile_for_cpu(graph, settings.precision, settings.threads).create_infer_request()
    return timed(lambda: request.infer([values], share_inputs=True), rounds)


def timed(work: Callable[[], Any], rounds: int) -> float:
    work()
    work()
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def report(
    layers: list[Layer],
    operations: Operations,
    peaks: dict[str, float],
    precision: str,
    scores: float,
    masks: float,
) -> None:
    console, peak = Console(width=120), max(peaks.values())
    for name, found in peaks.items():
        console.print(f"{name}: {found / 1e9:.0f} GFLOP/s in {precision}")
    table = Table(box=None)
    for column in ("layer", "runs as", "GFLOP", "ms", "share", "GFLOP/s", "of the peak"):
        table.add_column(column, justify="left" if column in ("layer", "runs as") else "right")
    whole = sum(layer.seconds for layer in layers)
    others: dict[str, list[Layer]] = defaultdict(list)
    for layer in layers:
        if layer.name in operations and layer.seconds > LISTED_ABOVE * whole:
            table.add_row(*row(short(layer.name), layer.kind, operations[layer.name], layer.seconds, whole, peak))
        else:
            others[layer.kind.split()[0]].append(layer)
    for kind, some in sorted(others.items(), key=lambda item: -sum(layer.seconds for layer in item[1])):
        work = sum(operations.get(layer.name, 0.0) for layer in some)
        table.add_row(*row(f"{len(some)} others", kind, work, sum(layer.seconds for layer in some), whole, peak))
    everything = sum(operations.values())
    table.add_section()
    table.add_row(*row("all layers", "", everything, whole, whole, peak))
    table.add_row(*row("scores, as one call", "", everything, scores, whole, peak))
    table.add_row(*row("the Predictor: mask, areas, confidence too", "", everything, masks, whole, peak))
    console.print(table)


def row(name: str, kind: str, work: float, seconds: float, whole: float, peak: float) -> tuple[str, ...]:
    rate = (f"{work / seconds / 1e9:.0f}", f"{work / seconds / peak:.2f}") if work else ("", "")
    return (name, kind, f"{work / 1e9:.2f}" if work else "", f"{1e3 * seconds:.2f}", f"{seconds / whole:.1%}", *rate)


def short(name: str) -> str:
    return name.removeprefix("__module.network.").split("/")[0]


if __name__ == "__main__":
    main()
