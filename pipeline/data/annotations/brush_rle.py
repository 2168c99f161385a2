"""Label Studio's run-length code of a brush mask (the rle-pack format of @thi.ng/rle-pack, as its converter writes it).

A bit stream, most significant bit first: the number of values in 32 bits, the bits of a value less one in 5, four run
sizes less one in 4 each; then runs: a 1, which of the four sizes in 2 bits, the length less one in that size, and the
value. The values are those of an RGBA picture, four a pixel, row by row. A 0 instead of the 1 begins a list of unequal
values, which is read, and not written: a mask has no use for it.
"""

import numpy as np
import numpy.typing as npt

from pipeline.data.annotations.regions import Bits, RegionError

_RUN_BITS = (3, 4, 8, 16)
_VALUE_BITS = 8
_LONGEST = 1 << _RUN_BITS[-1]
_HEADER_BITS = 32 + 5 + 4 * 4
_64_BITS = (1 << 64) - 1


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


def decode_brush(code: object, height: int, width: int) -> Bits:
    """The mask that Label Studio's `value.rle` stands for, bool [height, width]: where the picture is not transparent.

    Raises RegionError for a code that is damaged, or of another number of pixels.
    """
    data = _bytes(code)
    stream = int.from_bytes(data[:8].ljust(8, b"\0"), "big")
    total, value_bits = stream >> 32, (stream >> 27 & 31) + 1
    sizes = [(stream >> shift & 15) + 1 for shift in (23, 19, 15, 11)]
    if value_bits != _VALUE_BITS or len(data) < 8:
        raise RegionError("the run-length code of a brush mask is damaged")
    if total != 4 * height * width:
        raise RegionError(f"a brush mask has {total // 4:,} pixels, its image {height * width:,}")
    bits = np.unpackbits(np.frombuffer(data, np.uint8))
    values = np.zeros(total, np.uint8)
    padded = data + bytes(8)
    place, done = _HEADER_BITS, 0
    while done < total:
        if place + 3 > len(bits):
            raise RegionError("the run-length code of a brush mask is cut short")
        # A flag, the size of the length, the length and one value are at most 27 bits.
        window = int.from_bytes(padded[place >> 3 : (place >> 3) + 8], "big") << (place & 7) & _64_BITS
        is_run, size = window >> 63, sizes[window >> 61 & 3]
        length = (window >> (61 - size) & ((1 << size) - 1)) + 1
        place += 3 + size
        count = 1 if is_run else length
        if done + length > total or place + count * _VALUE_BITS > len(bits):
            raise RegionError("the run-length code of a brush mask is damaged")
        values[done : done + length] = np.packbits(bits[place : place + count * _VALUE_BITS])
        place += count * _VALUE_BITS
        done += length
    return values[3::4].reshape(height, width) > 0


def _bytes(code: object) -> bytes:
    if not isinstance(code, list):
        raise RegionError("a brush mask has no run-length code")
    try:
        return bytes(code)
    except (ValueError, TypeError) as error:
        raise RegionError("the run-length code of a brush mask is no list of bytes") from error
