"""Whatever stands at whatever place of an annotation file, the outcome is a mask, a row or one sentence."""

import base64
import copy
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.data.annotations.brush_rle import encode_brush
from pipeline.data.annotations.opening import open_annotations
from pipeline.errors import InputError
from tests.pipeline.data.annotations.sources import PHOTO, STREET, coco, png, task, write

ODD: list[Any] = [
    None,
    -1,
    0,
    1.5,
    True,
    "",
    "x",
    "\u202e../..",
    [],
    {},
    [[]],
    [None],
    {"a": 1},
    10**18,
    1e308,
    "9" * 300,
]
SQUARE = [2, 3, 12, 3, 12, 9, 2, 9]
BRUSH = encode_brush(np.ones((16, 20), np.bool_))
ALPHA = np.full((6, 10, 4), 255, np.uint8)
PNG = base64.b64encode(png(np.ones((6, 10), np.uint8))).decode()

PANOPTIC = coco([], annotations=[{"image_id": 7, "file_name": "a.png", "segments_info": [{"id": 1, "category_id": 1}]}])
LABELME = {
    "version": "5",
    "imagePath": "a.jpg",
    "imageHeight": 16,
    "imageWidth": 20,
    "shapes": [
        {"label": "car", "shape_type": "polygon", "points": [[2, 3], [12, 3], [12, 9]]},
        {"label": "car", "shape_type": "mask", "points": [[1, 1], [11, 7]], "mask": PNG},
        {"label": "car", "shape_type": "circle", "points": [[5, 5], [8, 8]]},
    ],
}
SUPERVISELY = {
    "size": {"height": 16, "width": 20},
    "objects": [
        {
            "classTitle": "car",
            "geometryType": "bitmap",
            "bitmap": {"data": base64.b64encode(zlib.compress(png(ALPHA))).decode(), "origin": [2, 3]},
        },
        {
            "classTitle": "car",
            "geometryType": "polygon",
            "points": {"exterior": [[0, 0], [9, 0], [9, 9]], "interior": []},
        },
    ],
}
META = {"classes": [{"title": "car", "color": "#00008E"}]}
TASKS = [
    task([{"value": {"format": "rle", "rle": BRUSH, "brushlabels": ["car"]}}]),
    task([{"value": {"points": [[0, 0], [50, 0], [50, 50]], "polygonlabels": ["car"]}}], id=4),
    task([{"value": {"x": 1, "y": 1, "width": 5, "height": 5, "rotation": 0, "rectanglelabels": ["car"]}}], id=5),
    {
        "id": 6,
        "image": "b.jpg",
        "annotation_id": 1,
        "tag": [{"rle": BRUSH, "brushlabels": ["car"], "original_width": 20}],
    },
]

SOURCES: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "coco": ("a.json", coco([[SQUARE], {"size": [16, 20], "counts": [10, 300, 10]}]), {}),
    "coco-panoptic": ("p.json", PANOPTIC, {"p/a.png": png(np.full((16, 20, 3), (1, 0, 0), np.uint8))}),
    "label-studio": ("t.json", TASKS, {}),
    "label-studio-png": ("t.json", TASKS, {"task-3-annotation-1-by-1-tag-car-0.png": png(np.ones((16, 20), np.uint8))}),
    "labelme": ("a.json", LABELME, {"a.jpg": PHOTO}),
    "supervisely": ("ds/ann/a.jpg.json", SUPERVISELY, {"ds/img/a.jpg": PHOTO, "meta.json": META}),
    "meta": ("meta.json", META, {"ds/img/a.jpg": PHOTO, "ds/ann/a.jpg.json": SUPERVISELY}),
}


def places(value: Any) -> list[list[Any]]:
    """The path to every value inside; of long lists only the first few."""
    inside = value.items() if isinstance(value, dict) else enumerate(value[:4]) if isinstance(value, list) else ()
    return [[]] + [[key, *rest] for key, item in inside for rest in places(item)]


def replaced(value: Any, path: list[Any], odd: Any) -> Any:
    if not path:
        return odd
    changed = copy.copy(value)
    changed[path[0]] = replaced(value[path[0]], path[1:], odd)
    return changed


@pytest.mark.parametrize("name", SOURCES)
def test_an_odd_value_anywhere_is_a_mask_a_row_or_a_sentence(tmp_path: Path, name: str) -> None:
    document, value, others = SOURCES[name]
    format = "supervisely" if name == "meta" else name
    write(tmp_path, others)
    masks, sentences = 0, []
    for path in places(value):
        for odd in ODD:
            write(tmp_path, {document: replaced(value, path, odd) if path else [odd]})
            try:
                opened = open_annotations(str(tmp_path), STREET, format)
                opened.classes()
                for key, mask, notes in opened:
                    assert mask.dtype == np.uint8
                    sentences += [key.replace("\n", ""), *notes]
                    masks += 1
                sentences += [item.why for item in opened.left_out]
            except InputError as error:
                sentences.append(str(error))
            except Exception as error:
                raise AssertionError(f"{odd!r} at {path}") from error
    assert masks > 0
    assert not any("\n" in sentence for sentence in sentences)
