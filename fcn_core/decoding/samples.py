"""Samples of any depth to the 0..255 that a network sees, and transparent pixels over white.

All work is done some rows at a time, so that little memory is needed beside the picture.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fcn_core.decoding.stored import Pixels

_SAMPLES_AT_ONCE = 1 << 20

Samples = npt.NDArray[Any]


def scaled(samples: Samples, bits: int) -> Pixels:
    """Unsigned integers of `bits` bits, [H, W, ...], to 0..255: times 255 / (2^bits - 1), rounded."""
    if samples.dtype == np.bool_:
        return samples.astype(np.uint8) * np.uint8(255)
    if bits == 8:
        return samples.astype(np.uint8, copy=False)
    return scaled_from(samples, (1 << bits) - 1)


def scaled_from(samples: Samples, most: int) -> Pixels:
    """Unsigned integers of which `most` is white, [H, W, ...], to 0..255, rounded."""
    result = np.empty(samples.shape, np.uint8)
    for rows in rows_of(samples):
        if most == 65535:
            result[rows] = (samples[rows].astype(np.uint32) + 128) // 257
        else:
            result[rows] = (samples[rows].astype(np.uint64) * 255 + most // 2) // most
    return result


def ranged(samples: Samples) -> Pixels:
    """Numbers whose range the file does not say, [H, W, ...], to 0..255.

    All in 0..255: taken as they are, but floats that all lie in 0..1 are multiplied by 255. Integers that all lie in
    0..65535 are divided by 257. Any other range is stretched from its smallest and largest value to 0..255. NaN counts
    as the smallest, infinities as the ends of the finite range.
    """
    low, high = finite_range(samples)
    is_float = samples.dtype.kind == "f"
    bottom, unit = 0.0, 1.0
    if low >= 0 and high <= 255:
        span = 1.0 if is_float and high <= 1 else 255.0
    elif low >= 0 and high <= 65535 and not is_float:
        span = 65535.0
    else:
        unit = 1.0 if np.isfinite(high - low) else 0.5  # the difference of two doubles may overflow
        bottom, span = low * unit, high * unit - low * unit
    result = np.empty(samples.shape, np.uint8)
    for rows in rows_of(samples):
        wide = samples[rows].astype(np.float64)
        wide = np.clip(np.nan_to_num(wide, nan=low, posinf=high, neginf=low), low, high)
        wide = (wide * unit - bottom) / span * 255 if span > 0 else np.zeros_like(wide)
        result[rows] = np.floor(wide + 0.5).clip(0, 255)
    return result


def grey(values: Pixels) -> Pixels:
    """[H, W] to [H, W, 3]."""
    return np.repeat(values[:, :, np.newaxis], 3, axis=2)


def over_white(colors: Pixels, alpha: Pixels, *, premultiplied: bool = False) -> Pixels:
    """uint8 [H, W, C] with alpha, uint8 [H, W], laid over white."""
    if (alpha == 255).all():
        return colors
    result = np.empty(colors.shape, np.uint8)
    for rows in rows_of(colors):
        opaque = alpha[rows].astype(np.uint16)[:, :, np.newaxis]
        part = colors[rows].astype(np.uint16)
        if premultiplied:
            result[rows] = np.minimum(part + (255 - opaque), 255)
        else:
            result[rows] = (part * opaque + (255 - opaque) * np.uint16(255) + 127) // 255
    return result


def finite_range(samples: Samples) -> tuple[float, float]:
    """The smallest and the largest finite value; (0, 0) if there is none."""
    low, high = np.inf, -np.inf
    for rows in rows_of(samples):
        part = samples[rows]
        if part.dtype.kind == "f":
            part = part[np.isfinite(part)]
        if part.size:
            low, high = min(low, float(part.min())), max(high, float(part.max()))
    return (low, high) if low <= high else (0.0, 0.0)


def rows_of(samples: Samples) -> Iterator[slice]:
    """Slices of rows that are together all of them, each of about a million samples."""
    height = samples.shape[0]
    step = max(1, _SAMPLES_AT_ONCE // max(1, samples[0].size)) if height else 1
    for top in range(0, height, step):
        yield slice(top, top + step)
