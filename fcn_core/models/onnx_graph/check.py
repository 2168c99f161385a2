"""Whether an ONNX file is a graph that may be run here, and what of it is kept: one input, one output, no other files.

The one thing to know: it reads a stranger's file, so it runs in a process with limits, and imports the package onnx.
What it returns is written anew: constants that lay in files beside the model are inside it, and nothing refers to
anything else.
"""

import os
import stat
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto

MOST_NODES = 50_000
OLDEST_OPSET = 9
LARGEST_MODEL = (2 << 30) - (1 << 20)
"""In bytes, constants included: what a message of Protocol Buffers may have, with room for the rest."""

_NOT_RUN = {
    "If", "Loop", "Scan", "SequenceMap",  # control flow
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial",
    "ImageDecoder", "StringConcat", "StringNormalizer", "StringSplit", "RegexFullMatch", "TfIdfVectorizer",
}  # fmt: skip
"""Standard operators that are refused: what they compute cannot be bounded, or differs from run to run."""

_SMALL = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")


class GraphFault(Exception):
    """What is wrong with a graph, as the rest of a sentence after the words "the ONNX graph"."""


def read_graph(data: bytes, folder: int | None) -> ModelProto:
    """The model, with all its constants inside. folder: an open directory for constants in files of their own, or None.

    Raises GraphFault for what is not run here.
    """
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except Exception as error:  # of a class that depends on the version of protobuf
        raise GraphFault("cannot be read: the file is no ONNX model, or is cut off; copy or export it again") from error
    if not model.opset_import or not model.graph.node or not model.graph.output:
        raise GraphFault("is empty: the file is no ONNX model, or is cut off; copy or export it again")
    version = _opset(model)
    if model.functions or model.training_info or model.graph.sparse_initializer:
        raise GraphFault(
            "has functions, training steps or sparse constants; export it for inference, functions inlined"
        )
    if len(model.graph.node) > MOST_NODES:
        raise GraphFault(f"has {len(model.graph.node)} operators, over {MOST_NODES}")
    _check_nodes(model.graph, version)
    _load_constants(model, len(data), folder)
    try:
        onnx.checker.check_model(model)
    except Exception as error:
        raise GraphFault(f"is not valid ONNX ({first_line(error)}); export it again") from error
    return model


def first_line(error: BaseException) -> str:
    """What an error says, in one line that is not too long."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200]


def _opset(model: ModelProto) -> int:
    versions: dict[str, int] = {}
    for entry in model.opset_import:
        domain = "" if entry.domain == "ai.onnx" else entry.domain
        if versions.setdefault(domain, entry.version) != entry.version:
            raise GraphFault(f"has two versions of the operators of {domain[:40] or 'ONNX'!r}")
    newest = onnx.defs.onnx_opset_version()
    version = versions.get("", 0)
    if not OLDEST_OPSET <= version <= newest:
        raise GraphFault(
            f"is of opset {version}, where {OLDEST_OPSET} to {newest} are read; export it with an opset between these"
        )
    return version


def _check_nodes(graph: GraphProto, version: int) -> None:
    for node in graph.node:
        if node.domain not in ("", "ai.onnx"):
            raise GraphFault(
                f"has the custom operator {node.domain[:40]}.{node.op_type[:40]}; only ONNX's own are run, so export it"
                " without"
            )
        if node.op_type in _NOT_RUN:
            raise GraphFault(
                f"has the operator {node.op_type}, which is not run here: control flow, chance and text are refused;"
                " export a traced network in evaluation mode"
            )
        if not onnx.defs.has(node.op_type, version, ""):
            raise GraphFault(f"has the operator {node.op_type[:40]!r}, which opset {version} does not know")
        for attribute in node.attribute:
            if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
                raise GraphFault(f"has an operator {node.op_type} with a graph inside; export a traced network")


def _load_constants(model: ModelProto, size: int, folder: int | None) -> None:
    """Check every constant, and bring in those that lie in other files."""
    total = size
    for tensor in _tensors(model.graph):
        count, width = 1, _width(tensor)
        for side in tensor.dims:
            if side < 0:
                raise GraphFault(f"has a constant of shape {list(tensor.dims)[:8]}")
            count *= side
        wanted = (count * width + 7) // 8
        name = tensor.name[:60]
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            total += wanted
            if total > LARGEST_MODEL:
                raise GraphFault(f"has more than {LARGEST_MODEL} bytes of constants; larger ones are not read")
            tensor.raw_data = _external(tensor, wanted, folder)
            del tensor.external_data[:]
            tensor.data_location = TensorProto.DEFAULT
        elif tensor.HasField("raw_data"):
            if len(tensor.raw_data) != wanted:
                raise GraphFault(
                    f"has a constant {name!r} of {wanted} bytes by its shape and {len(tensor.raw_data)} in fact"
                )
        elif sum(len(getattr(tensor, field)) for field in _SMALL) > 2 * count or (
            count and not any(len(getattr(tensor, field)) * 64 >= wanted for field in _SMALL)
        ):
            raise GraphFault(f"has a constant {name!r} of {count} values by its shape, which are not in the file")
        if tensor.data_type == TensorProto.FLOAT and tensor.raw_data:
            values = np.frombuffer(tensor.raw_data, "<f4")
            if np.isnan(values).any():
                raise GraphFault(f"has a constant {name!r} with values that are not numbers")


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                yield attribute.t
            elif attribute.type == AttributeProto.TENSORS:
                yield from attribute.tensors
            elif attribute.type in (AttributeProto.SPARSE_TENSOR, AttributeProto.SPARSE_TENSORS):
                raise GraphFault("has sparse constants; export it without")


def _width(tensor: TensorProto) -> int:
    """Bits of one value."""
    if tensor.data_type == TensorProto.STRING:
        raise GraphFault("has constants that are text")
    if tensor.data_type in (TensorProto.UINT4, TensorProto.INT4):
        return 4
    try:
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    except KeyError as error:
        raise GraphFault(f"has a constant of the unknown type {tensor.data_type}") from error
    return int(kind.itemsize * 8)


def _external(tensor: TensorProto, wanted: int, folder: int | None) -> bytes:
    """The bytes of a constant in a file beside the model."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    name = entries.get("location", "")
    if folder is None:
        raise GraphFault("refers to other files; a bundle's graph holds all its constants itself")
    if not name or "/" in name or "\\" in name or "\0" in name or name in (".", ".."):
        raise GraphFault(
            f"refers to the file {name[:80]!r}; constants may only be in a file of the model's own folder, by its plain"
            " name"
        )
    offset, length = (
        _number(entries.get(key, default), key) for key, default in (("offset", "0"), ("length", str(wanted)))
    )
    if length != wanted:
        raise GraphFault(
            f"has a constant {tensor.name[:60]!r} of {wanted} bytes by its shape and {length} by its reference"
        )
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError as error:
        raise GraphFault(
            f"needs the file {name[:80]!r} beside it, which cannot be read ({error.strerror}); copy it there, no link"
        ) from error
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or offset + length > status.st_size:
            raise GraphFault(
                f"needs bytes {offset} to {offset + length} of the file {name[:80]!r}, which has {status.st_size}; copy"
                " it again"
            )
        parts = []
        while length:
            part = os.pread(file, min(length, 1 << 28), offset)
            if not part:
                raise GraphFault(f"needs more of the file {name[:80]!r} than is there; copy it again")
            parts.append(part)
            offset, length = offset + len(part), length - len(part)
        return b"".join(parts)
    finally:
        os.close(file)


