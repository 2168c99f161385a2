"""Of many candidates, few that are unlike each other: greedy k-center (Gonzalez 1985; Sener and Savarese 2018).

The one thing to know: the first is the best candidate, and each next one is that which lies furthest from all chosen so
far. So any beginning of the list is as spread as a list of that length can be, up to a factor of two.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.insight.agreement import ClassIndex
from pipeline.outputs.features import read_features
from pipeline.storage.store import Store

Vectors = npt.NDArray[np.float32]

CANDIDATES = 5
"""So many times more images than are wanted are candidates, by score: a choice, and still the unsure ones."""

LONGEST = 5000
"""The longest list that is made so: it has 25,000 candidates, of 512 bytes each."""


def k_center(points: Vectors, count: int) -> list[tuple[int, float]]:
    """The places of `count` of `points`, float32 [n, d], as they are chosen, each with its distance from the nearest
    chosen before (infinite of the first, which is place 0). Of equal distances the smaller place is taken."""
    nearest = np.full(len(points), np.inf, np.float32)
    chosen: list[tuple[int, float]] = []
    place = 0
    for _ in range(min(count, len(points))):
        chosen.append((place, float(nearest[place])))
        nearest = np.minimum(nearest, np.linalg.norm(points - points[place], axis=1))
        nearest[place] = -1  # equal images are still to be chosen, this one is not
        place = int(nearest.argmax())
    return chosen


def feature_vectors(store: Store, model_id: str, images: Sequence[tuple[str, str]]) -> tuple[Vectors | None, int]:
    """What `fcn segment --features` wrote of (key, etag) images, float32 [n, d], and how many of them have any.

    None unless all have them: distances between some and not others choose nothing.
    """
    found = read_features(store, model_id, dict(images))
    if len(found) < len(images):
        return None, len(found)
    return np.stack([found[key] for key, _ in images]).astype(np.float32), len(found)


def area_vectors(
    rows: Iterable[pa.RecordBatch], confidence: Mapping[str, float | None], keys: Sequence[str]
) -> Vectors:
    """Square roots of the shares of the classes, and the confidence, float32 [n, classes + 1], of `keys`.

    rows: batches with columns key and areas, among others those of `keys`. Distances between square roots of shares
    (Hellinger's) count a rare class for more than its area.
    """
    classes = ClassIndex()
    wanted = pa.array(keys, pa.string())
    found: dict[str, Vectors] = {}
    for batch in rows:
        batch = batch.filter(pc.is_in(batch["key"], value_set=wanted))
        if len(batch):
            found |= zip(batch["key"].to_pylist(), classes.fractions(batch["areas"]).astype(np.float32), strict=True)
    vectors = np.zeros((len(keys), len(classes.names) + 1), np.float32)
    for place, key in enumerate(keys):
        shares = found[key]
        vectors[place, : len(shares)] = np.sqrt(shares)
        vectors[place, -1] = confidence[key] or 0.0
    return vectors
