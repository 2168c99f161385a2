"""COCO's instances: one JSON with images, annotations and categories; polygons and run lengths. CVAT, Roboflow,
datumaro, Label Studio and FiftyOne export it, too.

COCO knows no z-order: later annotations are drawn over earlier ones, as in the exports of CVAT and datumaro. A box
without a segmentation is no mask and is left out.
"""

import posixpath
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.data.annotations.class_map import ClassMap
from pipeline.data.annotations.coco_rle import decode_rle
from pipeline.data.annotations.importer import Annotated, Format, LeftOut, SourceClass
from pipeline.data.annotations.json_fields import items, objects, text
from pipeline.data.annotations.notes import Notes
from pipeline.data.annotations.regions import Canvas, RegionError, checked_size, points, polygon
from pipeline.data.annotations.source_files import SourceFiles, short
from pipeline.errors import InputError

_TRIED = 8
_SPLIT = re.compile(r"(?<![a-z])(train|validation|valid|val|test)(?![a-z])", re.IGNORECASE)


def json_files(files: SourceFiles) -> list[str]:
    """The JSON files that may be one for many images, those in `annotations/` first."""
    return sorted(files.ending(".json"), key=lambda name: (not name.startswith("annotations/"), name.count("/"), name))


def is_coco(value: Any) -> bool:
    """Whether JSON has COCO's three lists."""
    return isinstance(value, dict) and all(
        isinstance(value.get(k), list) for k in ("images", "annotations", "categories")
    )


def is_panoptic(value: Any) -> bool:
    """Whether they are of COCO's panoptic form."""
    return is_coco(value) and any("segments_info" in item for item in list(objects(value, "annotations"))[:1])


def documents(files: SourceFiles, panoptic: bool) -> list[str]:
    """The names of the files that are COCO's, of this kind."""
    found = []
    for name in json_files(files)[: _TRIED * 8]:
        try:
            value = files.json(name)
        except InputError:
            if len(files.ending(".json")) == 1:
                raise
            continue
        if is_coco(value) and is_panoptic(value) == panoptic:
            found.append(name)
    return found


def categories(value: Any, where: str) -> dict[int, str]:
    """The names of the categories by id. Raises InputError for an id that has two names."""
    names: dict[int, str] = {}
    for item in objects(value, "categories"):
        number, name = item.get("id"), text(item, "name")
        if type(number) is not int or name is None:
            raise InputError(f"{where}: the category {short(item)} has no id or no name; export it again")
        if names.setdefault(number, name) != name:
            raise InputError(f"{where}: category {number} is {short(names[number])} and {short(name)}; export it again")
    return names


def images(value: Any) -> tuple[dict[object, dict[str, Any]], list[LeftOut]]:
    """The images by id, and the records that cannot be used: without id or name, or with the id of another."""
    found: dict[object, dict[str, Any]] = {}
    left_out: list[LeftOut] = []
    given = Counter(item["id"] for item in objects(value, "images") if isinstance(item.get("id"), int | str))
    for number, item in enumerate(items(value, "images"), 1):
        name = text(item, "file_name")
        if name is None or not isinstance(item.get("id"), int | str):
            left_out.append(LeftOut(name or f"image {number}", "its record has no id or no file_name"))
        elif given[item["id"]] > 1:
            left_out.append(LeftOut(name, f"{given[item['id']]} images have the id {short(item['id'])}"))
        else:
            found[item["id"]] = item
    return found, left_out


def split_of(path: str) -> str | None:
    """The split that a path like "annotations/instances_val2017.json" or "valid/_annotations.coco.json" names."""
    found = {match.lower().replace("validation", "val").replace("valid", "val") for match in _SPLIT.findall(path)}
    return found.pop() if len(found) == 1 else None


def find_image(files: SourceFiles, document: str, name: str) -> str | None:
    """The image beside its JSON, or anywhere in the source."""
    beside = posixpath.normpath(posixpath.join(posixpath.dirname(document), name))
    return files.image(beside) or files.image(name)


class _Coco:
    def __init__(self, files: SourceFiles) -> None:
        self._files = files
        self._documents = documents(files, panoptic=False)
        if not self._documents:
            raise InputError(f"{files.uri} has no JSON with images, annotations and categories, as COCO has")

    def classes(self) -> Sequence[SourceClass]:
        names: dict[str, None] = {}
        for document in self._documents:
            names |= dict.fromkeys(categories(self._files.json(document), self._where(document)).values())
        return [SourceClass(name) for name in names]

    def annotated(self, classes: ClassMap) -> Iterator[Annotated | LeftOut]:
        for document in self._documents:
            value = self._files.json(document)
            names = categories(value, self._where(document))
            known, left_out = images(value)
            yield from left_out
            of_image: dict[object, list[dict[str, Any]]] = {}
            strays = 0
            for item in items(value, "annotations"):
                number = item.get("image_id") if isinstance(item, dict) else None
                if isinstance(number, int | str) and number in known:
                    of_image.setdefault(number, []).append(item)
                else:
                    strays += 1
            if strays:
                yield LeftOut(document, f"{strays:,} annotations are of images that the file does not list once")
            for number, image in known.items():
                yield self._one(document, image, of_image.get(number, []), names, classes)

    def _one(
        self,
        document: str,
        image: dict[str, Any],
        found: list[dict[str, Any]],
        names: dict[int, str],
        classes: ClassMap,
    ) -> Annotated | LeftOut:
        key = image["file_name"]
        try:
            height, width = checked_size(image.get("height"), image.get("width"))
        except RegionError as error:
            return LeftOut(key, str(error))
        canvas, notes = Canvas(height, width, classes), Notes()
        for item in found:
            name = names.get(item.get("category_id", -1)) if isinstance(item.get("category_id"), int) else None
            if name is None:
                return LeftOut(key, f"an annotation has category {short(item.get('category_id'))}, which is not listed")
            try:
                _draw(canvas, item.get("segmentation"), classes.value(name))
            except _NoMask as error:
                notes.add(f"{short(name)}: {error}")
            except RegionError as error:
                return LeftOut(key, f"{short(name)}: {error}")
        notes.overlap(canvas.overlapping)
        return Annotated(key, canvas.mask, find_image(self._files, document, key), split_of(document), notes.all())

    def _where(self, document: str) -> str:
        return f"{self._files.uri}: {short(document)}"


class _NoMask(Exception):
    """An annotation that says nothing of pixels."""


def _draw(canvas: Canvas, segmentation: Any, value: int) -> None:
    height, width = canvas.mask.shape
    if isinstance(segmentation, dict):
        canvas.draw(decode_rle(segmentation, height, width), value)
        return
    if not segmentation:
        raise _NoMask("a box or point without a segmentation")
    if not isinstance(segmentation, list):
        raise RegionError("a segmentation is neither polygons nor run lengths")
    for part in segmentation:  # parts of one object, each filled by itself
        canvas.draw(polygon([points(part, flat=True)], height, width), value)


FORMAT = Format(
    "coco", "COCO instances: polygons, run lengths", lambda files: bool(documents(files, panoptic=False)), _Coco
)
