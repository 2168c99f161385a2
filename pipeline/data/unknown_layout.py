"""A folder that is in no layout of data sets: what it seems to be, and what to do with it."""

import posixpath
from collections.abc import Sequence

from fcn_core.text.printable import printable, shortened
from pipeline.data.annotations.opening import recognised_format
from pipeline.data.annotations.source_files import IMAGE_FOLDERS, open_files
from pipeline.numbers import counted

_NAME_LENGTH = 60
_ANNOTATIONS = {
    "cvat": "an export of CVAT (segmentation mask)",
    "coco-panoptic": "COCO's panoptic annotations",
    "coco": "COCO's annotations",
    "label-studio-png": "masks that Label Studio exported",
    "label-studio": "an export of Label Studio",
    "labelme": "labelme's files",
    "supervisely": "a project of Supervisely",
    "cityscapes": "Cityscapes' layout",
    "pairs": "pairs of images and masks",
}


def describe_unknown(dataset: str, *, follow_links: bool) -> str:
    """What there is in place of a layout, in a few words, and how to go on: an import, or a manifest of three lines.

    Lists the whole folder. Raises InputError and StorageErrors as opening it does.
    """
    files = open_files(dataset, follow_links=follow_links)
    found = recognised_format(files)
    if found == "cityscapes":
        return "it looks like Cityscapes' layout: give --preset cityscapes"
    if found is not None:
        return (
            f"it looks like {_ANNOTATIONS[found]}: make a data set of it with `fcn data import {printable(dataset)} "
            f"-o DATASET`, or write {_manifest(files.names)}"
        )
    images = sum(1 for _ in files.images())
    what = f"{counted(images, 'image') if images else 'no image'} among {counted(len(files.names), 'file')}"
    return f"it holds {what}, in no layout that is known; write {_manifest(files.names)}"


def _manifest(names: Sequence[str]) -> str:
    """The first lines of a manifest, with names that are there as far as any are."""
    images = [name for name in names if posixpath.dirname(name).split("/")[0].lower() in IMAGE_FOLDERS]
    masks = [name for name in names if name.lower().endswith(".png") and name not in set(images)]
    image = _shown((images or [name for name in names if name not in set(masks)] or ["images/a.jpg"])[0])
    mask = _shown((masks or ["masks/a.png"])[0])
    return f"a manifest.csv, a row for each image, and give that:\nimage,mask,split\n{image},{mask},train\n..."


def _shown(name: str) -> str:
    return shortened(printable(name), _NAME_LENGTH)
