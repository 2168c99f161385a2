"""Supervisely: meta.json with the classes, and per image `<data set>/ann/<image>.json` beside `<data set>/img/`.

Objects are drawn in their order: later ones are on top. Polygons have holes, bitmaps are a PNG in zlib in base64.
"""

import base64
import binascii
import posixpath
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fcn_core.labels import RGB
from pipeline.data.annotations.class_map import ClassMap
from pipeline.data.annotations.coco import split_of
from pipeline.data.annotations.importer import Annotated, Format, LeftOut, SourceClass
from pipeline.data.annotations.json_fields import items, objects, text
from pipeline.data.annotations.mask_files import open_png
from pipeline.data.annotations.notes import Notes
from pipeline.data.annotations.regions import Canvas, Region, RegionError, checked_size, points, polygon, rectangle
from pipeline.data.annotations.source_files import LARGEST_MASK, SourceFiles, short
from pipeline.errors import InputError


def _is_meta(value: Any) -> bool:
    return isinstance(value, dict) and all("title" in item for item in objects(value, "classes")) and "classes" in value


class _Supervisely:
    def __init__(self, files: SourceFiles) -> None:
        self._files = files
        self._meta = files.json("meta.json")
        self._documents = [name for name in files.ending(".json") if "/ann/" in f"/{name}"]

    def classes(self) -> Sequence[SourceClass]:
        return [
            SourceClass(title, _color(item))
            for item in objects(self._meta, "classes")
            if (title := text(item, "title")) is not None
        ]

    def annotated(self, classes: ClassMap) -> Iterator[Annotated | LeftOut]:
        for document in self._documents:
            folder, _, name = f"/{document}".rpartition("/ann/")
            place = f"{folder}/img/{name.removesuffix('.json')}".lstrip("/")
            try:
                value = self._files.json(document)
                if not isinstance(value, dict):
                    raise RegionError("its annotation is no object")
                yield self._one(place, value, classes)
            except (RegionError, InputError) as error:
                yield LeftOut(place, str(error))

    def _one(self, place: str, value: dict[str, Any], classes: ClassMap) -> Annotated:
        size = value.get("size")
        if not isinstance(size, dict):
            raise RegionError("its annotation has no size")
        height, width = checked_size(size.get("height"), size.get("width"))
        canvas, notes = Canvas(height, width, classes), Notes()
        for item in items(value, "objects"):
            name = text(item, "classTitle")
            if name is None:
                raise RegionError(f"the object {short(item)} has no class")
            region = _region(item, height, width)
            if region is None:
                notes.add(f"{short(name)}: a {short(item.get('geometryType'))} is no area")
            else:
                canvas.draw(region, classes.value(name))
        notes.overlap(canvas.overlapping)
        image = place if place in self._files else self._files.image_of_stem(place)
        key = f"{posixpath.dirname(posixpath.dirname(place))}/{posixpath.basename(image or place)}".lstrip("/")
        return Annotated(key, canvas.mask, image, split_of(posixpath.dirname(place)), notes.all())


def _color(item: dict[str, Any]) -> RGB | None:
    written = text(item, "color") or ""
    try:
        red, green, blue = bytes.fromhex(written.removeprefix("#"))
    except ValueError:
        return None
    return red, green, blue


def _region(item: dict[str, Any], height: int, width: int) -> Region | None:
    kind = item.get("geometryType")
    outline = item.get("points")
    if kind == "polygon" and isinstance(outline, dict):
        rings = [points(outline.get("exterior")), *(points(ring) for ring in items(outline, "interior"))]
        return polygon(rings, height, width)
    if kind == "rectangle" and isinstance(outline, dict):
        corners = points(outline.get("exterior"))
        (x0, y0), (x1, y1) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
        return polygon([rectangle(x0, y0, x1 - x0, y1 - y0)], height, width)
    if kind == "bitmap":
        return _bitmap(item.get("bitmap"), height, width)
    return None


def _bitmap(value: Any, height: int, width: int) -> Region:
    origin = points([value.get("origin")] if isinstance(value, dict) else None)[0]
    try:
        packed = base64.b64decode(text(value, "data") or "", validate=True)
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(packed, LARGEST_MASK)
    except (binascii.Error, ValueError, zlib.error) as error:
        raise RegionError("a bitmap is not a PNG in zlib in base64") from error
    if unpacker.unconsumed_tail:
        raise RegionError(f"a bitmap unpacks to more than the {LARGEST_MASK >> 20} MiB that it may have")
    image = open_png(data)
    # Its transparency says what is inside; a picture without any is black and white.
    bits = np.asarray(image.convert("RGBA"))[..., 3] > 0 if image.mode in ("RGBA", "LA") else np.asarray(image) > 0
    left, top = (round(side) for side in origin.tolist())
    if bits.ndim != 2 or left < 0 or top < 0 or top + bits.shape[0] > height or left + bits.shape[1] > width:
        raise RegionError(f"a bitmap of {bits.shape[1]}x{bits.shape[0]} pixels at ({left}, {top}) is not in the image")
    return Region(top, left, bits)


def _recognises(files: SourceFiles) -> bool:
    if "meta.json" not in files or not any("/ann/" in f"/{name}" for name in files.names):
        return False
    try:
        return _is_meta(files.json("meta.json"))
    except InputError:
        return False


FORMAT = Format("supervisely", "Supervisely: meta.json, ann/, img/", _recognises, _Supervisely)
