"""GeoJSON: a file for each image, a polygon with holes for each connected part of a class.

Coordinates are pixels, (0, 0) the upper left corner of the image and y running down: not the longitude and latitude
that RFC 7946 means. By the numbers outer rings are counterclockwise, as it asks.
"""

import json
from typing import ClassVar

from pipeline.exports.formats.base import Exported, MaskedImage, Option
from pipeline.exports.formats.one_file import OneFile
from pipeline.exports.shapes.outlines import Ring, large_parts
from pipeline.exports.shapes.simplify import simplify


class GeoJson(OneFile):
    """See `base.ExportFormat`."""

    suffix: ClassVar[str] = ".geojson"
    needs_labels: ClassVar[bool] = True
    takes: ClassVar[frozenset[Option]] = frozenset({"min_area", "tolerance"})

    def write(self, image: MaskedImage) -> Exported:
        options = self.context.options
        names = self.context.labels.names
        features = []
        for class_id, exact in large_parts(image.mask, options.min_area):
            part = simplify(exact, options.tolerance)
            features.append(
                {
                    "type": "Feature",
                    "properties": {"class_id": class_id, "class_name": names[class_id], "area": part.area},
                    "geometry": {"type": "Polygon", "coordinates": [_closed(part.outer), *map(_closed, part.holes)]},
                }
            )
        height, width = image.mask.shape
        collection = {
            "type": "FeatureCollection",
            "key": image.key,
            "width": width,
            "height": height,
            "features": features,
        }
        return Exported(json.dumps(collection, separators=(",", ":")).encode())


def _closed(ring: Ring) -> list[list[int]]:
    points: list[list[int]] = ring.tolist()
    return [*points, points[0]]
