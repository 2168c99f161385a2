"""A part with holes as one ring, for formats that have no holes: a cut of no width leads to each, there and back.

A filled ring is then the part without its holes, by the even-odd rule and by the winding rule. The cut runs level to
the left, through the part alone.
"""

import numpy as np
import numpy.typing as npt

from pipeline.exports.shapes.outlines import Part

Points = npt.NDArray[np.float64]


def one_ring(part: Part) -> Points:
    """float64 [N, 2] (x, y), not closed: the outer ring with cuts to all holes."""
    ring: Points = part.outer.astype(np.float64)
    # Whatever lies left of a hole is in the ring already.
    for hole in sorted((hole.astype(np.float64) for hole in part.holes), key=lambda points: float(points[:, 0].min())):
        leftmost = int(np.lexsort((hole[:, 1], hole[:, 0]))[0])
        hole = np.roll(hole, -leftmost, axis=0)
        after, end = _cut(ring, hole[0])
        ring = np.concatenate([ring[: after + 1], end[None], hole, hole[:1], end[None], ring[after + 1 :]])
    return ring[np.any(ring != np.roll(ring, 1, axis=0), axis=1)]


def _cut(ring: Points, start: Points) -> tuple[int, Points]:
    """Where a cut to the left from `start` ends: on the edge after which point of the ring, and at what point."""
    x, y = start
    ends = np.roll(ring, -1, axis=0)
    rise = ends[:, 1] - ring[:, 1]
    is_level = rise == 0
    share = np.divide(y - ring[:, 1], rise, out=np.zeros(len(ring)), where=~is_level)
    at = ring[:, 0] + share * (ends[:, 0] - ring[:, 0])
    at = np.where(is_level, np.minimum(np.maximum(ring[:, 0], ends[:, 0]), x), at)
    near = np.minimum(ring[:, 0], ends[:, 0])
    crosses = (np.minimum(ring[:, 1], ends[:, 1]) <= y) & (y <= np.maximum(ring[:, 1], ends[:, 1]))
    crosses &= (at <= x) & (~is_level | (near <= x))
    if not crosses.any():  # simplified rings may cross: then to the nearest corner
        nearest = int(np.argmin(((ring - start) ** 2).sum(axis=1)))
        return nearest, ring[nearest]
    after = int(np.argmax(np.where(crosses, at, -np.inf)))
    return after, np.array([at[after], y])
