"""Images that are in two splits: the same pixels, and what looks nearly the same.

The one thing to know: a look is an image shrunk to 17 x 17 cells, and two looks are compared by their correlation,
which compression, size, brightness and a few cropped pixels hardly change. Copies of CamVid's images so treated have
0.97 to 0.9999 with their originals; of its 367 x 101 pairs of training and validation images none has more than 0.93.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image

from fcn_core.trained_on import pixel_digest

CELLS = 17
NEAR = 0.98
"""The correlation from which on two images count as nearly the same."""

FAINT = 4.0
"""Standard deviation of the cells, in grey levels, below which an image has no look: noise would decide."""

MOST_PAIRS = 200_000_000
"""Of looks that are compared, which takes minutes; in larger splits only the same pixels are found."""

_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class Fingerprint:
    """What an image is told by. `plain`: it has one colour only. `cells`: uint8 [CELLS, CELLS, 3], None where they are
    all alike."""

    pixels: bytes
    plain: bool
    cells: npt.NDArray[np.uint8] | None


def fingerprint(image: npt.NDArray[np.uint8]) -> Fingerprint:
    """Of an image uint8 [H, W, 3]."""
    plain = bool((image == image[:1, :1]).all())
    cells = np.asarray(Image.fromarray(image).resize((CELLS, CELLS), Image.Resampling.BOX))
    return Fingerprint(pixel_digest(image), plain, cells if cells.std() >= FAINT else None)


@dataclass
class Looks:
    """The looks of a split's images, by name."""

    names: list[str] = field(default_factory=list)
    cells: list[npt.NDArray[np.uint8]] = field(default_factory=list)

    def add(self, name: str, seen: Fingerprint) -> None:
        if seen.cells is not None:
            self.names.append(name)
            self.cells.append(seen.cells)

    def can_be_compared(self, other: "Looks") -> bool:
        """Whether that takes no longer than it is worth."""
        return len(self.names) * len(other.names) <= MOST_PAIRS

    def near(self, other: "Looks") -> list[tuple[str, str]]:
        """Each name here that looks like one of `other`, also mirrored or turned, and the one that it is most like."""
        if not self.names or not other.names:
            return []
        theirs = _normalized(np.stack(other.cells))
        likeness = np.zeros(len(self.names), np.float32)
        nearest = np.zeros(len(self.names), np.intp)
        for seen in _turned(np.stack(self.cells)):
            mine = _normalized(seen)
            rows = max(1, _AT_ONCE // len(theirs))
            for first in range(0, len(mine), rows):
                correlation = mine[first : first + rows] @ theirs.T
                place, best = correlation.argmax(axis=1), correlation.max(axis=1)
                span = slice(first, first + len(best))
                nearest[span] = np.where(best > likeness[span], place, nearest[span])
                likeness[span] = np.maximum(best, likeness[span])
        return [(self.names[i], other.names[nearest[i]]) for i in np.flatnonzero(likeness >= NEAR)]


def _turned(cells: npt.NDArray[np.uint8]) -> Iterator[npt.NDArray[np.uint8]]:
    """All eight ways to turn and mirror [N, CELLS, CELLS, 3]."""
    for each in (cells, cells[:, :, ::-1]):
        for quarter_turns in range(4):
            yield np.rot90(each, quarter_turns, axes=(1, 2))


def _normalized(cells: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """float32 [N, values], of mean 0 and length 1: products are correlations."""
    values = cells.reshape(len(cells), -1).astype(np.float32)
    values -= values.mean(axis=1, keepdims=True)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return values
