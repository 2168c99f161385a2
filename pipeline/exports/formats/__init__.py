"""The formats of `fcn masks export`, by name.

To add one, write a module with a class that is a `base.ExportFormat`, and give it a line in `EXPORT_FORMATS`. Only
names are read here: a format is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pipeline.exports.formats.base import ExportFormat

EXPORT_FORMATS = {
    "png": "png:PngMasks",
    "color": "color:ColorMasks",
    "overlay": "overlay:Overlays",
    "coco-rle": "coco_rle:CocoRunLengths",
    "coco-panoptic": "coco_panoptic:CocoPanoptic",
    "polygons": "polygons:CocoPolygons",
    "yolo": "yolo:YoloSegments",
    "geojson": "geojson:GeoJson",
}
"""Each format's name, and the module and name of its class."""

if TYPE_CHECKING:
    ExportFormatName = str
else:
    ExportFormatName = Literal[tuple(EXPORT_FORMATS)]


def export_format(name: ExportFormatName) -> "type[ExportFormat]":
    """The class of that name in EXPORT_FORMATS."""
    module, _, attribute = EXPORT_FORMATS[name].partition(":")
    found: type[ExportFormat] = getattr(import_module(f"{__name__}.{module}"), attribute)
    return found
