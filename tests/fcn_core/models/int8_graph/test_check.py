"""OpenVINO sees no graph but what our own exports consist of; everything else is one sentence that names the layer."""

import contextlib
from collections.abc import Callable
from dataclasses import replace
from xml.etree.ElementTree import Element, SubElement, fromstring

import numpy as np
import pytest

from fcn_core.bundle import Int8Graph, ModelBundle
from fcn_core.errors import BundleError
from fcn_core.inference.openvino_runtime import core
from fcn_core.inference.quantize import quantize
from fcn_core.inference.reporting_packages import import_openvino
from fcn_core.models.int8_graph.check import check_graph
from fcn_core.models.int8_graph.xml_text import DEEPEST, LARGEST_BYTES, LARGEST_ELEMENTS
from tests.fcn_core.models.int8_graph.graphs import changed, exported, layer, many_changes
from tests.fcn_core.nets import photo, small_bundle
from tests.requires import requires

requires("openvino", install="'fcn-pipeline[openvino]'")

CLASSES = 5


def _check(graph: Int8Graph) -> bytes:
    return check_graph(graph.graph, graph.values, CLASSES)


def _set(kind: str, name: str, value: str, where: str = "data") -> Callable[[Element], None]:
    def change(root: Element) -> None:
        entry = layer(root, kind)
        found = entry if where == "" else entry.find(where)
        assert found is not None
        found.set(name, value)

    return change


def _edge(name: str, value: str) -> Callable[[Element], None]:
    return lambda root: next(root.iter("edge")).set(name, value)


def _twice(tag: str) -> Callable[[Element], None]:
    def change(root: Element) -> None:
        found = root.find(tag)
        assert found is not None
        found.append(found[0])

    return change


def _without(tag: str) -> Callable[[Element], None]:
    def change(root: Element) -> None:
        found = root.find(tag)
        assert found is not None
        del found[3]

    return change


def _largest_constant(root: Element) -> Element:
    constants = (each for each in root.iter("layer") if each.get("type") == "Const")
    return max(constants, key=lambda each: int(each[0].get("size", "")))


def _circle(root: Element) -> None:
    """The first convolution takes what the second makes."""
    first, second = (layer(root, "Convolution", index).get("id", "") for index in (0, 1))
    edge = next(edge for edge in root.iter("edge") if edge.get("to-layer") == first and edge.get("to-port") == "0")
    edge.set("from-layer", second)
    edge.set("from-port", "2")


def _second_input(root: Element) -> None:
    entry = layer(root, "Const")
    entry.set("type", "Parameter")


def _unnamed_port(root: Element) -> None:
    port = layer(root, "Convert").find("output/port")
    assert port is not None
    port.set("id", "9")


def _stray_child(root: Element) -> None:
    SubElement(root, "statistics")


def _dimension(root: Element) -> None:
    port = layer(root, "Convolution").find("output/port")
    assert port is not None
    SubElement(port, "dim").text = "99999999"


def _permutation(root: Element) -> None:
    """Transpose's order is taken from other constants, which are no axes."""
    order = next(
        edge
        for edge in root.iter("edge")
        if edge.get("to-layer") == layer(root, "Transpose").get("id") and edge.get("to-port") == "1"
    )
    wide = _largest_constant(root).get("id", "")
    order.set("from-layer", wide)


def _computed_order(root: Element) -> None:
    """Transpose's order is the image's shape."""
    layers, edges = root.find("layers"), root.find("edges")
    assert layers is not None
    assert edges is not None
    layers.append(
        fromstring(
            '<layer id="9000" name="shape" type="ShapeOf" version="opset3"><data output_type="i64"/>'
            '<input><port id="0" precision="U8"/></input>'
            '<output><port id="1" precision="I64"><dim>4</dim></port></output></layer>'
        )
    )
    transpose = layer(root, "Transpose").get("id")
    order = next(each for each in edges if (each.get("to-layer"), each.get("to-port")) == (transpose, "1"))
    order.attrib.update({"from-layer": "9000", "from-port": "1"})
    begin = layer(root, "Parameter").get("id", "")
    SubElement(edges, "edge", {"from-layer": begin, "from-port": "0", "to-layer": "9000", "to-port": "0"})


