"""labelme: a JSON per image with shapes, in the order in which they were drawn: later ones are on top.

Polygons, rectangles, circles and masks are areas. Points and lines are not, and are left out by name.
"""

import base64
import binascii
import posixpath
from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.data.annotations.class_map import ClassMap
from pipeline.data.annotations.importer import Annotated, Format, LeftOut, SourceClass
from pipeline.data.annotations.json_fields import items, objects, text
from pipeline.data.annotations.mask_files import indices
from pipeline.data.annotations.notes import Notes
from pipeline.data.annotations.regions import (
    Canvas,
    Region,
    RegionError,
    checked_size,
    ellipse,
    points,
    polygon,
    rectangle,
)
from pipeline.data.annotations.source_files import SourceFiles, short
from pipeline.errors import InputError

_AREAS = ("polygon", "rectangle", "circle", "mask", "oriented_rectangle")
_TRIED = 3


def _is_labelme(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("shapes"), list) and "imagePath" in value


class _Labelme:
    def __init__(self, files: SourceFiles) -> None:
        self._files = files
        self._documents = files.ending(".json")

    def classes(self) -> Sequence[SourceClass]:
        names: dict[str, None] = {}
        for document in self._documents:
            try:
                value = self._files.json(document)
            except InputError:
                continue  # a row when the images are read
            names |= {name: None for shape in objects(value, "shapes") if (name := text(shape, "label")) is not None}
        return [SourceClass(name) for name in sorted(names)]

    def annotated(self, classes: ClassMap) -> Iterator[Annotated | LeftOut]:
        for document in self._documents:
            try:
                value = self._files.json(document)
            except InputError as error:
                yield LeftOut(document, str(error))
                continue
            if not _is_labelme(value):
                yield LeftOut(document, "it is no file of labelme's: it has no shapes and imagePath")
                continue
            yield self._one(document, value, classes)

    def _one(self, document: str, value: dict[str, Any], classes: ClassMap) -> Annotated | LeftOut:
        named = text(value, "imagePath") or ""
        key = named.replace("\\", "/")
        image = self._files.image(posixpath.join(posixpath.dirname(document), key)) if key else None
        image = image or self._files.image_of_stem(posixpath.splitext(document)[0])
        key = image or key or document
        try:
            height, width = checked_size(value.get("imageHeight"), value.get("imageWidth"))
        except RegionError as error:
            return LeftOut(key, str(error))
        canvas, notes = Canvas(height, width, classes), Notes()
        for shape in items(value, "shapes"):
            name = text(shape, "label")
            kind = text(shape, "shape_type") or "polygon"
            if name is None:
                return LeftOut(key, f"the shape {short(shape)} has no label")
            if kind not in _AREAS:
                notes.add(f"{short(name)}: a {short(kind)} is no area")
                continue
            try:
                canvas.draw(_region(shape, kind, height, width), classes.value(name))
            except RegionError as error:
                return LeftOut(key, f"{short(name)}: {error}")
        notes.overlap(canvas.overlapping)
        return Annotated(key, canvas.mask, image, None, notes.all())


def _region(shape: dict[str, Any], kind: str, height: int, width: int) -> Region:
    corners = points(shape.get("points"))
    if kind in ("polygon", "oriented_rectangle"):
        return polygon([corners], height, width)
    if len(corners) != 2:
        raise RegionError(f"a {kind} has {len(corners)} points, not two")
    (x0, y0), (x1, y1) = corners.tolist()
    if kind == "circle":  # its centre, and a point on it
        radius = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
        return polygon([ellipse((x0, y0), (radius, radius))], height, width)
    if kind == "rectangle":
        return polygon([rectangle(min(x0, x1), min(y0, y1), abs(x1 - x0), abs(y1 - y0))], height, width)
    return _mask(shape, round(min(x0, x1)), round(min(y0, y1)), height, width)


def _mask(shape: dict[str, Any], left: int, top: int, height: int, width: int) -> Region:
    """A PNG in base64, whose upper left corner is the first of the two points."""
    try:
        data = base64.b64decode(text(shape, "mask") or "", validate=True)
    except (binascii.Error, ValueError) as error:
        raise RegionError("its mask is not base64") from error
    bits = indices(data) > 0
    if left < 0 or top < 0 or top + bits.shape[0] > height or left + bits.shape[1] > width:
        raise RegionError(f"its mask of {bits.shape[1]}x{bits.shape[0]} pixels at ({left}, {top}) is not in the image")
    return Region(top, left, bits)


def _recognises(files: SourceFiles) -> bool:
    for name in files.ending(".json")[:_TRIED]:
        try:
            if _is_labelme(files.json(name)):
                return True
        except InputError:
            continue
    return False


FORMAT = Format("labelme", "labelme: a JSON per image", _recognises, _Labelme)
