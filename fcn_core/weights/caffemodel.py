"""Reading Caffe's `.caffemodel` files: the learned blobs of each layer, by name.

The one thing to know: the file is data in the protocol buffers wire format, and only that is read here. Nothing is
executed, no schema is compiled, and no length in the file is believed before it was compared with what is left of the
file, so memory stays in proportion to the file's size whatever it says.

The messages are those of caffe.proto: NetParameter holds layers (`layer`, or `layers` in files from before 2015), a
layer its name and its blobs, a blob its shape and its values.
"""

import math
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fcn_core.errors import WeightsError

# Field numbers of caffe.proto.
_NET_LAYERS_V1, _NET_LAYER = 2, 100
_LAYER_NAME, _LAYER_BLOBS = 1, 7
_V1_LAYER_V0, _V1_LAYER_NAME, _V1_LAYER_BLOBS = 1, 4, 6
_BLOB_LEGACY_DIMS = (1, 2, 3, 4)  # num, channels, height, width
_BLOB_DATA, _BLOB_SHAPE, _BLOB_DOUBLE_DATA = 5, 7, 8
_SHAPE_DIM = 1

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# Each bounds what a few bytes of a file may become in memory. The largest nets have a few hundred layers.
_MAX_LAYERS = 4096
_MAX_BLOBS = 8
_MAX_DIMS = 32
_MAX_NAME = 256


@dataclass(frozen=True)
class CaffeLayer:
    """A layer that has learned something. For convolutions and inner products blobs are weights, then biases."""

    name: str
    blobs: tuple[Tensor, ...]


@dataclass(frozen=True)
class _Field:
    """One field of a message. `value` is the number of a varint; of the others, the bytes are [start, stop)."""

    number: int
    wire: int
    value: int
    start: int
    stop: int


class _Malformed(Exception):
    """What is wrong with a file; `position` is the byte."""

    def __init__(self, problem: str, position: int) -> None:
        super().__init__(f"{problem} at byte {position}")


