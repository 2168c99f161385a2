"""The formats of annotations. To add one, write a module with a `FORMAT` and give it a line here."""

from importlib import import_module
from typing import cast

from pipeline.data.annotations.importer import Format

FORMATS = {
    "cvat": "cvat_mask",
    "coco-panoptic": "coco_panoptic",
    "coco": "coco",
    "label-studio-png": "label_studio_png",
    "label-studio": "label_studio",
    "labelme": "labelme",
    "supervisely": "supervisely",
    "cityscapes": "cityscapes",
    "pairs": "pairs",
}
"""The module of each format, in the order in which `auto` tries them: the most particular first."""


def format_named(name: str) -> Format:
    """The format of this name; one of FORMATS."""
    return cast(Format, import_module(f"pipeline.data.annotations.{FORMATS[name]}").FORMAT)
