"""Whether a graph is one that `fcn model quantize` could have written: layers, edges, shapes and constants.

The one thing to know: OpenVINO never gets a stranger's XML. What was understood here is written anew, and only that is
handed on, so that nothing can mean one thing to this check and another to OpenVINO.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np
import numpy.typing as npt

from fcn_core.errors import BundleError
from fcn_core.models.int8_graph.kinds import CROPPING, KINDS, PRECISIONS, RANK, Kind, Values
from fcn_core.models.int8_graph.xml_text import GraphXmlError, parse

IR_VERSION = "11"
LARGEST_DIMENSION = 1 << 17
MOST_LAYERS = 20_000
LONGEST_NAME = 500

_TYPES = {name: np.dtype(code) for name, code in
          {"f32": "<f4", "i8": "i1", "u8": "u1", "i32": "<i4", "i64": "<i8"}.items()}  # fmt: skip
"""What constants may consist of."""
_SHARED_BYTES = 1 << 20
"""How much more than the file all constants together may have: equal ones lie there once."""
_REMEDY = "use the float model, or make the int8 one anew with fcn model quantize"

Port = tuple[int, int]
"""A layer's id, and the number of one of its inputs or outputs."""


class _Fault(Exception):
    """What is wrong with a graph, in the words of a message after the words "the int8 graph"."""


@dataclass(frozen=True)
class _Layer:
    """A layer as it stands in the XML. `inputs` and `outputs`: number to precision and dimensions, -1 for any."""

    id: int
    name: str
    kind: str
    opset: str
    attributes: Mapping[str, str]
    inputs: Mapping[int, tuple[str, tuple[int, ...]]]
    outputs: Mapping[int, tuple[str, tuple[int, ...]]]

    def __str__(self) -> str:
        return f"layer {self.id} ({self.kind})"

    def fault(self, what: str) -> _Fault:
        return _Fault(f"is not one that this program writes: {self} {what}")


def check_graph(graph: bytes, values: bytes, num_classes: int) -> bytes:
    """The XML to give to OpenVINO for a graph with these constants: what was understood of `graph`, and nothing else.

    graph: OpenVINO's XML of a network from pixels, uint8 [N, H, W, 3], to scores, float32 [N, num_classes, h, w].
    Raises BundleError, naming the layer, for anything that our own quantizing does not write.
    """
    try:
        root = parse(graph)
        layers = {layer.id: layer for layer in _layers(root)}
        sources = _edges(root, layers)
        _check_order(layers, sources)
        _check_ends(layers, num_classes)
        constants = {layer.id: _constant(layer, values) for layer in layers.values() if layer.kind == "Const"}
        _check_constants(layers, sources, constants, len(values))
    except (_Fault, GraphXmlError) as error:
        raise BundleError(f"the int8 graph {error}; {_REMEDY}") from error
    return _written(layers, sources)


def _layers(root: Element) -> Iterator[_Layer]:
    parts = [part.tag for part in root]
    if root.tag != "net" or sorted(parts) not in (["edges", "layers"], ["edges", "layers", "rt_info"]):
        raise _Fault("is no OpenVINO graph: it must be a net of layers and edges")
    if root.get("version") != IR_VERSION:
        raise _Fault(f"has version {root.get('version')!s:.20}, where OpenVINO writes {IR_VERSION}")
    entries = _child(root, "layers")
    if len(entries) > MOST_LAYERS:
        raise _Fault(f"has {len(entries)} layers, over {MOST_LAYERS}")
    seen = set()
    for entry in entries:
        layer = _layer(entry)
        if layer.id in seen:
            raise _Fault(f"has two layers {layer.id}")
        seen.add(layer.id)
        yield layer


def _layer(entry: Element) -> _Layer:
    number, kind, opset = _number(entry.get("id"), "a layer's id"), entry.get("type", ""), entry.get("version", "")
    rules = KINDS.get(kind)
    if entry.tag != "layer" or rules is None or opset not in rules.opsets:
        raise _Fault(f"is not one that this program writes: layer {number} is of type {kind[:40]!r}, {opset[:20]!r}")
    data = entry.find("data")
    layer = _Layer(
        number,
        entry.get("name", ""),
        kind,
        opset,
        {} if data is None else dict(data.attrib),
        _ports(entry.find("input")),
        _ports(entry.find("output")),
    )
    _check_layer(layer, rules)
    return layer


