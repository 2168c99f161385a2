"""A folder of images and a folder of masks that share names: images/a/1.jpg and masks/a/1.png, or both in one folder
with the mask called 1_mask.png, as Roboflow exports them.

What colours or numbers mean says a table in the source (see class_tables) or, without one, the target label set itself.
"""

import posixpath
import re
from collections.abc import Iterator, Sequence

from fcn_core.data.mask_coding import MaskError, read_mask
from fcn_core.labels import Mask
from pipeline.data.annotations.class_map import ClassMap, means_no_label
from pipeline.data.annotations.class_tables import ClassTable, find_table
from pipeline.data.annotations.coco import split_of
from pipeline.data.annotations.cvat_mask import read_lists
from pipeline.data.annotations.importer import Annotated, Format, LeftOut, SourceClass
from pipeline.data.annotations.mask_files import from_colors, from_numbers, indices, open_png
from pipeline.data.annotations.regions import RegionError
from pipeline.data.annotations.source_files import IMAGE_FOLDERS, LARGEST_MASK, SourceFiles
from pipeline.errors import StorageError

_MASK_FOLDERS = (
    "masks", "mask", "labels", "label", "annotations", "annotation", "annot", "gt", "ground_truth", "segmentationclass",
    "segmentation", "masks_machine", "labels_png",
)  # fmt: skip
_MASK_ENDING = re.compile(r"[_.-](mask|masks|label|labels|labelids|seg|gt|l)$", re.IGNORECASE)


class _Pairs:
    def __init__(self, files: SourceFiles) -> None:
        self._files = files
        self._table: ClassTable | None = find_table(files)

    def classes(self) -> Sequence[SourceClass]:
        if self._table is None:
            return []
        colors = {name: color for color, name in self._table.by_color.items()}
        named = self._table.by_number.values() or self._table.by_color.values()
        return [SourceClass(name, colors.get(name)) for name in named if not means_no_label(name)]

    def annotated(self, classes: ClassMap) -> Iterator[Annotated | LeftOut]:
        masks = dict(_masks(self._files))
        images = _images(self._files, masks)
        lists = read_lists(self._files, "ImageSets/Segmentation/")
        taken: set[str] = set()
        for place, stem in masks.items():
            if stem in taken:
                yield LeftOut(stem, f"{place} is a second mask of this name")
                continue
            taken.add(stem)
            found = images.get(stem, [])
            if len(found) > 1:
                yield LeftOut(stem, f"{' and '.join(found[:2])} have its name; rename or remove all but one")
                continue
            image = found[0] if found else None
            try:
                mask = self._read(self._files.read(place, LARGEST_MASK), classes)
            except (RegionError, StorageError) as error:
                yield LeftOut(image or stem, str(error))
                continue
            yield Annotated(
                _key(image) if image else stem, mask, image, lists.get(stem) or split_of(posixpath.dirname(place))
            )
        for stem in sorted(images.keys() - set(masks.values())):
            yield LeftOut(images[stem][0], "it has no mask")

    def _read(self, data: bytes, classes: ClassMap) -> Mask:
        if self._table is not None:
            mode = open_png(data).mode
            if self._table.by_color and (mode in ("RGB", "RGBA") or not self._table.by_number):
                return from_colors(data, self._table.by_color, classes, unlabelled=[classes.labels.ignore_color])
            if self._table.by_number:
                return from_numbers(indices(data), self._table.by_number, classes)
        try:
            mask = read_mask(data, classes.labels)
        except MaskError as error:
            raise RegionError(str(error)) from error
        return from_numbers(mask, dict(enumerate(classes.labels.names)), classes)


def _masks(files: SourceFiles) -> Iterator[tuple[str, str]]:
    """The mask files and the names that they share with their images."""
    for name in files.ending(".png"):
        folders, base = name.split("/")[:-1], posixpath.splitext(posixpath.basename(name))[0]
        place = next((i for i, folder in enumerate(folders) if folder.lower() in _MASK_FOLDERS), None)
        if place is not None:
            above = "/".join([*folders[:place], *folders[place + 1 :], ""])
            yield name, above + base
        elif not any(folder.lower() in IMAGE_FOLDERS for folder in folders) and _MASK_ENDING.search(base):
            yield name, "/".join([*folders, ""]) + _MASK_ENDING.sub("", base)


def _key(image: str) -> str:
    """The image's path without the folder that only says that there are images."""
    folders, base = posixpath.split(image)
    return "/".join([*(part for part in folders.split("/") if part and part.lower() not in IMAGE_FOLDERS), base])


def _images(files: SourceFiles, masks: dict[str, str]) -> dict[str, list[str]]:
    """The images by the names that they share with their masks. A mask's name may have an ending such as _mask."""
    wanted = set(masks.values())
    short_names = {_MASK_ENDING.sub("", stem): stem for stem in wanted}
    found: dict[str, list[str]] = {}
    for name in files.images():
        if name in masks:
            continue
        folders, base = name.split("/")[:-1], posixpath.splitext(posixpath.basename(name))[0]
        kept = [folder for folder in folders if folder.lower() not in IMAGE_FOLDERS]
        stem = "/".join([*kept, base])
        found.setdefault(stem if stem in wanted else short_names.get(stem, stem), []).append(name)
    return found


def _recognises(files: SourceFiles) -> bool:
    masks = dict(_masks(files))
    return bool(masks) and bool(_images(files, masks).keys() & set(masks.values()))


FORMAT = Format("pairs", "images and masks by name: a folder each, or _mask.png", _recognises, _Pairs)
