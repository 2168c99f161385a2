"""COCO's panoptic form: a JSON whose annotations name a PNG and its segments; a pixel's colour is its segment's id,
red + 256 green + 65536 blue. Pixels of id 0 have no label."""

import posixpath
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.data.annotations.class_map import ClassMap
from pipeline.data.annotations.coco import categories, documents, find_image, images, split_of
from pipeline.data.annotations.importer import Annotated, Format, LeftOut, SourceClass
from pipeline.data.annotations.json_fields import items, objects, text
from pipeline.data.annotations.mask_files import colors
from pipeline.data.annotations.regions import RegionError
from pipeline.data.annotations.source_files import LARGEST_MASK, SourceFiles, short
from pipeline.errors import InputError, StorageError


class _Panoptic:
    def __init__(self, files: SourceFiles) -> None:
        self._files = files
        self._documents = documents(files, panoptic=True)
        if not self._documents:
            raise InputError(f"{files.uri} has no JSON with segments_info, as COCO's panoptic form has")

    def classes(self) -> Sequence[SourceClass]:
        names: dict[str, None] = {}
        for document in self._documents:
            names |= dict.fromkeys(categories(self._files.json(document), f"{self._files.uri}: {document}").values())
        return [SourceClass(name) for name in names]

    def annotated(self, classes: ClassMap) -> Iterator[Annotated | LeftOut]:
        for document in self._documents:
            value = self._files.json(document)
            names = categories(value, f"{self._files.uri}: {document}")
            known, left_out = images(value)
            yield from left_out
            seen: set[object] = set()
            for item in items(value, "annotations"):
                number = item.get("image_id") if isinstance(item, dict) else None
                image = known.get(number) if isinstance(number, int | str) else None
                if image is None:
                    yield LeftOut(short(number), "an annotation is of an image that the file does not list")
                elif number in seen:
                    yield LeftOut(image["file_name"], "it has two annotations; the first one counts")
                else:
                    seen.add(number)
                    yield self._one(document, image, item, names, classes)

    def _one(
        self, document: str, image: dict[str, Any], item: dict[str, Any], names: dict[int, str], classes: ClassMap
    ) -> Annotated | LeftOut:
        key = image["file_name"]
        try:
            found = self._ids(document, item)
            size = (image.get("height"), image.get("width"))
            if found.shape != size and size != (None, None):
                raise RegionError(f"its mask is {found.shape[1]}x{found.shape[0]}, and its record says {short(size)}")
            values = {0: classes.unlabelled}
            for segment in objects(item, "segments_info"):
                category = segment.get("category_id")
                name = names.get(category) if isinstance(category, int) else None
                number = segment.get("id")
                if name is None or type(number) is not int or not 0 < number < 1 << 24 or number in values:
                    raise RegionError(f"the segment {short(segment)} has no usable id or category")
                values[number] = classes.value(name)
            ids = np.array(sorted(values), np.uint32)
            places = np.minimum(np.searchsorted(ids, found), len(ids) - 1)
            strange = int(np.count_nonzero(ids[places] != found))
            if strange:
                raise RegionError(f"{strange:,} pixels of its mask are of segments that the file does not list")
        except (RegionError, StorageError) as error:
            return LeftOut(key, str(error))
        mask = np.array([values[int(number)] for number in ids], np.uint8)[places]
        return Annotated(key, mask, find_image(self._files, document, key), split_of(document))

    def _ids(self, document: str, item: dict[str, Any]) -> npt.NDArray[np.uint32]:
        name = text(item, "file_name")
        if name is None:
            raise RegionError("its annotation names no PNG")
        place = self._mask_file(document, name)
        if place is None:
            raise RegionError(f"its mask {short(name)} is not there, or several files have that name")
        rgb = colors(self._files.read(place, LARGEST_MASK))  # 0xRRGGBB; red is the lowest byte of the id
        ids: npt.NDArray[np.uint32] = ((rgb >> 16) | (rgb & 0xFF00) | ((rgb & 0xFF) << 16)).astype(np.uint32)
        return ids

    def _mask_file(self, document: str, name: str) -> str | None:
        folder = posixpath.splitext(document)[0]
        for place in (f"{folder}/{name}", f"{posixpath.dirname(document)}/{name}".lstrip("/"), name):
            if place in self._files:
                return place
        return self._files.image(name)


FORMAT = Format(
    "coco-panoptic",
    "COCO panoptic: PNGs of segment ids",
    lambda files: bool(documents(files, panoptic=True)),
    _Panoptic,
)
