"""Cityscapes' fine annotations: gtFine/<split>/<city>/<name>_gtFine_labelIds.png, images in leftImg8bit/.

The numbers of the download have names, of which any label set may have some. The four that mean "no label" (unlabeled,
ego vehicle, rectification border, out of roi) never become a class. CVAT and datumaro write other classes in this
layout, numbered as label_colors.txt lists them.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from fcn_core.labels import preset
from pipeline.data.annotations.class_map import ClassMap, means_no_label
from pipeline.data.annotations.importer import Annotated, Format, LeftOut, SourceClass
from pipeline.data.annotations.mask_files import from_numbers, indices
from pipeline.data.annotations.regions import RegionError
from pipeline.data.annotations.source_files import LARGEST_MASK, SourceFiles
from pipeline.errors import InputError, StorageError

_NO_LABEL = ("unlabeled", "ego vehicle", "rectification border", "out of roi")
_NAMES = (
    *_NO_LABEL, "static", "dynamic", "ground", "road", "sidewalk", "parking", "rail track", "building", "wall", "fence",
    "guard rail", "bridge", "tunnel", "pole", "polegroup", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "caravan", "trailer", "train", "motorcycle", "bicycle",
)  # fmt: skip
_TABLE = "label_colors.txt"
_IDS, _TRAIN_IDS = "_gtFine_labelIds.png", "_gtFine_labelTrainIds.png"


class _GtFine:
    def __init__(self, files: SourceFiles) -> None:
        self._files = files
        ids = [name for name in files.names if name.endswith(_IDS)]
        self._ending = _IDS if ids else _TRAIN_IDS
        self._masks = ids or [name for name in files.names if name.endswith(_TRAIN_IDS)]
        self._own = _TABLE in files
        if self._own:
            names: Sequence[str] = [name for line in files.text(_TABLE).splitlines() if (name := _name(line))]
        else:
            names = _NAMES if ids else preset("cityscapes").names
        if len(names) > 255:
            raise InputError(f"{files.uri}: {_TABLE} lists {len(names):,} classes, and a mask holds 255")
        self._names = dict(enumerate(names))

    def classes(self) -> Sequence[SourceClass]:
        colors = dict(zip(preset("cityscapes").names, preset("cityscapes").palette, strict=True))
        return [
            SourceClass(name, colors.get(name))
            for name in self._names.values()
            if (not means_no_label(name) if self._own else name in colors)
        ]

    def annotated(self, classes: ClassMap) -> Iterator[Annotated | LeftOut]:
        for name in self._masks:
            key = name.removesuffix(self._ending).rpartition("gtFine/")[2]
            try:
                numbers = indices(self._files.read(name, LARGEST_MASK))
                mask = from_numbers(numbers, self._names, classes)
            except (RegionError, StorageError) as error:
                yield LeftOut(key, str(error))
                continue
            if self._ending == _IDS and not self._own:
                mask[numbers < len(_NO_LABEL)] = classes.labels.ignore_index
                if not np.any(numbers >= len(_NO_LABEL)):
                    yield LeftOut(key, "nothing in it is labelled, as in the test split that is published")
                    continue
            image = self._files.image(f"leftImg8bit/{key}_leftImg8bit.png")
            split = key.partition("/")[0] if "/" in key else None
            yield Annotated(
                image.rpartition("leftImg8bit/")[2] if image else key,
                mask,
                image,
                None if split == "default" else split,
            )


def _name(line: str) -> str:
    """The name in "128 64 128 road", or in a line without a colour."""
    parts = line.split(maxsplit=3)
    has_color = len(parts) == 4 and all(part.isascii() and part.isdecimal() for part in parts[:3])
    return parts[3].strip() if has_color else line.strip()


FORMAT = Format(
    "cityscapes",
    "Cityscapes' gtFine",
    lambda files: any(name.endswith((_IDS, _TRAIN_IDS)) for name in files.names),
    _GtFine,
)
