"""Target: the reader of `.caffemodel` files. Whole layers come out, or a WeightsError of one line."""

import os
from collections.abc import Iterable

import torch

from fcn_core.errors import WeightsError
from fcn_core.weights.caffemodel import caffe_tensors, read_caffemodel
from tests.fcn_core.weights.caffe_files import blob, field, layer, net, varint

MEMORY_MB = 1024

_file = os.memfd_create("fuzzed.caffemodel")
_path = f"/proc/self/fd/{_file}"


def seeds() -> Iterable[bytes]:
    weight, bias = torch.arange(6.0).reshape(2, 3, 1, 1), torch.arange(2.0)
    for style, kind in (("v2", "Convolution"), ("v1", 4)):
        for legacy in (False, True):
            for packed in (False, True):
                blobs = [blob(tensor, legacy=legacy, packed=packed, double=legacy) for tensor in (weight, bias)]
                yield net([layer("conv", kind, blobs, style), layer("relu", kind, [], style)])  # type: ignore[arg-type]
    yield field(100, 2, field(7, 0, varint(7)))
    yield net([layer("x", "y", [field(7, 2, field(1, 5, bytes(4))) + field(5, 2, bytes(4))])])


def check(data: bytes) -> None:
    os.ftruncate(_file, 0)
    os.pwrite(_file, data, 0)
    try:
        layers = read_caffemodel(_path)
    except WeightsError as error:
        refusal = str(error)
    else:
        assert all(entry.name and entry.blobs for entry in layers)
        assert sum(tensor.numel() for entry in layers for tensor in entry.blobs) <= len(data)
        assert len(caffe_tensors(layers)) == sum(len(entry.blobs) for entry in layers)
        return
    assert "\n" not in refusal
