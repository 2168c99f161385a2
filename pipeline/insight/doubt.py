"""How much a model doubts one image's annotation: where it confidently sees another class, beyond thin edges.

Everything happens on a grid of at most GRID pixels a side, so that an image costs the same whatever its size.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from fcn_core.inference.argmax import logit_strips
from fcn_core.labels import Mask
from fcn_core.models.upsampling import Upsampling

GRID = 512
LEAST_MARGIN = 0.3
"""By how much the probability of the class that the model sees must exceed that of the annotated one."""
_EDGE = 200
"""A grid of so many pixels has edges of one pixel that do not count: nobody draws them more exactly."""


@dataclass(frozen=True, slots=True)
class PairDoubt:
    """Pixels annotated as one class that the model sees as another.

    `mass`: the sum of the margins, in pixels of the grid. `box`: (left, top, right, bottom) of nearly all of it, as
    fractions 0..1 of the image's sides.
    """

    annotated: int
    seen: int
    mass: float
    box: tuple[float, float, float, float]


@dataclass(frozen=True, eq=False)
class Doubt:
    """One image. `labelled`: int64 [num_classes], annotated pixels of the grid by class. `pairs`: none has mass 0."""

    labelled: npt.NDArray[np.int64]
    pairs: tuple[PairDoubt, ...]


def doubt(
    annotation: Mask, seen: Mask, probabilities: npt.NDArray[np.float32], upsampling: Upsampling, num_classes: int
) -> Doubt:
    """Compare an annotation, uint8 [H, W], with what a model sees.

    `seen`: its mask, uint8 [H, W]. `probabilities`: float32 [num_classes, h, w] at its stride, and `upsampling` from
    there to the image.
    """
    height, width = annotation.shape
    factor = min(1.0, GRID / max(height, width))
    rows, columns = (max(1, round(side * factor)) for side in (height, width))
    there = np.ix_(_middles(height, rows), _middles(width, columns))
    ours, theirs = annotation[there], seen[there]
    labelled = ours < num_classes
    margins = np.zeros((rows, columns), np.float32)
    for start, stop, strip in logit_strips(torch.from_numpy(probabilities), upsampling.stretched(rows, columns)):
        own = torch.from_numpy(np.where(labelled, ours, 0)[start:stop].astype(np.int64))[..., None]
        other = torch.from_numpy(theirs[start:stop].astype(np.int64))[..., None]
        margins[start:stop] = (strip.gather(2, other) - strip.gather(2, own))[..., 0].numpy()
    differs = labelled & (ours != theirs) & (margins >= LEAST_MARGIN)
    weights = np.where(_without_edges(differs, max(1, max(rows, columns) // _EDGE)), margins, 0)
    counts = np.bincount(ours.ravel(), minlength=256)[:num_classes].astype(np.int64)
    pairs = []
    codes = ours.astype(np.int64) * num_classes + theirs
    for code in np.unique(codes[weights > 0]).tolist():
        mass = np.where(codes == code, weights, 0)
        box = _extent(mass.sum(axis=1), mass.sum(axis=0))
        pairs.append(PairDoubt(code // num_classes, code % num_classes, float(mass.sum()), box))
    return Doubt(counts, tuple(pairs))


def _middles(pixels: int, cells: int) -> npt.NDArray[np.intp]:
    """The pixel in the middle of each of so many cells along a side."""
    return ((np.arange(cells) + 0.5) * pixels / cells).astype(np.intp)


def _without_edges(there: npt.NDArray[np.bool_], radius: int) -> npt.NDArray[np.bool_]:
    """A morphological opening by a square: what is thinner than 2 * radius + 1 goes."""
    side = 2 * radius + 1
    bits = torch.from_numpy(there)[None, None].float()
    eroded = -F.max_pool2d(-bits, side, 1, radius)
    opened: npt.NDArray[np.bool_] = F.max_pool2d(eroded, side, 1, radius)[0, 0].numpy() > 0
    return opened & there


def _extent(by_row: npt.NDArray[np.float32], by_column: npt.NDArray[np.float32]) -> tuple[float, float, float, float]:
    def ends(sums: npt.NDArray[np.float32]) -> tuple[float, float]:
        share = np.cumsum(sums) / sums.sum()
        first, last = np.searchsorted(share, (0.02, 0.98))
        return float(first / len(sums)), float(min(last + 1, len(sums)) / len(sums))

    (left, right), (top, bottom) = ends(by_column), ends(by_row)
    return left, top, right, bottom
