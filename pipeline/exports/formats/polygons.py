"""COCO with polygons: one annotation for each connected part of a class.

COCO's polygons have no holes: a hole is cut out through a cut of no width, and the outline fills as the part does.
"""

from collections.abc import Iterator
from typing import Any, ClassVar

from pipeline.exports.formats.base import Exported, MaskedImage, Option
from pipeline.exports.formats.coco import CocoDocument
from pipeline.exports.shapes.keyhole import one_ring
from pipeline.exports.shapes.outlines import large_parts
from pipeline.exports.shapes.simplify import simplify


class CocoPolygons(CocoDocument):
    """See `base.ExportFormat`."""

    takes: ClassVar[frozenset[Option]] = frozenset({"min_area", "tolerance"})

    def write(self, image: MaskedImage) -> Exported:
        return Exported(records=self.records(image, self._annotations(image)))

    def _annotations(self, image: MaskedImage) -> Iterator[dict[str, Any]]:
        options = self.context.options
        for class_id, part in large_parts(image.mask, options.min_area):
            left, top = part.outer.min(axis=0).tolist()
            right, bottom = part.outer.max(axis=0).tolist()
            yield {
                "category_id": class_id + 1,
                "area": part.area,
                "bbox": [left, top, right - left, bottom - top],
                "iscrowd": 0,
                "segmentation": [[_short(value) for value in one_ring(simplify(part, options.tolerance)).flat]],
            }


def _short(value: float) -> float | int:
    """Whole numbers without a point; a cut of a simplified outline may end between them."""
    return int(value) if value == int(value) else round(float(value), 3)