def read_caffemodel(path: str | os.PathLike[str]) -> tuple[CaffeLayer, ...]:
    """The layers of a file that hold blobs, in the file's order; blobs are float32 on the CPU, in the shape the file
    gives them: [out, in, height, width] of a convolution; biases of older files are [1, 1, 1, out].

    Raises WeightsError, in one sentence, for anything that is not a sound Caffe model. A file that was cut off exactly
    between two layers is sound: whoever takes the layers must say which are missing.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise WeightsError(f"{path} is empty; copy or download it again")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                if data[:8] == b"\x89HDF\r\n\x1a\n":
                    raise WeightsError(f"{path} is Caffe's HDF5 form; save it with Net.save and import that")
                layers = tuple(_read_net(data))
    except OSError as error:
        raise WeightsError(f"cannot read {path} ({error.strerror}); check the path and its rights") from error
    except _Malformed as error:
        raise WeightsError(f"{path} is not a sound Caffe model: {error}; copy or download it again") from error
    if not layers:
        raise WeightsError(f"{path} holds no layer with weights; it may be a solver state, or not a Caffe model at all")
    return layers


def caffe_tensors(layers: tuple[CaffeLayer, ...]) -> dict[str, Tensor]:
    """Tensors by the names PyTorch would give them: blob 0 of layer conv1_1 is `conv1_1.weight`, blob 1 its `.bias`.

    Biases lose the ones in front that Caffe before 2015 put there. A third blob, as batch normalisation has, is
    `NAME.blob2`, and so on.
    """
    tensors = {}
    for layer in layers:
        for index, blob in enumerate(layer.blobs):
            if index == 1:
                while blob.ndim > 1 and blob.shape[0] == 1:
                    blob = blob[0]
            part = ("weight", "bias")[index] if index < 2 else f"blob{index}"
            tensors[f"{layer.name}.{part}"] = blob
    return tensors


def _read_net(data: mmap.mmap) -> Iterator[CaffeLayer]:
    """The layers with blobs of a NetParameter."""
    seen: set[str] = set()
    count = 0
    for field in _fields(data, 0, len(data)):
        if field.number not in (_NET_LAYER, _NET_LAYERS_V1):
            continue
        count += 1
        if count > _MAX_LAYERS:
            raise _Malformed(f"there are more than {_MAX_LAYERS} layers", field.start)
        layer = _read_layer(data, _message(field, "a layer"), first_version=field.number == _NET_LAYERS_V1)
        if not layer.blobs:
            continue
        if layer.name in seen:
            raise _Malformed(f"a second layer named {layer.name!r}", field.start)
        seen.add(layer.name)
        yield layer


def _read_layer(data: mmap.mmap, message: _Field, *, first_version: bool) -> CaffeLayer:
    """A LayerParameter, or the V1LayerParameter of files from before 2015."""
    name_number, blobs_number = (_V1_LAYER_NAME, _V1_LAYER_BLOBS) if first_version else (_LAYER_NAME, _LAYER_BLOBS)
    name = ""
    blobs: list[Tensor] = []
    for field in _fields(data, message.start, message.stop):
        if first_version and field.number == _V1_LAYER_V0:
            raise _Malformed("a layer of 2013, which Caffe's upgrade_net_proto_binary converts,", field.start)
        if field.number == name_number:
            name = _read_name(data, _message(field, "a layer's name"))
        elif field.number == blobs_number:
            if len(blobs) == _MAX_BLOBS:
                raise _Malformed(f"layer {name!r} has more than {_MAX_BLOBS} blobs", field.start)
            blobs.append(_read_blob(data, _message(field, "a blob")))
    if blobs and not name:
        raise _Malformed("a layer with blobs but no name", message.start)
    return CaffeLayer(name, tuple(blobs))


def _read_name(data: mmap.mmap, field: _Field) -> str:
    length = field.stop - field.start
    if length > _MAX_NAME:
        raise _Malformed(f"a layer's name of {length} bytes", field.start)
    try:
        name = data[field.start : field.stop].decode()
    except UnicodeDecodeError:
        name = "\0"
    if not name.isprintable():
        raise _Malformed("a layer's name that is not text", field.start)
    return name


def _read_blob(data: mmap.mmap, message: _Field) -> Tensor:
    """A BlobProto as float32, in its shape. Like Caffe, double_data goes before data."""
    values = {_BLOB_DATA: bytearray(), _BLOB_DOUBLE_DATA: bytearray()}
    legacy: dict[int, int] = {}
    shape: list[int] | None = None
    for field in _fields(data, message.start, message.stop):
        if field.number in _BLOB_LEGACY_DIMS:
            if field.wire != _VARINT:
                raise _Malformed(f"a blob's dimension has wire type {field.wire}", field.start)
            legacy[field.number] = field.value
        elif field.number == _BLOB_SHAPE:
            shape = (shape or []) + _read_shape(data, _message(field, "a blob's shape"))
        elif field.number in values:
            _append_values(values[field.number], data, field, 4 if field.number == _BLOB_DATA else 8)
    if shape is None:
        shape = [legacy.get(number, 0) for number in _BLOB_LEGACY_DIMS] if legacy else []
    doubles = values[_BLOB_DOUBLE_DATA]
    flat = np.frombuffer(doubles, "<f8").astype(np.float32) if doubles else np.frombuffer(values[_BLOB_DATA], "<f4")
    if len(shape) > _MAX_DIMS:
        raise _Malformed(f"a blob of {len(shape)} dimensions", message.start)
    if not flat.size or math.prod(shape) != flat.size:
        raise _Malformed(f"a blob of shape {shape} with {flat.size} values", message.start)
    return torch.from_numpy(flat).reshape(shape)


def _append_values(values: bytearray, data: mmap.mmap, field: _Field, width: int) -> None:
    """Add the little-endian numbers of a repeated field, be they packed or one by one."""
    if field.wire not in (_BYTES, _FIXED32 if width == 4 else _FIXED64) or (field.stop - field.start) % width:
        raise _Malformed(f"values of wire type {field.wire} in {field.stop - field.start} bytes", field.start)
    with memoryview(data) as view, view[field.start : field.stop] as part:
        values += part


def _read_shape(data: mmap.mmap, message: _Field) -> list[int]:
    """A BlobShape."""
    dims: list[int] = []
    for field in _fields(data, message.start, message.stop):
        if field.number != _SHAPE_DIM:
            continue
        position = field.start
        if field.wire == _VARINT:
            dims.append(field.value)
        elif field.wire == _BYTES:
            while position < field.stop and len(dims) <= _MAX_DIMS:
                value, position = _varint(data, position, field.stop)
                dims.append(value)
        else:
            raise _Malformed(f"a dimension has wire type {field.wire}", position)
        if len(dims) > _MAX_DIMS:
            raise _Malformed(f"a blob of more than {_MAX_DIMS} dimensions", position)
    return dims


def _message(field: _Field, what: str) -> _Field:
    if field.wire != _BYTES:
        raise _Malformed(f"{what} has wire type {field.wire} where it must be 2", field.start)
    return field


def _fields(data: mmap.mmap, start: int, stop: int) -> Iterator[_Field]:
    """The fields of the message in bytes [start, stop): each a key (number and wire type) and a value."""
    position = start
    while position < stop:
        begin = position
        key, position = _varint(data, position, stop)
        number, wire = key >> 3, key & 7
        if not 0 < number < 1 << 29:
            raise _Malformed(f"field number {number}", begin)
        value = length = 0
        if wire == _VARINT:
            value, position = _varint(data, position, stop)
        elif wire == _BYTES:
            length, position = _varint(data, position, stop)
        elif wire in (_FIXED32, _FIXED64):
            length = 4 if wire == _FIXED32 else 8
        else:
            raise _Malformed(f"wire type {wire}", begin)
        if length > stop - position:
            raise _Malformed(f"field {number} claims {length} bytes where {stop - position} are left", begin)
        yield _Field(number, wire, value, position, position + length)
        position += length


def _varint(data: mmap.mmap, position: int, stop: int) -> tuple[int, int]:
    """The number at `position`, seven bits a byte, lowest first, and where it ends. Negative ones come out huge."""
    value = 0
    for shift in range(0, 70, 7):
        if position == stop:
            raise _Malformed("the file or a part of it ends inside a number", position)
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise _Malformed("a number of more than ten bytes", position)
