"""Small annotation sources, written as the tools write them."""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
from PIL import Image

from fcn_core.labels import LabelSet
from pipeline.data.annotations.importer import Annotated, LeftOut
from pipeline.data.annotations.opening import open_annotations
from tests.samples import jpeg

Files = Mapping[str, bytes | str | dict[str, Any] | list[Any]]

STREET = LabelSet(
    name="street", names=("road", "traffic light", "car"), palette=((128, 64, 128), (250, 170, 30), (0, 0, 142))
)
PHOTO = jpeg(20, 16)


def content(value: bytes | str | dict[str, Any] | list[Any]) -> bytes:
    if isinstance(value, dict | list):
        value = json.dumps(value, ensure_ascii=False)
    return value.encode() if isinstance(value, str) else value


def write(folder: Path, files: Files) -> str:
    for name, value in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(value))
    return str(folder)


def zipped(path: Path, files: Files) -> str:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, value in files.items():
            archive.writestr(name, content(value))
    return str(path)


def png(array: npt.NDArray[Any], palette: list[int] | None = None) -> bytes:
    image = Image.fromarray(array)
    if palette is not None:
        image.putpalette(palette)
    sink = io.BytesIO()
    image.save(sink, "PNG")
    return sink.getvalue()


def read(
    source: str, labels: LabelSet = STREET, format: str = "auto", **options: Any
) -> tuple[dict[str, Annotated], dict[str, str], str]:
    """The usable images by key, why others are not, and which format it is."""
    opened = open_annotations(source, labels, format, **options)
    assert opened.class_map is not None
    items = list(opened.images(opened.class_map))
    taken = {item.key: item for item in items if isinstance(item, Annotated)}
    why = {item.key: item.why for item in items if isinstance(item, LeftOut)}
    return taken, why, opened.format.name


def coco(segmentations: list[Any], category: int = 1, **changes: Any) -> dict[str, Any]:
    """COCO's instances of one image of 20x16 pixels."""
    return {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 20, "height": 16}],
        "categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "Traffic_Light"}, {"id": 3, "name": "zeppelin"}],
        "annotations": [
            {"id": index, "image_id": 7, "category_id": category, "segmentation": each}
            for index, each in enumerate(segmentations, 1)
        ],
        **changes,
    }


def task(results: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    """A task of Label Studio's JSON export with one annotation of an image of 20x16 pixels."""
    sized = [
        {"id": f"r{i}", "original_width": 20, "original_height": 16, "image_rotation": 0, **each}
        for i, each in enumerate(results)
    ]
    annotation = {"id": 1, "was_cancelled": False, "result": sized, "updated_at": "2026-05-01T10:00:00Z"}
    return {
        "id": 3,
        "data": {"image": "/data/upload/1/0a1b2c3d-a.jpg"},
        "annotations": [annotation],
        "predictions": [],
        **changes,
    }
