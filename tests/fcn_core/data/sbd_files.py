"""MATLAB files like those of SBD, after the format's description: level 5, packed or plain, either byte order."""

import struct
import zlib

import numpy as np
import numpy.typing as npt


def sbd_file(
    mask: npt.NDArray[np.generic], *, packed: bool = True, order: str = "<", field: str = "Segmentation"
) -> bytes:
    """GTcls with Boundaries (something to skip), `field` and CategoriesPresent."""

    def element(kind: int, content: bytes) -> bytes:
        if 0 < len(content) <= 4:
            return struct.pack(order + "I", len(content) << 16 | kind) + content.ljust(4, b"\0")
        return struct.pack(order + "II", kind, len(content)) + content + b"\0" * (-len(content) % 8)

    def array(array_class: int, shape: tuple[int, ...], name: str, *parts: bytes) -> bytes:
        flags = element(6, struct.pack(order + "II", array_class, 0))
        dimensions = element(5, struct.pack(f"{order}{len(shape)}i", *shape))
        return element(14, flags + dimensions + element(1, name.encode()) + b"".join(parts))

    kinds = {"u1": (9, 2), "u2": (11, 4), "f8": (6, 9)}
    array_class, kind = kinds[mask.dtype.str[1:]]
    content = mask.astype(mask.dtype.newbyteorder(order)).tobytes(order="F")
    names = ("Boundaries", field, "CategoriesPresent")
    fields = (
        array(6, (2, 1), "", element(9, struct.pack(order + "2d", 1, 2))),
        array(array_class, mask.shape, "", element(kind, content)),
        array(9, (1, 1), "", element(2, b"\7")),
    )
    text = b"".join(name.encode().ljust(32, b"\0") for name in names)
    body = array(2, (1, 1), "GTcls", element(5, struct.pack(order + "i", 32)), element(1, text), *fields)
    if packed:
        deflated = zlib.compress(body)
        body = struct.pack(order + "II", 15, len(deflated)) + deflated
    header = b"MATLAB 5.0 MAT-file, Platform: GLNXA64".ljust(124)
    return header + struct.pack(order + "H", 0x0100) + (b"IM" if order == "<" else b"MI") + body
