"""Graphs to change: real exports, and random changes of them that are the same for a seed."""

import random
from collections.abc import Callable, Iterator
from functools import cache
from xml.etree.ElementTree import Element, fromstring, tostring

from fcn_core.bundle import Int8Graph
from fcn_core.inference.engines.openvino_engine import to_graph
from fcn_core.inference.quantize import _serialize
from fcn_core.models.architecture import Architecture
from tests.fcn_core.nets import small_bundle

Change = Callable[[Element], None]


@cache
def exported(arch: str = "fcn16s", backbone: str = "alexnet") -> tuple[Int8Graph, Architecture]:
    """The graph of a small network as OpenVINO writes it. Quantizing adds layers, and takes ten times as long."""
    bundle = small_bundle(arch, backbone=backbone)
    return _serialize(to_graph(bundle, named=True)), bundle.architecture


def changed(graph: Int8Graph, change: Change) -> Int8Graph:
    root = fromstring(graph.graph)
    change(root)
    return Int8Graph(tostring(root), graph.values)


def layer(root: Element, kind: str, index: int = 0) -> Element:
    return [each for each in root.iter("layer") if each.get("type") == kind][index]


_NUMBERS = ("0", "-1", "1", "2", "3", "7", "64", "255", "65536", "2147483647", "-2147483648", "4294967296",
            "9223372036854775807", "1e30", "nan", "", "?")  # fmt: skip
_KINDS = ("Const", "Parameter", "Result", "Convolution", "ReLU", "Reshape", "Loop", "Add", "MaxPool", "Slice", "Concat",
          "Transpose", "ShapeOf", "Gather", "FakeQuantize", "ReadValue", "Convert", "Interpolate", "Pad")  # fmt: skip


def random_changes(graph: Int8Graph, seed: int) -> Int8Graph:
    """One to three changes of attributes, edges, layers or values, as somebody might make who looks for a crash."""
    draw = random.Random(seed)
    root, values = fromstring(graph.graph), bytearray(graph.values)
    for _ in range(draw.choice((1, 1, 2, 3))):
        draw.choice((_change_attribute, _change_edge, _change_layer, _change_dimension))(root, draw)
    if draw.random() < 0.2:
        for _ in range(draw.randrange(1, 8)):
            values[draw.randrange(len(values))] = draw.choice((0, 1, 127, 128, 255))
    return Int8Graph(tostring(root), bytes(values))


def _change_attribute(root: Element, draw: random.Random) -> None:
    data = draw.choice(list(root.iter("data")))
    if data.attrib:
        name = draw.choice(sorted(data.attrib))
        parts = data.attrib[name].split(",")
        parts[draw.randrange(len(parts))] = draw.choice((*_NUMBERS, *parts))
        data.set(name, ",".join(parts))


def _change_edge(root: Element, draw: random.Random) -> None:
    edges = list(root.iter("edge"))
    edge, other = draw.choice(edges), draw.choice(edges)
    name = draw.choice(sorted(edge.attrib))
    edge.set(name, draw.choice((other.attrib[name], draw.choice(_NUMBERS))))


def _change_layer(root: Element, draw: random.Random) -> None:
    entries = list(root.iter("layer"))
    entry, other = draw.choice(entries), draw.choice(entries)
    match draw.randrange(4):
        case 0:
            entry.set("type", draw.choice(_KINDS))
        case 1:
            entry.set("id", other.get("id", ""))
        case 2:
            entry.set("version", draw.choice(("opset1", "opset4", "opset8", "opset14", "extension")))
        case _:
            entry[:] = list(other)


def _change_dimension(root: Element, draw: random.Random) -> None:
    dimension = draw.choice(list(root.iter("dim")))
    dimension.text = draw.choice(_NUMBERS)


def many_changes(graph: Int8Graph, count: int) -> Iterator[Int8Graph]:
    return (random_changes(graph, seed) for seed in range(count))
