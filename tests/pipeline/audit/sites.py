"""Outputs to be audited, with their truth: masks of real sizes under real keys, and a folder of annotations."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fcn_core import LabelSet
from fcn_core.labels import Mask, encode_mask
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store
from tests.reports import labelled_run
from tests.samples import jpeg

LABELS = LabelSet(
    name="street",
    names=("road", "sky", "car", "pole"),
    palette=((128, 64, 128), (70, 130, 180), (0, 0, 142), (153, 153, 153)),
)
ROAD, SKY, CAR, POLE = range(4)


@dataclass(frozen=True)
class Site:
    """An output and its source, and the true mask of each image."""

    root: Path
    output: Store
    truth: Mapping[str, Mask]

    @property
    def shares(self) -> npt.NDArray[np.float64]:
        """The true shares of the labelled pixels [classes]."""
        counts = sum(np.bincount(mask.ravel(), minlength=256)[: LABELS.num_classes] for mask in self.truth.values())
        return np.asarray(counts / np.sum(counts))

    def annotate(self, keys: Iterable[str], folder: str = "annotated", **instead: Mask) -> Store:
        """Write the true masks of `keys` as a person would export them, called by the images' keys."""
        place = open_store(str(self.root / folder))
        for key in keys:
            place.put(f"{key.rpartition('.')[0]}.png", encode_mask(instead.get(key, self.truth[key]), LABELS))
        return place


def street_scene(seed: int, width: int = 24, height: int = 18) -> Mask:
    """Sky over road, cars on it, and in some images a pole: uint8 [height, width]."""
    random = np.random.default_rng(seed)
    mask = np.full((height, width), ROAD, np.uint8)
    mask[: random.integers(4, 10)] = SKY
    for _ in range(random.integers(0, 3)):
        row, column = random.integers(10, height - 3), random.integers(0, width - 5)
        mask[row : row + 3, column : column + 5] = CAR
    if random.random() < 0.4:
        mask[:, random.integers(0, width)] = POLE
    return mask


def faulty(mask: Mask, seed: int) -> Mask:
    """What a model makes of it: poles are never seen, some cars are missed, the horizon lies too low."""
    random = np.random.default_rng(seed)
    found = mask.copy()
    found[found == POLE] = ROAD
    if random.random() < 0.3:
        found[found == CAR] = ROAD
    horizon = int((mask == SKY).any(axis=1).sum())
    found[horizon : horizon + random.integers(0, 4)] = SKY
    return found


def make_site(
    root: Path,
    images: int = 80,
    *,
    folders: int = 4,
    run_id: str = "20261122T101500Z-ab12",
    first: int = 0,
    model: Mapping[str, str] | None = None,
) -> Site:
    """`images` under cam0/ to cam3/, segmented by a faulty model in one run; `model` has its place and id."""
    source, output = open_store(str(root / "photos")), open_store(str(root / "labels"))
    truth = {f"cam{index % folders}/{index:04d}.jpg": street_scene(index) for index in range(first, first + images)}
    for index, key in enumerate(truth):
        source.put(key, jpeg(24, 18, seed=first + index))
    found = {key: faulty(mask, index) for index, (key, mask) in enumerate(truth.items())}
    labelled_run(output, source, found, LABELS, run_id=run_id, shard_size=16, **(model or {}))
    return Site(root, output, truth)
