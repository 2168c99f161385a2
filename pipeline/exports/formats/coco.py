"""COCO's document: categories, images and their annotations in one JSON.

A category's id is the class's index and 1: in COCO's tools 0 stands for pixels without a class. Images have their keys
as `file_name`, and are numbered from 1 in the order of their keys.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar

from pipeline.exports.formats.base import ExportContext, MaskedImage, Option

_IMAGE, _ANNOTATION = "I", "A"


class CocoDocument:
    """What the COCO formats have in common; see `base.ExportFormat`. `write` is left to the format."""

    suffix: ClassVar[str] = ".png"
    folder: ClassVar[str | None] = None
    needs_pixels: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = True
    takes: ClassVar[frozenset[Option]] = frozenset({"min_area"})
    document: ClassVar[str | None] = "annotations.json"

    annotations_have_ids: ClassVar[bool] = True

    def __init__(self, context: ExportContext) -> None:
        self.context = context

    def categories(self) -> list[dict[str, Any]]:
        """`categories` of the document."""
        names = self.context.labels.names
        return [{"id": index + 1, "name": name, "supercategory": name} for index, name in enumerate(names)]

    def records(self, image: MaskedImage, annotations: Iterable[dict[str, Any]]) -> Sequence[str]:
        """An image and its annotations, without their numbers."""
        height, width = image.mask.shape
        about = {"file_name": image.key, "width": width, "height": height}
        return [_IMAGE + _json(about), *(_ANNOTATION + _json(each) for each in annotations)]

    def lines(self, records: Iterable[str]) -> Iterator[str]:
        yield f'{{"info":{{"description":"masks by fcn segment"}},\n"categories":{_json(self.categories())},\n'
        yield '"images":['
        number = 0
        for record in records:
            if record.startswith(_IMAGE):
                number += 1
                yield f'{"," if number > 1 else ""}\n{{"id":{number},{record[2:]}'
        yield '],\n"annotations":['
        image = number = 0
        for record in records:
            if record.startswith(_IMAGE):
                image += 1
                continue
            number += 1
            own = f'"id":{number},' if self.annotations_have_ids else ""
            yield f'{"," if number > 1 else ""}\n{{{own}"image_id":{image},{record[2:]}'
        yield "]}\n"


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