def _check_layer(layer: _Layer, rules: Kind) -> None:
    if len(layer.name) > LONGEST_NAME or not layer.name.isprintable():
        raise layer.fault("has a name that cannot be printed")
    for ports, counts, what in ((layer.inputs, rules.inputs, "inputs"), (layer.outputs, rules.outputs, "outputs")):
        if len(ports) not in counts:
            raise layer.fault(f"has {len(ports)} {what}")
    # In the file inputs are numbered from 0, and outputs after them.
    if [*layer.inputs, *layer.outputs] != list(range(len(layer.inputs) + len(layer.outputs))):
        raise layer.fault("has ports that are not numbered in order")
    if layer.kind in ("Parameter", "Const"):
        return  # their attributes are shapes, which are looked at with what they are for
    for name, text in layer.attributes.items():
        rule = rules.attributes.get(name)
        fault = "is not known" if rule is None else rule.fault(text)
        if fault:
            raise layer.fault(f"has an attribute {name[:40]!r} that {fault}")


def _ports(ports: Element | None) -> dict[int, tuple[str, tuple[int, ...]]]:
    found = {}
    for port in () if ports is None else ports:
        precision = port.get("precision", "")
        dimensions = tuple(_number(part.text, "a dimension", -1) for part in port)
        if precision not in PRECISIONS or len(dimensions) > RANK or max(dimensions, default=0) > LARGEST_DIMENSION:
            raise _Fault(f"has values of precision {precision[:20]!r} and {len(dimensions)} dimensions, or too large")
        number = _number(port.get("id"), "a port's id")
        if number in found:
            raise _Fault(f"has two ports {number} in a layer")
        found[number] = precision, dimensions
    return found


def _edges(root: Element, layers: Mapping[int, _Layer]) -> dict[Port, Port]:
    """Where each input of each layer comes from."""
    sources: dict[Port, Port] = {}
    for edge in _child(root, "edges"):
        names = ("from-layer", "from-port", "to-layer", "to-port")
        begin, begin_port, end, end_port = (_number(edge.get(name), f"an edge's {name}") for name in names)
        if begin not in layers or begin_port not in layers[begin].outputs:
            raise _Fault(f"has an edge from port {begin_port} of layer {begin}, which is not there")
        if end not in layers or end_port not in layers[end].inputs:
            raise _Fault(f"has an edge to port {end_port} of layer {end}, which is not there")
        if (end, end_port) in sources:
            raise _Fault(f"has two edges to port {end_port} of layer {end}")
        sources[end, end_port] = begin, begin_port
    for layer in layers.values():
        for port in layer.inputs:
            if (layer.id, port) not in sources:
                raise layer.fault(f"has nothing at its input {port}")
    return sources


def _check_order(layers: Mapping[int, _Layer], sources: Mapping[Port, Port]) -> None:
    before: dict[int, list[int]] = {number: [] for number in layers}
    for (end, _), (begin, _) in sources.items():
        before[end].append(begin)
    try:
        TopologicalSorter(before).prepare()
    except CycleError as error:
        raise _Fault(f"goes in a circle at layer {error.args[1][0]}") from error


def _check_ends(layers: Mapping[int, _Layer], num_classes: int) -> None:
    """One input of pixels and one output of scores."""
    for kind in ("Parameter", "Result"):
        count = sum(layer.kind == kind for layer in layers.values())
        if count != 1:
            raise _Fault(f"has {count} layers of type {kind}, not one")
    begin = next(layer for layer in layers.values() if layer.kind == "Parameter")
    pixels = {"shape": "?,?,?,3", "element_type": "u8"}
    if dict(begin.attributes) != pixels or begin.outputs[0] != ("U8", (-1, -1, -1, 3)):
        raise begin.fault("does not take pixels, uint8 [N, H, W, 3] of any size")
    end = next(layer for layer in layers.values() if layer.kind == "Result")
    precision, dimensions = end.inputs[0]
    if precision != "FP32" or len(dimensions) != 4 or dimensions[1] != num_classes:
        found = f"{precision} {list(dimensions)}"
        raise end.fault(f"gives {found}, not scores of {num_classes} classes, FP32 [N, {num_classes}, h, w]")


