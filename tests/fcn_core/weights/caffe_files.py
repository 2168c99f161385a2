"""A writer of Caffe models for the tests, after caffe.proto and the wire format. It shares nothing with the reader."""

import struct
from collections.abc import Mapping, Sequence
from typing import Literal

import torch

Style = Literal["v2", "v1"]


def varint(value: int) -> bytes:
    out = b""
    while True:
        value, low = value >> 7, value & 127
        if not value:
            return out + bytes([low])
        out += bytes([low | 128])


def field(number: int, wire: int, payload: bytes) -> bytes:
    """A field with its payload as it stands; of wire type 2, with its length before it."""
    return varint(number << 3 | wire) + (varint(len(payload)) if wire == 2 else b"") + payload


def blob(
    tensor: torch.Tensor, *, legacy: bool = False, packed: bool = True, double: bool = False, pad_to_4d: bool = False
) -> bytes:
    """A BlobProto, with `shape`, or with num, channels, height and width as before 2015."""
    dims: Sequence[int] = tuple(tensor.shape)
    if legacy or pad_to_4d:
        dims = (1,) * (4 - len(dims)) + tuple(dims)
    if legacy:
        head = b"".join(field(index + 1, 0, varint(dim)) for index, dim in enumerate(dims))
    else:
        head = field(7, 2, field(1, 2, b"".join(varint(dim) for dim in dims)))
    number, wire, code = (8, 1, "<d") if double else (5, 5, "<f")
    values = [struct.pack(code, value) for value in tensor.flatten().tolist()]
    if packed:
        return head + field(number, 2, b"".join(values))
    return head + b"".join(field(number, wire, value) for value in values)


def raw_blob(tensor: torch.Tensor) -> bytes:
    """A BlobProto of a large tensor, quickly: packed float32, shape as a message of unpacked dims."""
    shape = b"".join(field(1, 0, varint(dim)) for dim in tensor.shape)
    return field(7, 2, shape) + field(5, 2, tensor.contiguous().numpy().astype("<f4").tobytes())


def bytes_blob(dims: bytes, values: bytes) -> bytes:
    """A BlobProto with these packed dimensions and float32 values, sensible or not."""
    return field(7, 2, field(1, 2, dims)) + field(5, 2, values)


def layer(name: str, kind: str | int, blobs: Sequence[bytes], style: Style = "v2") -> bytes:
    """A LayerParameter (`kind` is a string) or V1LayerParameter (`kind` is an enum's number) as a field of the net."""
    if style == "v2":
        body = field(1, 2, name.encode()) + field(2, 2, str(kind).encode()) + field(3, 2, b"data")
        body += field(10, 0, varint(1)) + b"".join(field(7, 2, content) for content in blobs)
        return field(100, 2, body)
    body = (
        field(2, 2, b"data") + field(3, 2, name.encode()) + field(4, 2, name.encode()) + field(5, 0, varint(int(kind)))
    )
    body += b"".join(field(6, 2, content) for content in blobs) + field(7, 5, struct.pack("<f", 1.0))
    return field(2, 2, body)


def net(layers: Sequence[bytes]) -> bytes:
    """A NetParameter: its name, its input, and the layers, among them one without weights."""
    data = layer("data", "Input", [])
    return field(1, 2, b"a net") + field(3, 2, b"data") + field(4, 0, varint(1)) + data + b"".join(layers)


def model_file(state: Mapping[str, torch.Tensor], *, legacy_biases: bool = False) -> bytes:
    """A Caffe model with these tensors, named layer.weight and layer.bias (or .scale), layers in this order.

    `legacy_biases` writes them in the shape [1, 1, 1, n].
    """
    layers: dict[str, list[bytes]] = {}
    for name, tensor in state.items():
        layer_name, part = name.rsplit(".", 1)
        if legacy_biases and part == "bias":
            tensor = tensor.reshape(1, 1, 1, -1)
        layers.setdefault(layer_name, []).append(raw_blob(tensor))
    return net([layer(name, "Convolution", blobs) for name, blobs in layers.items()])
