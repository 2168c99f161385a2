"""What the tools' own code wrote, and what it reads: nothing is lost on the way.

written_by_tools.json holds one mask as label-studio-sdk 2.1.2, pycocotools 2.0.11 and datumaro 1.13.12 write it: run
lengths, and whole exports as files in base64; with a hole, two objects and a name that is not ASCII. labelme 6.3.1
wrote shapes of every kind, and what its own shapes_to_label makes of them.
"""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fcn_core.labels import LabelSet
from pipeline.data.annotations.brush_rle import decode_brush, encode_brush
from pipeline.data.annotations.coco_rle import decode_rle
from pipeline.data.annotations.regions import polygon
from tests.pipeline.data.annotations.sources import read, write
from tests.requires import requires

TOOLS: dict[str, Any] = json.loads((Path(__file__).parent / "written_by_tools.json").read_text())
LABELS = LabelSet(name="two", names=("car", "road"), palette=((1, 1, 1), (2, 2, 2)))
MASK = np.array(TOOLS["mask"])
"""uint8 [16, 20]: 0 background, 1 car, 2 road."""


@pytest.mark.parametrize("export", ["voc_segmentation", "coco_instances", "coco_panoptic", "cityscapes"])
def test_exports_of_datumaro_come_back_as_the_mask_that_went_out(tmp_path: Path, export: str) -> None:
    files = {name: base64.b64decode(data) for name, data in TOOLS[export].items()}
    taken, why, _ = read(write(tmp_path, files), LABELS)
    (item,) = taken.values()
    assert why == {}
    assert (item.mask == np.where(MASK == 0, 255, MASK - 1)).all()
    assert item.image is not None
    assert "bild ä" in item.image
    assert "bild ä" in item.key


def test_shapes_of_labelme_cover_what_labelme_covers_but_for_their_edges(tmp_path: Path) -> None:
    files = {name: base64.b64decode(data) for name, data in TOOLS["labelme"].items()}
    taken, why, name = read(write(tmp_path, files), LABELS)
    (item,) = taken.values()
    assert (name, why) == ("labelme", {})
    assert item.key == "bild ä.jpg"
    theirs = np.array(TOOLS["labelme_mask"])
    ours = np.where(item.mask == 255, 0, item.mask + 1)
    around = np.stack([np.roll(theirs, (down, right), (0, 1)) for down in (-1, 0, 1) for right in (-1, 0, 1)])
    inside = (around == theirs).all(axis=0)
    assert (ours[inside] == theirs[inside]).all()
    assert inside.mean() > 0.5
    assert set(np.unique(theirs[inside])) == {0, 1, 2}
    assert (ours[3:12, 40:52] == theirs[3:12, 40:52]).all(), "a mask has no edge to differ at"


def test_brush_masks_of_label_studio_are_read() -> None:
    for value, code in TOOLS["brush_rle"].items():
        assert (decode_brush(code, 16, 20) == (int(value) == MASK)).all()
    assert (decode_brush(TOOLS["noise_rle"], 16, 20) == np.array(TOOLS["noise"])).all()


@given(arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_brush_masks_come_back_as_they_went_out(mask: npt.NDArray[np.bool_]) -> None:
    assert (decode_brush(encode_brush(mask), *mask.shape) == mask).all()


def test_run_lengths_of_pycocotools_are_read() -> None:
    for value, code in TOOLS["coco_rle"].items():
        assert (decode_rle(code, 16, 20) == (int(value) == MASK)).all()


@given(arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40))))
def test_any_run_lengths_of_pycocotools_are_read(mask: npt.NDArray[np.bool_]) -> None:
    requires("pycocotools", install="pycocotools")
    from pycocotools import mask as coco  # type: ignore[import-untyped]

    code = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert (decode_rle({**code, "counts": code["counts"].decode()}, *mask.shape) == mask).all()


@pytest.mark.filterwarnings("ignore::DeprecationWarning:pycocotools")
def test_polygons_cover_what_pycocotools_covers_but_for_their_edges() -> None:
    requires("pycocotools", install="pycocotools")
    from pycocotools import mask as coco

    rng = np.random.default_rng(0)
    ours = theirs = differing = 0
    for _ in range(50):
        angles = np.sort(rng.uniform(0, 2 * np.pi, 9))
        outline = 50 + rng.uniform(10, 40, (9, 1)) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        expected = coco.decode(coco.merge(coco.frPyObjects([outline.ravel().tolist()], 100, 100))).astype(np.bool_)
        region = polygon([outline], 100, 100)
        mask = np.zeros((100, 100), np.bool_)
        height, width = region.bits.shape
        mask[region.top : region.top + height, region.left : region.left + width] = region.bits
        ours, theirs, differing = ours + mask.sum(), theirs + expected.sum(), differing + (mask != expected).sum()
    assert abs(ours - theirs) < 0.001 * theirs
    assert differing < 0.01 * theirs
