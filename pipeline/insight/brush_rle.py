"""Label Studio's run-length code of a brush mask (the rle-pack format of @thi.ng/rle-pack, as its converter writes it).

A bit stream, most significant bit first: the number of values in 32 bits, the bits of a value less one in 5, four run
sizes less one in 4 each; then runs: a 1, which of the four sizes in 2 bits, the length less one in that size, and the
value. The values are those of an RGBA picture, four a pixel, row by row. (A 0 instead of the 1 would begin a list of
unequal values, which a mask has no use for.)
"""

import numpy as np
import numpy.typing as npt

_RUN_BITS = (3, 4, 8, 16)
_VALUE_BITS = 8
_LONGEST = 1 << _RUN_BITS[-1]


def encode_brush(mask: npt.NDArray[np.bool_]) -> list[int]:
    """The bytes that stand for `mask`, bool [H, W], in Label Studio's `value.rle`. H x W is below 2**30."""
    ends = np.append(np.flatnonzero(np.diff(mask.ravel())), mask.size - 1)
    lengths = 4 * np.diff(ends, prepend=-1)  # four equal values per pixel
    values = np.where(mask.ravel()[ends], 255, 0)
    # Runs too long for 16 bits become several.
    pieces = -(-lengths // _LONGEST)
    values = np.repeat(values, pieces)
    last = np.cumsum(pieces) - 1
    parts = np.full(int(pieces.sum()), _LONGEST)
    parts[last] = lengths - (pieces - 1) * _LONGEST

    size = np.searchsorted([1 << bits for bits in _RUN_BITS], parts)  # the smallest that holds the length
    bits = np.array(_RUN_BITS)[size]
    codes = (((((1 << 2) | size) << bits) | (parts - 1)) << _VALUE_BITS) | values
    widths = 3 + bits + _VALUE_BITS
    header = f"{4 * mask.size:032b}{_VALUE_BITS - 1:05b}" + "".join(f"{bits - 1:04b}" for bits in _RUN_BITS)
    starts = len(header) + np.cumsum(widths) - widths
    stream = np.zeros(len(header) + int(widths.sum()), np.uint8)
    stream[: len(header)] = np.frombuffer(header.encode(), np.uint8) - ord("0")
    for place in range(int(widths.max())):
        there = widths > place
        stream[starts[there] + place] = codes[there] >> (widths[there] - 1 - place) & 1
    return np.packbits(stream).tolist()
