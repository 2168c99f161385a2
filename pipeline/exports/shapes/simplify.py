"""Outlines with fewer corners, nowhere further from the exact ones than a tolerance (Douglas and Peucker 1973)."""

import numpy as np
import numpy.typing as npt

from pipeline.exports.shapes.outlines import Part, Ring, signed_area


def simplify(part: Part, tolerance: float) -> Part:
    """The part with simpler rings, each within `tolerance` pixels of the exact one; 0 leaves it as it is.

    A ring that would be no ring any more (two points, no area) stays exact. Rings are simplified one by one, so that
    simplified ones of neighbours need not meet, and may cross within the tolerance. `area` stays that of the pixels.
    """
    if not tolerance:
        return part
    return Part(_simpler(part.outer, tolerance), tuple(_simpler(hole, tolerance) for hole in part.holes), part.area)


def _simpler(ring: Ring, tolerance: float) -> Ring:
    points = ring.astype(np.float64)
    far = int(np.argmax(((points - points[0]) ** 2).sum(axis=1)))
    closed = np.concatenate([points, points[:1]])
    kept = np.zeros(len(closed), np.bool_)
    kept[[0, far]] = True
    pending = [(0, far), (far, len(points))]
    while pending:
        begin, end = pending.pop()
        if end - begin < 2:
            continue
        distances = _distances(closed[begin + 1 : end], closed[begin], closed[end])
        worst = int(np.argmax(distances))
        if distances[worst] > tolerance**2:
            middle = begin + 1 + worst
            kept[middle] = True
            pending += [(begin, middle), (middle, end)]
    simpler = ring[kept[:-1]]
    is_ring = len(simpler) > 2 and signed_area(simpler) * signed_area(ring) > 0
    return simpler if is_ring else ring


def _distances(
    points: npt.NDArray[np.float64], begin: npt.NDArray[np.float64], end: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Squared distances of points to a segment."""
    along = end - begin
    length = float(along @ along)
    offsets = points - begin
    share = np.clip(offsets @ along / length, 0, 1) if length else np.zeros(len(points))
    distances: npt.NDArray[np.float64] = ((offsets - share[:, None] * along) ** 2).sum(axis=1)
    return distances
