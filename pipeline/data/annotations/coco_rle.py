"""COCO's run lengths of a mask, as a list or as its compressed text.

Runs go down the columns, the first one is of zeros. The text holds numbers in groups of five bits, lowest first, each
from the third on as the difference to the one before the last. pycocotools reads the same, but its decoder takes the
runs' sum on trust.
"""

import numpy as np

from pipeline.data.annotations.regions import Bits, RegionError


def decode_rle(value: object, height: int, width: int) -> Bits:
    """bool [height, width] of {"size": [h, w], "counts": ...}. Raises RegionError for runs of another size."""
    if not isinstance(value, dict):
        raise RegionError("a run-length mask is no object")
    size = value.get("size")
    if size != [height, width]:
        turned = ", turned" if size == [width, height] else ""
        raise RegionError(f"a run-length mask is of another size than its image ({_shown(size)}{turned})")
    counts = value.get("counts")
    if isinstance(counts, str):
        runs = _compressed(counts, height * width)
    elif isinstance(counts, list):
        if not all(type(run) is int and run >= 0 for run in counts):
            raise RegionError("a run-length mask has runs that are no lengths")
        runs = counts
    else:
        raise RegionError("a run-length mask has no counts")
    if sum(runs) != height * width:
        raise RegionError(f"the runs of a mask are of {sum(runs):,} pixels, its image has {height * width:,}")
    bits = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return np.ascontiguousarray(bits.reshape(width, height).T)


def _compressed(text: str, pixels: int) -> list[int]:
    runs: list[int] = []
    total = number = shift = 0
    for char in text:
        code = ord(char) - 48
        if not 0 <= code < 64 or shift > 35:
            raise RegionError("the run-length code of a mask is damaged")
        number |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            number -= 1 << shift
        if len(runs) > 2:
            number += runs[-2]
        total += number
        if number < 0 or total > pixels:
            raise RegionError(f"the runs of a mask do not fit the {pixels:,} pixels of its image")
        runs.append(number)
        number = shift = 0
    if shift:
        raise RegionError("the run-length code of a mask is cut short")
    return runs


def _shown(size: object) -> str:
    if isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) for side in size):
        return f"{str(size[1])[:12]}x{str(size[0])[:12]}"
    return "no size"
