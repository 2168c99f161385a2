"""Target: the check of int8 graphs. What passes is written anew, means the same to the check again, and says no more.

OpenVINO itself is not asked: that a graph which passes may still crash it is what its trial is for.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from fcn_core.errors import BundleError
from fcn_core.models.int8_graph.check import check_graph

LARGEST_BYTES = 8192
MEMORY_MB = 512

# Of zeros, axes and small weights: what constants of the seed consist of, and some more.
_VALUES = np.array([0, 3, 1, 2], "<i8").tobytes() + np.linspace(-1, 1, 500, dtype="<f4").tobytes()

Value = tuple[str, tuple[int, ...]]
"""What goes from layer to layer: precision and shape."""

_PIXELS, _FLOATS, _PLANES = ("U8", (-1, -1, -1, 3)), ("FP32", (-1, -1, -1, 3)), ("FP32", (-1, 3, -1, -1))
_AXES, _KERNEL, _SCORES = ("I64", (4,)), ("FP32", (2, 3, 1, 1)), ("FP32", (-1, 2, -1, -1))
_WINDOW = 'strides="1, 1" dilations="1, 1" pads_begin="0, 0" pads_end="0, 0" auto_pad="explicit"'
_LAYERS: Sequence[tuple[str, str, Sequence[Value], Sequence[Value]]] = (
    ("Parameter", 'shape="?,?,?,3" element_type="u8"', (), (_PIXELS,)),
    ("Convert", 'destination_type="f32"', (_PIXELS,), (_FLOATS,)),
    ("Const", 'element_type="i64" shape="4" offset="0" size="32"', (), (_AXES,)),
    ("Transpose", "", (_FLOATS, _AXES), (_PLANES,)),
    ("Const", 'element_type="f32" shape="2, 3, 1, 1" offset="32" size="24"', (), (_KERNEL,)),
    ("Convolution", _WINDOW, (_PLANES, _KERNEL), (_SCORES,)),
    ("Result", "", (_SCORES,), ()),
)
_EDGES = ((0, 0, 1, 0), (1, 1, 3, 0), (2, 0, 3, 1), (3, 2, 5, 0), (4, 0, 5, 1), (5, 2, 6, 0))


def seeds() -> Iterable[bytes]:
    """One network of a single convolution: what passes is easily reached from it."""
    layers = "".join(
        f'<layer id="{number}" name="{kind}" type="{kind}" version="opset1">'
        f"{f'<data {data}/>' if data else ''}"
        f"{_ports('input', inputs, 0)}{_ports('output', outputs, len(inputs))}</layer>"
        for number, (kind, data, inputs, outputs) in enumerate(_LAYERS)
    )
    edges = "".join(
        f'<edge from-layer="{begin}" from-port="{begin_port}" to-layer="{end}" to-port="{end_port}"/>'
        for begin, begin_port, end, end_port in _EDGES
    )
    graph = f'<net name="n" version="11"><layers>{layers}</layers><edges>{edges}</edges></net>'.encode()
    assert check_graph(graph, _VALUES, 2)
    yield graph
    yield b"<net/>"


def _ports(tag: str, values: Sequence[Value], first: int) -> str:
    ports = "".join(
        f'<port id="{first + index}" precision="{precision}">{"".join(f"<dim>{side}</dim>" for side in shape)}</port>'
        for index, (precision, shape) in enumerate(values)
    )
    return f"<{tag}>{ports}</{tag}>" if ports else ""


def check(data: bytes) -> None:
    try:
        xml = check_graph(data, _VALUES, 2)
    except BundleError as error:
        refusal = str(error)
    else:
        assert check_graph(xml, _VALUES, 2) == xml
        assert b"<!" not in xml
        return
    assert refusal.isprintable(), refusal
    assert len(refusal) < 1000, refusal