RULES = {
    "another type of layer": (_set("ReLU", "type", "TensorIterator", ""), r"layer \d+ is of type 'TensorIterator'"),
    "another opset": (_set("ReLU", "version", "extension", ""), r"is of type 'ReLU', 'extension'"),
    "a name that clears the screen": (
        _set("ReLU", "name", "\x9b2J", ""),
        r"\(ReLU\) has a name that cannot be printed",
    ),
    "an unknown attribute": (_set("Convolution", "path", "/etc/passwd"), r"has an attribute 'path' that is not known"),
    "a huge stride": (_set("Convolution", "strides", "1,9999999"), r"'strides' that is not within 1 and 64"),
    "a stride of zero": (_set("Convolution", "strides", "0,0"), r"'strides' that is not within 1 and 64"),
    "too few strides": (_set("Convolution", "strides", "1"), r"'strides' that is not 2 numbers"),
    "a number of 100,000 digits": (
        _set("Convolution", "strides", "1," + "9" * 100_000),
        r"'strides' that is not within",
    ),
    "padding below zero": (_set("Convolution", "pads_begin", "-1,0"), r"'pads_begin' that is not within 0 and 256"),
    "padding by OpenVINO's rule": (_set("Convolution", "auto_pad", "same_upper"), r"'auto_pad' that is not explicit"),
    "a constant beyond the file": (_set("Const", "offset", "99999999"), r"\(Const\) ends at byte \d+ of a file of"),
    "a constant before the file": (_set("Const", "offset", "-8"), r"has '-8' for the offset of layer"),
    "a constant of another size": (_set("Const", "size", "3"), r"\(Const\) has 3 bytes, which its shape does not need"),
    "a constant of no known type": (_set("Const", "element_type", "string"), r"\(Const\) consists of 'string'"),
    "a constant of huge shape": (_set("Const", "shape", "4, 999999999"), r"\(Const\) has too large a shape"),
    "an edge from nowhere": (_edge("from-layer", "70000"), r"an edge from port 0 of layer 70000, which is not there"),
    "an edge from no port": (_edge("from-port", "7"), r"an edge from port 7 of layer 0, which is not there"),
    "an edge to nowhere": (_edge("to-layer", "70000"), r"an edge to port 0 of layer 70000, which is not there"),
    "an edge to no port": (_edge("to-port", "7"), r"an edge to port 7 of layer \d+, which is not there"),
    "an edge of no number": (_edge("to-port", "x"), r"has 'x' for an edge's to-port"),
    "two edges to one input": (_twice("edges"), r"has two edges to port 0 of layer"),
    "an input without an edge": (_without("edges"), r"has nothing at its input"),
    "two layers of one id": (_twice("layers"), r"has two layers 0"),
    "a circle": (_circle, r"goes in a circle at layer"),
    "two inputs": (_second_input, r"has 2 layers of type Parameter, not one"),
    "other pixels": (_set("Parameter", "element_type", "f32"), r"does not take pixels, uint8 \[N, H, W, 3\]"),
    "images of one size": (_set("Parameter", "shape", "1,9,9,3"), r"does not take pixels, uint8 \[N, H, W, 3\]"),
    "ports out of order": (_unnamed_port, r"has ports that are not numbered in order"),
    "another element": (_stray_child, r"must be a net of layers and edges"),
    "another version": (lambda root: root.set("version", "10"), r"has version 10, where OpenVINO writes 11"),
    "a huge dimension": (_dimension, r"5 dimensions, or too large"),
    "an order of axes that depends on the image": (_computed_order, r"computes its input 1, which must be a constant"),
    "an order of axes that is none": (_permutation, r"\(Transpose\) has \d+ values at its input 1, over 4"),
}


@pytest.mark.parametrize("rule", RULES)
def test_what_we_never_write_is_refused_with_a_sentence(rule: str) -> None:
    change, message = RULES[rule]
    graph = changed(exported()[0], change)
    with pytest.raises(BundleError, match=message) as refusal:
        _check(graph)
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 500


def test_what_we_write_passes_and_means_the_same() -> None:
    graph, _ = exported()
    openvino = import_openvino()
    values = openvino.Tensor(np.frombuffer(graph.values, np.uint8).copy())
    image = photo(75, 97)[None]
    before, after = (
        core().compile_model(core().read_model(xml, values), "CPU")([image])[0] for xml in (graph.graph, _check(graph))
    )
    assert np.array_equal(before, after)


@pytest.mark.parametrize("arch", ["fcn8s", "fcn8s_padded", "fcn_alexnet_padded"])
def test_every_geometry_passes(arch: str) -> None:
    _check(exported(arch, {"fcn8s": "vgg16_bn", "fcn8s_padded": "vgg16"}.get(arch, "alexnet"))[0])


