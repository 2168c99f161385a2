"""The run lengths of all classes of a mask, as COCO writes them; `pipeline.data.annotations.coco_rle` and pycocotools
read them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fcn_core.labels import VOID, Mask


@dataclass(frozen=True, slots=True)
class EncodedRegion:
    """All pixels of one class. `counts` is COCO's compressed text, `area` in pixels, `box` is x, y, width, height."""

    class_id: int
    counts: str
    area: int
    box: tuple[int, int, int, int]


def encode_regions(mask: Mask, min_area: int = 0) -> Iterator[EncodedRegion]:
    """The classes of a mask, uint8 [H, W], of at least `min_area` pixels; pixels without a class are none.

    Runs go down the columns, and the first one is of other pixels.
    """
    height = mask.shape[0]
    flat = mask.T.reshape(-1)
    begins = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    ends = np.append(begins[1:], len(flat))
    classes = flat[begins]
    for class_id in np.flatnonzero(np.bincount(classes, minlength=256)).tolist():
        of_class = classes == class_id
        first, last = begins[of_class], ends[of_class] - 1
        area = int((last - first + 1).sum())
        if class_id == VOID or area < min_area:
            continue
        changes = np.stack([first, last + 1], axis=1).reshape(-1)
        runs = np.diff(changes, prepend=0, append=len(flat))
        counts = _text(runs[:-1] if runs[-1] == 0 else runs)
        yield EncodedRegion(class_id, counts, area, _box(first, last, height))


def _box(first: npt.NDArray[np.int64], last: npt.NDArray[np.int64], height: int) -> tuple[int, int, int, int]:
    left, right = int(first[0] // height), int(last[-1] // height)
    if (first // height != last // height).any():  # a run over the end of a column has its last row, and the first
        return left, 0, right - left + 1, height
    top, bottom = int((first % height).min()), int((last % height).max())
    return left, top, right - left + 1, bottom - top + 1


def _text(runs: npt.NDArray[np.int64]) -> str:
    """A number in groups of five bits, lowest first; each from the fourth on as the difference to the one before the
    last (`rleToString` in pycocotools' maskApi.c)."""
    differences = runs.copy()
    differences[3:] -= runs[1:-2]
    text = bytearray()
    for value in differences.tolist():
        while True:
            group = value & 31
            value >>= 5
            is_last = value == (-1 if group & 16 else 0)
            text.append(48 + (group if is_last else group | 32))
            if is_last:
                break
    return text.decode()
