"""The class mask inside a MATLAB file of the Semantic Boundaries Dataset (SBD), read without MATLAB or SciPy.

SBD's `cls/<name>.mat` is a MAT-file of level 5: a struct `GTcls` whose field `Segmentation` is the mask, uint8
[H, W] of VOC's class indices. Only as much of the format is understood as leads there; nothing is executed. Source:
MathWorks, "MAT-File Format", level 5.
"""

import struct
import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from fcn_core.errors import LabelError

MAGIC = b"MATLAB 5.0 MAT-file"

_HEADER = 128
_INT8, _UINT8, _INT32, _UINT32, _MATRIX, _COMPRESSED = 1, 2, 5, 6, 14, 15
_STRUCT_CLASS, _UINT8_CLASS = 2, 9
_LARGEST = 1 << 28
"""Bytes that an element may unpack to; a mask with its outlines is a hundredth of that."""


class _NotThere(Exception):
    """The file is cut short, or not of the form that SBD has."""


def read_sbd_mask(data: bytes) -> npt.NDArray[np.uint8]:
    """`GTcls.Segmentation` of an SBD file: uint8 [H, W] of class indices, not yet compared with a label set.

    Raises LabelError for any other file.
    """
    try:
        if not data.startswith(MAGIC):
            raise _NotThere("it does not begin like a MAT-file of level 5")
        order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
        if order is None:
            raise _NotThere("its header is damaged")
        for kind, content in _elements(data[_HEADER:], order):
            if kind == _COMPRESSED:
                kind, content = next(_elements(_unpack(content), order), (0, b""))
            if kind == _MATRIX:
                return _field(content, "GTcls", "Segmentation", order)
        raise _NotThere("it holds no variable")
    except (_NotThere, struct.error, zlib.error, UnicodeDecodeError, StopIteration) as error:
        raise LabelError(
            f"the mask is a MATLAB file without a readable GTcls.Segmentation ({error}); copy it from SBD again, or "
            "save the mask as a PNG"
        ) from error


def _unpack(content: bytes) -> bytes:
    worker = zlib.decompressobj()
    plain = worker.decompress(content, _LARGEST)
    if worker.unconsumed_tail:
        raise _NotThere("an array of it is far too large")
    return plain


def _elements(data: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    """Type and content of the elements that follow one another in `data`."""
    at = 0
    while at + 8 <= len(data):
        (word,) = struct.unpack_from(order + "I", data, at)
        if word >> 16:  # a small element: size and type share one word, the content fits the next
            kind, size, begin = word & 0xFFFF, word >> 16, at + 4
            at += 8
        else:
            kind, (size,), begin = word, struct.unpack_from(order + "I", data, at + 4), at + 8
            # Compressed elements are not padded to eight bytes, all others are.
            at = begin + (size if kind == _COMPRESSED else -(-size // 8) * 8)
        if begin + size > len(data):
            raise _NotThere("it ends too early")
        yield kind, data[begin : begin + size]


def _field(matrix: bytes, variable: str, field: str, order: str) -> npt.NDArray[np.uint8]:
    parts = _elements(matrix, order)
    array_class, shape, name = _array_header(parts, order)
    if name != variable or array_class != _STRUCT_CLASS or shape != (1, 1):
        raise _NotThere(f"its variable {name!r} is not the struct {variable}")
    _, length = next(parts)
    (width,) = struct.unpack(order + "i", length)
    _, names = next(parts)
    if width < 1:
        raise _NotThere("its field names are damaged")
    fields = [names[at : at + width].split(b"\0")[0].decode("ascii") for at in range(0, len(names), width)]
    for found, (kind, content) in zip(fields, parts, strict=False):
        if found == field and kind == _MATRIX:
            return _uint8_array(content, order)
    raise _NotThere(f"{variable} has no field {field}")


def _uint8_array(matrix: bytes, order: str) -> npt.NDArray[np.uint8]:
    parts = _elements(matrix, order)
    array_class, shape, _ = _array_header(parts, order)
    kind, content = next(parts)
    if array_class != _UINT8_CLASS or kind != _UINT8 or len(shape) != 2:
        raise _NotThere("the mask is no uint8 array of two dimensions")
    if min(shape) < 1 or len(content) != shape[0] * shape[1]:
        raise _NotThere("the mask is empty or cut short")
    # MATLAB stores column after column.
    return np.ascontiguousarray(np.frombuffer(content, np.uint8).reshape(shape, order="F"))


def _array_header(parts: Iterator[tuple[int, bytes]], order: str) -> tuple[int, tuple[int, ...], str]:
    """Class, dimensions and name of an array, the three elements that every array begins with."""
    (flags_kind, flags), (shape_kind, shape), (name_kind, name) = next(parts), next(parts), next(parts)
    if (flags_kind, shape_kind, name_kind) != (_UINT32, _INT32, _INT8) or len(shape) % 4:
        raise _NotThere("an array of it has a damaged header")
    (word,) = struct.unpack_from(order + "I", flags)
    return word & 0xFF, struct.unpack(f"{order}{len(shape) // 4}i", shape), name.decode("ascii")
