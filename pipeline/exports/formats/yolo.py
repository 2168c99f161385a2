"""YOLO's segmentation labels: a text file for each image, a line for each connected part, and data.yaml.

A line is the class's index and the outline's points, in shares of the width and the height. The format has no holes: a
hole is cut out through a cut of no width.
"""

import json
from collections.abc import Iterable, Iterator
from typing import ClassVar

from pipeline.exports.formats.base import ExportContext, Exported, MaskedImage, Option
from pipeline.exports.shapes.keyhole import one_ring
from pipeline.exports.shapes.outlines import large_parts
from pipeline.exports.shapes.simplify import simplify

_DIGITS = 9


class YoloSegments:
    """See `base.ExportFormat`."""

    suffix: ClassVar[str] = ".txt"
    folder: ClassVar[str | None] = "labels/"  # YOLO looks there for the labels of what is in images/
    needs_pixels: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = True
    takes: ClassVar[frozenset[Option]] = frozenset({"min_area", "tolerance"})
    document: ClassVar[str | None] = "data.yaml"

    def __init__(self, context: ExportContext) -> None:
        self.context = context

    def write(self, image: MaskedImage) -> Exported:
        options = self.context.options
        height, width = image.mask.shape
        lines = []
        for class_id, part in large_parts(image.mask, options.min_area):
            points = one_ring(simplify(part, options.tolerance)) / (width, height)
            lines.append(" ".join([str(class_id), *(f"{value:.{_DIGITS}g}" for value in points.flat)]) + "\n")
        return Exported("".join(lines).encode())

    def lines(self, records: Iterable[str]) -> Iterator[str]:
        # JSON's strings are YAML's, too, whatever a class is called.
        yield "# The images belong into images/, under their names.\npath: .\ntrain: images\nval: images\nnames:\n"
        for index, name in enumerate(self.context.labels.names):
            yield f"  {index}: {json.dumps(name)}\n"
