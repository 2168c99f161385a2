"""Label Studio's JSON: brush masks, polygons, rectangles and ellipses; the export "JSON", and "JSON-MIN".

Regions are drawn in their order: later ones are on top. Only what a person has submitted counts: predictions and
cancelled annotations never do. Of several annotations of a task the one marked as ground truth counts, else the newest.
"""

import posixpath
import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from pipeline.data.annotations.brush_rle import decode_brush
from pipeline.data.annotations.class_map import ClassMap
from pipeline.data.annotations.importer import Annotated, Format, LeftOut, SourceClass
from pipeline.data.annotations.json_fields import number, objects, text
from pipeline.data.annotations.notes import Notes
from pipeline.data.annotations.regions import (
    Canvas,
    RegionError,
    checked_size,
    ellipse,
    points,
    polygon,
    rectangle,
)
from pipeline.data.annotations.source_files import SourceFiles, short
from pipeline.errors import InputError

_TRIED = 8
_UPLOADED = re.compile(r"[0-9a-f]{8}-(?P<name>.+)")
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".jp2", ".gif", ".heic")


def is_tasks(value: Any) -> bool:
    """Whether JSON is a list of Label Studio's tasks, or of its JSON-MIN records."""
    if not isinstance(value, list) or not value or not isinstance(value[0], dict):
        return False
    first = value[0]
    full = isinstance(first.get("data"), dict) and ("annotations" in first or "predictions" in first)
    return full or ("annotation_id" in first and "image" in first)


def task_files(files: SourceFiles) -> list[str]:
    """The JSON files that hold tasks."""
    found = []
    names = sorted(files.ending(".json"), key=lambda name: (name.count("/"), name))
    for name in names if len(names) <= _TRIED else [name for name in names if "/" not in name]:
        try:
            if is_tasks(files.json(name)):
                found.append(name)
        except InputError:
            if len(names) == 1:
                raise
    return found


def place_of_image(task: dict[str, Any]) -> tuple[str, list[str]]:
    """The key of a task's image, and the paths that it may have in the source.

    The key is what `fcn rank` wrote beside the image, else the path or URI that the tool knows it by.
    """
    data = task["data"] if isinstance(task.get("data"), dict) else task
    url = text(data, "image")
    if url is None:
        urls = [value for value in data.values() if isinstance(value, str) and value.lower().endswith(_SUFFIXES)]
        if len(urls) != 1:
            raise RegionError(f"its task names {len(urls)} images, not one")
        url = urls[0]
    parts = urlsplit(url)
    path = parse_qs(parts.query).get("d", [""])[0] or unquote(parts.path)
    path = path.lstrip("/")
    base = posixpath.basename(path)
    uploaded = _UPLOADED.fullmatch(base)
    names = [path, *([uploaded["name"]] if uploaded else [])]
    if text(data, "key"):
        return str(data["key"]), names
    if uploaded and "upload/" in path:
        return uploaded["name"], names
    return (url if parts.scheme in ("s3", "gs", "az") else path), names


class _LabelStudio:
    def __init__(self, files: SourceFiles) -> None:
        self._files = files
        self._documents = task_files(files)
        if not self._documents:
            raise InputError(f"{files.uri} has no JSON of Label Studio's tasks; export the project as JSON")

    def classes(self) -> Sequence[SourceClass]:
        names: dict[str, None] = {}
        for task in self._tasks():
            chosen = _chosen(task)
            if isinstance(chosen, str):
                continue
            for region in _regions(chosen):
                names |= dict.fromkeys(region.labels)
        return [SourceClass(name) for name in sorted(names)]

    def annotated(self, classes: ClassMap) -> Iterator[Annotated | LeftOut]:
        for index, task in enumerate(self._tasks(), 1):
            name = f"task {short(task.get('id', index)) if isinstance(task, dict) else index}"
            try:
                key, paths = place_of_image(task)
            except (RegionError, ValueError, AttributeError) as error:
                yield LeftOut(name, str(error))
                continue
            chosen = _chosen(task)
            if isinstance(chosen, str):
                yield LeftOut(key, chosen)
                continue
            image = next((found for path in paths if (found := self._files.image(path))), None)
            yield _one(key, image, chosen, classes)

    def _tasks(self) -> Iterator[dict[str, Any]]:
        for document in self._documents:
            yield from (task for task in self._files.json(document) if isinstance(task, dict))


class _Shape:
    """One region: what the tool calls its value, and its labels, which may stand in a result of their own."""

    def __init__(self, result: dict[str, Any], value: dict[str, Any], labels: list[str]) -> None:
        self.result, self.value, self.labels = result, value, labels


