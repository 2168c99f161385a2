"""Whether a mask was drawn on an image as it is displayed, or as its file stores it, where EXIF makes these two.

Where the sizes do not tell (turned by 180 degrees, mirrored, or square), the edges do: classes mostly change where the
image does.
"""

import numpy as np
import numpy.typing as npt

from fcn_core.decoding import turned

_CLEARLY = 1.2
"""How much steeper the image must be under the one outline than under the other."""


def fits_better_turned(
    image: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8], orientation: int, ignore_index: int
) -> bool:
    """`image`: uint8 [H, W, 3] as displayed; `mask`: uint8 [H, W] as stored; `orientation`: the image's, from EXIF.

    True if the mask, turned as the image was, lies clearly better on it than the mask as it is.
    """
    other = turned(mask, orientation)
    if other.shape != mask.shape or np.array_equal(other, mask):
        return False
    slopes = _slopes(image)
    as_it_is, as_turned = (_steepness(slopes, each, ignore_index) for each in (mask, other))
    return as_turned > _CLEARLY * as_it_is


def _slopes(image: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """How much neighbouring pixels differ: below each other [H - 1, W], and beside each other [H, W - 1]."""
    grey = image.astype(np.float32).mean(axis=2)
    return np.abs(np.diff(grey, axis=0)), np.abs(np.diff(grey, axis=1))


def _steepness(
    slopes: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]], mask: npt.NDArray[np.uint8], ignore_index: int
) -> float:
    """The mean slope where the class changes; 0 where it never does."""
    total, count = 0.0, 0
    for axis, slope in enumerate(slopes):
        first, second = (np.take(mask, index, axis) for index in _neighbours(mask.shape[axis]))
        changes = (first != second) & (first != ignore_index) & (second != ignore_index)
        total += float(slope[changes].sum())
        count += int(changes.sum())
    return total / count if count else 0.0


def _neighbours(length: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    return np.arange(length - 1), np.arange(1, length)