def test_other_numbers_of_classes_are_refused() -> None:
    graph, _ = exported()
    with pytest.raises(BundleError, match=r"not scores of 21 classes, FP32 \[N, 21, h, w\]"):
        check_graph(graph.graph, graph.values, 21)


def test_values_that_are_not_finite_are_refused() -> None:
    graph, _ = exported()
    data = _largest_constant(fromstring(graph.graph)).find("data")
    assert data is not None
    offset = int(data.attrib["offset"])
    spoilt = graph.values[:offset] + np.float32("nan").tobytes() + graph.values[offset + 4 :]
    with pytest.raises(BundleError, match=r"\(Const\) has values that are NaN or infinite"):
        _check(replace(graph, values=spoilt))


def test_a_file_too_short_for_its_constants_is_refused() -> None:
    graph, _ = exported()
    with pytest.raises(BundleError, match="ends at byte"):
        _check(replace(graph, values=graph.values[:-1]))


def test_one_place_that_many_constants_read_is_refused() -> None:
    graph, _ = exported()

    def share(root: Element) -> None:
        layers, edges = root.find("layers"), root.find("edges")
        assert layers is not None
        assert edges is not None
        widest = _largest_constant(root)
        for number in range(10_000, 10_200):
            copy = SubElement(layers, "layer", {**widest.attrib, "id": str(number)})
            copy.extend(list(widest))

    with pytest.raises(BundleError, match="many lie in the same place"):
        _check(changed(graph, share))


BOMB = b"""<?xml version="1.0"?><!DOCTYPE net [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><net>&b;</net>"""
TEXTS = {
    "an entity bomb": (BOMB, "has a document type"),
    "a file of somebody's": (b'<!DOCTYPE net SYSTEM "file:///etc/passwd"><net/>', "has a document type"),
    "an entity": (b"<net>&a;</net>", "is not XML"),
    "a processing instruction": (b"<?php x?><net/>", "has a processing instruction"),
    "a comment": (b"<net><!-- x --></net>", "has a comment"),
    "no XML": (b"\0" * 99, "is not XML"),
    "nothing": (b"", "is not XML"),
    "no graph": (b"<net/>", "must be a net of layers and edges"),
    "100,000 levels": (b"<net>" * 100_000, f"nested deeper than {DEEPEST}"),
    "too many elements": (b"<net>" + b"<a/>" * LARGEST_ELEMENTS + b"</net>", f"more than {LARGEST_ELEMENTS} elements"),
    "too much": (b" " * (LARGEST_BYTES + 1), f"has {LARGEST_BYTES + 1} bytes"),
}


@pytest.mark.parametrize("text", TEXTS)
def test_text_that_openvino_does_not_write_is_refused(text: str) -> None:
    data, message = TEXTS[text]
    with pytest.raises(BundleError, match=message):
        check_graph(data, b"", CLASSES)


def test_random_changes_are_refused_with_a_sentence_or_read_whole() -> None:
    accepted = 0
    for graph in many_changes(exported()[0], 150):
        with contextlib.suppress(BundleError):
            xml = _check(graph)
            assert check_graph(xml, graph.values, CLASSES) == xml
            accepted += 1
    assert 0 < accepted < 75


@pytest.mark.long
@pytest.mark.parametrize(
    ("arch", "backbone", "upsampling"),
    [
        *(("fcn8s", backbone, "interpolate") for backbone in ("vgg16", "alexnet", "resnet50", "mobilenet_v3_large")),
        *(("fcn8s", backbone, "transposed") for backbone in ("vgg16_bn", "resnet50", "mobilenet_v3_large")),
        ("fcn32s_padded", "vgg16", None),
        ("fcn8s_padded", "vgg16", None),
        ("fcn_alexnet_padded", "alexnet", None),
        ("tv_fcn", "resnet50", None),
    ],
)  # fmt: skip
def test_what_quantizing_makes_of_every_network_passes_and_is_tried(
    arch: str, backbone: str, upsampling: str | None
) -> None:
    requires("nncf", install="'fcn-pipeline[quantize]'")
    made, agreement = quantize(
        small_bundle(arch, upsampling, backbone=backbone), [photo(64, 96, seed) for seed in range(4)]
    )
    assert agreement.images == 1
    assert ModelBundle.from_files(made.to_files()).int8 == made.int8