def _number(text: str, what: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 15):
        raise GraphFault(f"refers to another file with the {what} {text[:20]!r}")
    return int(text)


def the_input(graph: GraphProto) -> tuple[str, list[int | None]]:
    """Name and shape of the one input, float32 [N, 3, H, W]; None for a dimension that is free."""
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    if len(inputs) != 1:
        raise GraphFault(
            f"has {len(inputs)} inputs, not one: {_names(inputs)}; export a network that takes images alone"
        )
    kind = inputs[0].type.tensor_type
    shape = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
    shown = "[" + ", ".join("?" if side is None else str(side) for side in shape) + "]"
    if kind.elem_type != TensorProto.FLOAT:
        found = (
            TensorProto.DataType.Name(kind.elem_type).lower()
            if kind.elem_type in TensorProto.DataType.values()
            else "?"
        )
        raise GraphFault(f"takes {found} {shown}; what is run here takes normalised images, float32 [N, 3, H, W]")
    if len(shape) != 4 or shape[1] not in (3, None) or (shape[1] is None and shape[3] == 3):
        hint = "; export it with channels first" if len(shape) == 4 and shape[3] == 3 else ""
        raise GraphFault(f"takes values of shape {shown}, not images [N, 3, H, W]{hint}")
    if shape[0] not in (1, None):
        raise GraphFault(f"takes {shape[0]} images at once, always; export it for one, or with a free batch dimension")
    return inputs[0].name, shape


def keep_output(model: ModelProto, wanted: str | None) -> tuple[str, list[str]]:
    """Leave the model one output: `wanted`, or the only one. Returns its name, and what there is to say.

    Where that is the largest class of scores, the scores are taken: without them there is no confidence.
    """
    graph, notes = model.graph, []
    makers = {name: node for node in graph.node for name in node.output if name}
    name = wanted
    if name is None:
        if len(graph.output) != 1:
            raise GraphFault(f"has {len(graph.output)} outputs; choose one with --output-name: {_names(graph.output)}")
        name = graph.output[0].name
    elif name not in makers:
        raise GraphFault(f"has no output {name[:80]!r}; it has {_names(graph.output)}")
    scores = _before_argmax(name, makers)
    if scores is not None:
        notes.append(f"output {name} is the largest class of {scores}, which is taken instead: it has confidences")
        name = scores
    if [value.name for value in graph.output] != [name]:
        kept = [value for value in graph.output if value.name == name]
        del graph.output[:]
        free = [f"{name} {axis}" for axis in range(4)]
        graph.output.extend(kept or [onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, free)])
    return name, notes


def _before_argmax(name: str, makers: dict[str, Any]) -> str | None:
    """The scores of which an output is the largest class; None where it is something else."""
    for _ in range(8):
        node = makers.get(name)
        if node is None:
            return None
        if node.op_type == "ArgMax":
            axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
            return node.input[0] if axis in (1, -3) and node.input[0] in makers else None
        if node.op_type not in ("Cast", "Squeeze", "Identity"):
            return None
        name = node.input[0]
    return None


def _names(values: Any) -> str:
    shown = ", ".join(
        "".join(letter for letter in value.name[:60] if letter.isprintable()) for value in list(values)[:8]
    )
    return shown or "none"
