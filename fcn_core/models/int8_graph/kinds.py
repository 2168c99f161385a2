"""What a layer of a quantized graph may be: the types our own exports consist of, with bounds for their attributes.

The one thing to know: this is a list of what is allowed, made of real exports of every architecture. What is not here
is refused, however harmless; a layer that a newer OpenVINO writes is added here, with bounds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

LARGEST_KERNEL = 64
"""Also of strides and dilations. Our networks have 11 at most."""
LARGEST_PADDING = 256
"""In cells a side. The padded networks add 100."""
LARGEST_SCALE = 64
RANK = 6
"""The most dimensions of a value. Grouped convolutions have weights of five."""


@dataclass(frozen=True)
class Numbers:
    """`count` whole numbers, separated by commas, each within `low` and `high`."""

    count: int
    low: int
    high: int

    def fault(self, text: str) -> str | None:
        """What is wrong with the text of an attribute, or None."""
        parts = text.split(",")
        if len(parts) != self.count:
            return f"is not {self.count} numbers"
        if not all(_is_number(part.strip(" ")) and self.low <= int(part) <= self.high for part in parts):
            return f"is not within {self.low} and {self.high}"
        return None


@dataclass(frozen=True)
class OneOf:
    """One of these texts."""

    values: frozenset[str]

    def fault(self, text: str) -> str | None:
        """What is wrong with the text of an attribute, or None."""
        return None if text in self.values else f"is not {' or '.join(sorted(self.values))}"


@dataclass(frozen=True)
class Values:
    """The values that a constant may have where it says what a layer does: at most `count`, within `low` and `high`."""

    count: int
    low: float
    high: float


@dataclass(frozen=True)
class Kind:
    """A type of layer. `inputs` and `outputs` are how many it may have. `constants` are rules for the constants at some
    of its inputs, by number."""

    opsets: frozenset[str]
    inputs: Sequence[int]
    outputs: Sequence[int] = (1,)
    attributes: Mapping[str, Numbers | OneOf] = field(default_factory=dict)
    constants: Mapping[int, Values] = field(default_factory=dict)


def _is_number(text: str) -> bool:
    return text.removeprefix("-").isdecimal() and text.isascii() and len(text) <= 20


def _one_of(*values: str) -> OneOf:
    return OneOf(frozenset(values))


def _opsets(*numbers: int) -> frozenset[str]:
    return frozenset(f"opset{number}" for number in numbers)


_EXPLICIT = _one_of("explicit")
_PADS = Numbers(2, 0, LARGEST_PADDING)
_STEPS = Numbers(2, 1, LARGEST_KERNEL)
_AXES = Values(4, -4, 3)
_NUMPY: Mapping[str, OneOf] = {"auto_broadcast": _one_of("numpy")}
_WINDOW: Mapping[str, Numbers | OneOf] = {
    "strides": _STEPS,
    "dilations": _STEPS,
    "pads_begin": _PADS,
    "pads_end": _PADS,
    "auto_pad": _EXPLICIT,
}
_ANY = Values(4, -(2**63), 2**63 - 1)

PRECISIONS = frozenset({"FP32", "I8", "U8", "I32", "I64"})
"""What goes from layer to layer."""

CROPPING = frozenset({"Slice", "Gather"})
"""Layers that may take their amounts from the image's size: what they give is never larger than what they take. Others
could ask for any amount of memory at a size that no trial has seen."""

# Parameter, Const and Result are looked at by themselves: their attributes are shapes.
KINDS: Mapping[str, Kind] = {
    "Parameter": Kind(_opsets(1), inputs=(0,)),
    "Const": Kind(_opsets(1), inputs=(0,)),
    "Result": Kind(_opsets(1), inputs=(1,), outputs=(0,)),
    "Convert": Kind(_opsets(1), inputs=(1,), attributes={"destination_type": _one_of("f32")}),
    # Arithmetic on pixels, weights and shapes.
    "Add": Kind(_opsets(1), inputs=(2,), attributes=_NUMPY),
    "Subtract": Kind(_opsets(1), inputs=(2,), attributes=_NUMPY),
    "Multiply": Kind(_opsets(1), inputs=(2,), attributes=_NUMPY),
    "Divide": Kind(_opsets(1), inputs=(2,), attributes={**_NUMPY, "m_pythondiv": _one_of("true", "false")}),
    "Power": Kind(_opsets(1), inputs=(2,), attributes=_NUMPY, constants={1: Values(1, -4, 4)}),
    "FakeQuantize": Kind(_opsets(1, 13), inputs=(5,), attributes={**_NUMPY, "levels": Numbers(1, 2, 256)}),
    # Layers of the networks.
    "Convolution": Kind(_opsets(1), inputs=(2,), attributes=_WINDOW),
    "GroupConvolution": Kind(_opsets(1), inputs=(2,), attributes=_WINDOW),
    "ConvolutionBackpropData": Kind(
        _opsets(1), inputs=(2,), attributes={**_WINDOW, "output_padding": Numbers(2, 0, LARGEST_KERNEL)}
    ),
    "MaxPool": Kind(
        _opsets(1, 8, 14),
        inputs=(1,),
        outputs=(1, 2),
        attributes={
            **_WINDOW,
            "kernel": _STEPS,
            "rounding_type": _one_of("floor", "ceil", "ceil_torch"),
            "index_element_type": _one_of("i64", "i32"),
            "axis": Numbers(1, 0, 2),
        },
    ),
    "ReLU": Kind(_opsets(1), inputs=(1,)),
    "HSigmoid": Kind(_opsets(5), inputs=(1,)),
    "HSwish": Kind(_opsets(4), inputs=(1,)),
    "ReduceMean": Kind(_opsets(1), inputs=(2,), attributes={"keep_dims": _one_of("true")}, constants={1: _AXES}),
    "Interpolate": Kind(
        _opsets(4, 11),
        inputs=(3,),
        attributes={
            "mode": _one_of("linear_onnx"),
            "shape_calculation_mode": _one_of("scales"),
            "coordinate_transformation_mode": _one_of("pytorch_half_pixel", "half_pixel"),
            "nearest_mode": _one_of("floor", "round_prefer_floor"),
            "antialias": _one_of("false"),
            "pads_begin": Numbers(4, 0, 0),
            "pads_end": Numbers(4, 0, 0),
            "cube_coeff": _one_of("-0.75"),
        },
        constants={1: Values(2, 1 / LARGEST_SCALE, LARGEST_SCALE), 2: _AXES},
    ),
    # Cropping and padding, by amounts that may depend on the image's size.
    "Transpose": Kind(_opsets(1), inputs=(2,), constants={1: Values(4, 0, 3)}),
    "Pad": Kind(
        _opsets(1, 12),
        inputs=(4,),
        attributes={"pad_mode": _one_of("constant")},
        constants={1: Values(4, -LARGEST_PADDING, LARGEST_PADDING), 2: Values(4, -LARGEST_PADDING, LARGEST_PADDING)},
    ),
    "Slice": Kind(_opsets(8), inputs=(5,), constants={1: _ANY, 2: _ANY, 3: Values(4, 1, 1), 4: _AXES}),
    "ShapeOf": Kind(_opsets(3), inputs=(1,), attributes={"output_type": _one_of("i64")}),
    "Gather": Kind(
        _opsets(7, 8),
        inputs=(3,),
        attributes={"batch_dims": Numbers(1, 0, 0)},
        constants={1: Values(4, -4, 3), 2: Values(1, 0, 0)},
    ),
    "Concat": Kind(_opsets(1), inputs=(1, 2, 3, 4), attributes={"axis": Numbers(1, 0, 0)}),
}
