"""CVAT's "Segmentation mask 1.1": labelmap.txt, SegmentationClass/<name>.png in its colours, lists in
ImageSets/Segmentation/. Also what datumaro calls VOC segmentation, and what `fcn rank --format cvat` writes.

Objects are painted already, in z-order. "background" is what nobody has annotated.
"""

import json
import posixpath
import re
from collections.abc import Iterator, Sequence

from fcn_core.labels import RGB, parse_labels
from pipeline.data.annotations.class_map import ClassMap, means_no_label
from pipeline.data.annotations.importer import Annotated, Format, LeftOut, SourceClass
from pipeline.data.annotations.mask_files import from_colors
from pipeline.data.annotations.regions import RegionError
from pipeline.data.annotations.source_files import LARGEST_MASK, SourceFiles, short
from pipeline.errors import InputError, StorageError

_MASKS = "SegmentationClass/"
_LISTS = "ImageSets/Segmentation/"
_IMAGES = "JPEGImages/"
_LINE = re.compile(r"(?P<name>.*?):(?P<color>[0-9 ]+,[0-9 ]+,[0-9 ]+)(:.*)?")
_NO_SPLIT = ("default", "trainval")


class _CvatMasks:
    def __init__(self, files: SourceFiles) -> None:
        self._files = files
        self._table = read_labelmap(files.text("labelmap.txt"), f"{files.uri}: labelmap.txt")

    def classes(self) -> Sequence[SourceClass]:
        return [SourceClass(name, color) for color, name in self._table.items() if not means_no_label(name)]

    def annotated(self, classes: ClassMap) -> Iterator[Annotated | LeftOut]:
        splits = read_lists(self._files, _LISTS)
        extra = [] if classes.labels.ignore_color in self._table else [classes.labels.ignore_color]
        stems = [name[len(_MASKS) : -4] for name in self._files.ending(".png") if name.startswith(_MASKS)]
        for stem in stems:
            if splits and stem not in splits:
                yield LeftOut(stem, f"no list in {_LISTS} names it")
                continue
            try:
                data = self._files.read(f"{_MASKS}{stem}.png", LARGEST_MASK)
                mask = from_colors(data, self._table, classes, unlabelled=extra)
            except (RegionError, StorageError) as error:
                yield LeftOut(stem, str(error))
                continue
            image = self._files.image_of_stem(stem, _IMAGES)
            key = image.removeprefix(_IMAGES) if image else stem
            yield Annotated(key, mask, image, splits.get(stem))
        for stem in sorted(splits.keys() - set(stems)):
            yield LeftOut(stem, f"{_LISTS} names it, and there is no {_MASKS}{stem}.png")


def read_labelmap(text: str, where: str) -> dict[RGB, str]:
    """The names of a labelmap.txt by colour, in its order; without any colours, as datumaro has it, by PASCAL VOC's.

    Raises InputError.
    """
    table: dict[RGB, str] = {}
    bare = [line.strip().removesuffix(":::") for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if bare and all(line.strip().endswith(":::") for line in text.splitlines() if line.strip()[:1] not in ("", "#")):
        labels = parse_labels(json.dumps({"name": "labelmap", "names": bare}).encode(), where)
        return dict(zip(labels.palette, labels.names, strict=True))
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.strip())
        if match is None:
            raise InputError(f"{where}: line {number} ({short(line)}) is not name:red,green,blue::")
        red, green, blue = (int(part[:9]) for part in match["color"].split(","))
        if max(red, green, blue) > 255:
            raise InputError(f"{where}: line {number} has a colour over 255")
        if table.setdefault((red, green, blue), match["name"]) != match["name"]:
            raise InputError(
                f"{where}: {short(table[red, green, blue])} and {short(match['name'])} have one colour, so that masks "
                "do not tell them apart; give each its own and export again"
            )
    if not table:
        raise InputError(f"{where} names no class")
    return table


def read_lists(files: SourceFiles, folder: str) -> dict[str, str | None]:
    """The split of each name that the lists in `folder` have; None for a list that is no split."""
    splits: dict[str, str | None] = {}
    for path in files.ending(".txt"):
        if not path.startswith(folder) or "/" in path[len(folder) :]:
            continue
        name = posixpath.basename(path)[:-4]
        split = None if name in _NO_SPLIT else name
        for line in files.text(path, 256 << 20).splitlines():
            if line.strip():
                stem = line.strip()
                splits[stem] = split if splits.get(stem) is None else splits[stem]
    return splits


FORMAT = Format(
    "cvat",
    'CVAT\'s "Segmentation mask 1.1"',
    lambda files: "labelmap.txt" in files and any(name.startswith(_MASKS) for name in files.names),
    _CvatMasks,
)