def _constant(layer: _Layer, values: bytes) -> npt.NDArray[np.generic]:
    """The elements of a constant, in one dimension."""
    if layer.attributes.keys() != {"element_type", "shape", "offset", "size"}:
        raise layer.fault("does not say its element_type, shape, offset and size, and only these")
    kind = _TYPES.get(layer.attributes["element_type"])
    if kind is None:
        raise layer.fault(f"consists of {layer.attributes['element_type'][:20]!r}")
    offset, size = (_number(layer.attributes[name], f"the {name} of {layer}") for name in ("offset", "size"))
    text = layer.attributes["shape"]
    shape = [_number(part.strip(" "), f"the shape of {layer}") for part in text.split(",")] if text else []
    if len(shape) > RANK or max(shape, default=0) > LARGEST_DIMENSION:
        raise layer.fault("has too large a shape")
    if size != math.prod(shape) * kind.itemsize or size == 0:
        raise layer.fault(f"has {size} bytes, which its shape does not need")
    if offset + size > len(values):
        raise layer.fault(f"ends at byte {offset + size} of a file of {len(values)}")
    return np.frombuffer(values, kind, math.prod(shape), offset)


def _check_constants(
    layers: Mapping[int, _Layer],
    sources: Mapping[Port, Port],
    constants: Mapping[int, npt.NDArray[np.generic]],
    file_bytes: int,
) -> None:
    if sum(constant.nbytes for constant in constants.values()) > file_bytes + _SHARED_BYTES:
        raise _Fault("has more constants than its file has values: many lie in the same place")
    for number, constant in constants.items():
        if constant.dtype.kind == "f" and not np.isfinite(constant).all():
            raise layers[number].fault("has values that are NaN or infinite")
    for (end, port), (begin, _) in sources.items():
        rule = KINDS[layers[end].kind].constants.get(port)
        if rule is None:
            continue
        if begin in constants:
            _check_values(layers[end], port, constants[begin], rule)
        elif layers[end].kind not in CROPPING:
            raise layers[end].fault(f"computes its input {port}, which must be a constant")


def _check_values(layer: _Layer, port: int, constant: npt.NDArray[np.generic], rule: Values) -> None:
    if constant.size > rule.count:
        raise layer.fault(f"has {constant.size} values at its input {port}, over {rule.count}")
    if not all(rule.low <= value <= rule.high for value in constant.tolist()):
        raise layer.fault(f"has values at its input {port} that are not within {rule.low:g} and {rule.high:g}")


def _written(layers: Mapping[int, _Layer], sources: Mapping[Port, Port]) -> bytes:
    root = Element("net", name="int8", version=IR_VERSION)
    entries = SubElement(root, "layers")
    for layer in layers.values():
        entry = SubElement(entries, "layer", id=str(layer.id), name=layer.name, type=layer.kind, version=layer.opset)
        if layer.attributes:
            SubElement(entry, "data", dict(layer.attributes))
        for tag, ports in (("input", layer.inputs), ("output", layer.outputs)):
            if ports:
                group = SubElement(entry, tag)
                for number, (precision, dimensions) in ports.items():
                    port = SubElement(group, "port", id=str(number), precision=precision)
                    for dimension in dimensions:
                        SubElement(port, "dim").text = str(dimension)
    edges = SubElement(root, "edges")
    for (end, end_port), (begin, begin_port) in sources.items():
        numbers = {"from-layer": begin, "from-port": begin_port, "to-layer": end, "to-port": end_port}
        SubElement(edges, "edge", {name: str(number) for name, number in numbers.items()})
    SubElement(root, "rt_info")
    return tostring(root, encoding="unicode").encode()


def _child(root: Element, tag: str) -> Element:
    found = root.find(tag)
    if found is None:
        raise _Fault(f"has no {tag}")
    return found


def _number(text: str | None, what: str, low: int = 0) -> int:
    """A whole number, as OpenVINO writes it, of at most 15 digits."""
    digits = (text or "").removeprefix("-")
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 15) or int(text or "") < low:
        raise _Fault(f"has {(text or '')[:40]!r} for {what}")
    return int(text or "")
