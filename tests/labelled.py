"""A small data set of photos and masks in PASCAL VOC's layout, for tests that score or train."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from fcn_core import LabelSet, preset
from fcn_core.labels import encode_mask
from pipeline.storage.opening import open_store
from pipeline.storage.store import Store
from tests.samples import jpeg

LABELS = preset("camvid")
SIZES = ((64, 48), (64, 48), (48, 64), (64, 48), (81, 50))
"""Width and height of the examples, in turn."""


def truth(width: int, height: int, seed: int, labels: LabelSet = LABELS) -> npt.NDArray[np.uint8]:
    """Blocks of a few classes, and some of no class: a mask uint8 [height, width]."""
    rng = np.random.default_rng(seed)
    values = [*rng.choice(labels.num_classes, 4), labels.ignore_index]
    blocks = rng.choice(np.array(values, np.uint8), (height // 12 + 1, width // 12 + 1))
    return np.ascontiguousarray(np.kron(blocks, np.ones((12, 12), np.uint8))[:height, :width])


def write_labelled(place: Path | str, count: int, split: str = "val", sizes: Sequence[tuple[int, int]] = SIZES) -> None:
    """`count` examples named 000, 001, ... in a folder or bucket, all of them in one split."""
    store: Store = open_store(str(place))
    names = [f"{index:03d}" for index in range(count)]
    for index, name in enumerate(names):
        width, height = sizes[index % len(sizes)]
        store.put(f"JPEGImages/{name}.jpg", jpeg(width, height, seed=index))
        store.put(f"SegmentationClass/{name}.png", encode_mask(truth(width, height, index), LABELS))
    store.put(f"ImageSets/Segmentation/{split}.txt", "".join(f"{name}\n" for name in names).encode())
