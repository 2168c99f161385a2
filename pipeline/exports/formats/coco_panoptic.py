"""COCO's panoptic form: a PNG whose colours are the ids of segments, and a document that says which is what.

All classes are stuff: a segment is all of a class in an image. Its id is the class's colour where that is free, so that
the PNGs look as masks do; 0, black, is what has no class.
"""

import io
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from fcn_core.labels import RGB
from pipeline.exports.formats.base import ExportContext, Exported, MaskedImage
from pipeline.exports.formats.coco import CocoDocument
from pipeline.exports.shapes.run_lengths import encode_regions


class CocoPanoptic(CocoDocument):
    """See `base.ExportFormat`."""

    folder: ClassVar[str | None] = "annotations/"  # where panopticapi looks for the PNGs of annotations.json
    annotations_have_ids: ClassVar[bool] = False

    def __init__(self, context: ExportContext) -> None:
        super().__init__(context)
        self._colors = segment_colors(context.labels.palette)

    def categories(self) -> list[dict[str, Any]]:
        palette = self.context.labels.palette
        return [
            {**category, "isthing": 0, "color": color}
            for category, color in zip(super().categories(), palette, strict=True)
        ]

    def write(self, image: MaskedImage) -> Exported:
        colors = np.zeros((256, 3), np.uint8)
        segments = []
        for region in encode_regions(image.mask, self.context.options.min_area):
            color = self._colors[region.class_id]
            colors[region.class_id] = color
            segments.append(
                {
                    "id": _number(color),
                    "category_id": region.class_id + 1,
                    "area": region.area,
                    "bbox": region.box,
                    "iscrowd": 0,
                }
            )
        sink = io.BytesIO()
        Image.fromarray(colors[image.mask]).save(sink, "PNG")
        annotation = {"file_name": image.name, "segments_info": segments}
        return Exported(sink.getvalue(), self.records(image, [annotation]))


def segment_colors(palette: tuple[RGB, ...]) -> list[RGB]:
    """The colour of each class's segments: its own, or the next one that is neither black nor another's."""
    taken = {(0, 0, 0)}
    found = []
    for color in palette:
        number = _number(color)
        while color in taken:
            number = (number + 1) % (1 << 24)
            color = (number & 255, number >> 8 & 255, number >> 16)
        taken.add(color)
        found.append(color)
    return found


def _number(color: RGB) -> int:
    """A colour as an id, as panopticapi's rgb2id has it."""
    return color[0] | color[1] << 8 | color[2] << 16