def _chosen(task: dict[str, Any]) -> dict[str, Any] | str:
    """The annotation that counts, or why there is none."""
    if "data" not in task:
        return {"result": _results_of_min(task)}
    submitted = [each for each in objects(task, "annotations") if not each.get("was_cancelled")]
    if not submitted:
        return "nobody has annotated it"
    truth = [each for each in submitted if each.get("ground_truth") is True]
    return max(truth or submitted, key=lambda each: text(each, "updated_at") or text(each, "created_at") or "")


def _results_of_min(task: dict[str, Any]) -> list[dict[str, Any]]:
    """JSON-MIN has the values of each control tag as a field of the task."""
    found = []
    for values in task.values():
        if isinstance(values, list):
            found += [
                {
                    "value": value,
                    "original_width": value["original_width"],
                    "original_height": value.get("original_height"),
                }
                for value in values
                if isinstance(value, dict) and "original_width" in value
            ]
    return found


def _regions(annotation: dict[str, Any]) -> list[_Shape]:
    labels: dict[object, list[str]] = {}
    shapes: dict[object, _Shape] = {}
    for index, result in enumerate(objects(annotation, "result")):
        value = result.get("value")
        if not isinstance(value, dict):
            continue
        region = result.get("id") if isinstance(result.get("id"), str) else index
        listed = [name for field, names in value.items() if field.endswith("labels") and isinstance(names, list)
                  for name in names if isinstance(name, str)]  # fmt: skip
        labels.setdefault(region, []).extend(listed)
        if any(field in value for field in ("rle", "points", "width", "radiusX")) or region not in shapes:
            shapes[region] = _Shape(result, value, [])
    for region, shape in shapes.items():
        shape.labels = list(dict.fromkeys(labels[region]))
    return list(shapes.values())


def _one(key: str, image: str | None, annotation: dict[str, Any], classes: ClassMap) -> Annotated | LeftOut:
    shapes = _regions(annotation)
    notes = Notes()
    areas = [shape for shape in shapes if any(field in shape.value for field in ("rle", "points", "width", "radiusX"))]
    if len(areas) < len(shapes):
        notes.add("a result is no area")
    if not areas:
        return LeftOut(key, "its annotation has no region, so that not even its size is known")
    try:
        sizes = {
            checked_size(shape.result.get("original_height"), shape.result.get("original_width")) for shape in areas
        }
        if len(sizes) > 1:
            raise RegionError("its regions are of images of different sizes")
        height, width = sizes.pop()
        canvas = Canvas(height, width, classes)
        for shape in areas:
            if shape.result.get("image_rotation") not in (None, 0):
                raise RegionError("it was turned in the tool, whose regions then are of another image; turn it back")
            if not shape.labels:
                notes.add("a region has no label")
                continue
            if len(shape.labels) > 1:
                raise RegionError(
                    f"a region has the labels {short(', '.join(shape.labels))}, and a pixel has one class"
                )
            _draw(canvas, shape.value, classes.value(shape.labels[0]))
    except RegionError as error:
        return LeftOut(key, str(error))
    notes.overlap(canvas.overlapping)
    return Annotated(key, canvas.mask, image, None, notes.all())


def _draw(canvas: Canvas, value: dict[str, Any], target: int) -> None:
    """Coordinates are percent of the image's sides."""
    height, width = canvas.mask.shape
    if "rle" in value:
        if value.get("format", "rle") != "rle":
            raise RegionError(f"a brush mask is of the format {short(value['format'])}")
        canvas.draw(decode_brush(value["rle"], height, width), target)
        return
    scale = np.array([width / 100, height / 100])
    if "points" in value:
        outline = points(value["points"]) * scale
    elif "radiusX" in value:
        x, y, a, b = (number(value, field) for field in ("x", "y", "radiusX", "radiusY"))
        outline = ellipse((x * scale[0], y * scale[1]), (a * scale[0], b * scale[1]), _angle(value))
    else:
        x, y, a, b = (number(value, field) for field in ("x", "y", "width", "height"))
        outline = rectangle(x * scale[0], y * scale[1], a * scale[0], b * scale[1], _angle(value))
    canvas.draw(polygon([outline], height, width), target)


def _angle(value: dict[str, Any]) -> float:
    return number(value, "rotation") if value.get("rotation") is not None else 0.0


FORMAT = Format(
    "label-studio", "Label Studio's JSON: brush, polygons", lambda files: bool(task_files(files)), _LabelStudio
)
