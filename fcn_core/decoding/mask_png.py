"""Class indices to a palette PNG. `fcn_core.labels.encode_mask` is what to call.

This is apart from label sets so that a process that does nothing but this starts without pydantic.
"""

import io
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from fcn_core.errors import LabelError


@dataclass(frozen=True, slots=True)
class MaskStyle:
    """All that writing a mask takes of a label set. palette: 256 times R, G, B."""

    labels: str
    num_classes: int
    ignore_index: int
    palette: bytes


def encode(mask: npt.NDArray[np.uint8], style: MaskStyle) -> bytes:
    """See `fcn_core.labels.encode_mask`."""
    if mask.dtype != np.uint8 or mask.ndim != 2 or mask.size == 0:
        raise LabelError(
            f"a mask must be a non-empty uint8 array [H, W] of class indices, not {mask.dtype} {list(mask.shape)}"
        )
    if int(mask.max()) >= style.num_classes:  # cheap test first: a predicted mask never holds anything above
        present = np.flatnonzero(np.bincount(mask.ravel(), minlength=256))
        unknown = [int(v) for v in present if v >= style.num_classes and v != style.ignore_index]
        if unknown:
            raise LabelError(
                f"the mask holds {unknown[:5]}, but label set {style.labels!r} has classes"
                f" 0..{style.num_classes - 1} and ignore index {style.ignore_index};"
                " use the label set the mask was made with"
            )
    image = Image.fromarray(np.ascontiguousarray(mask))
    image.putpalette(style.palette)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return buffer.getvalue()
