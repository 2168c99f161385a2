"""Cityscapes' fine annotations: gtFine/<split>/<city>/<name>_gtFine_labelIds.png, images in leftImg8bit/.

The numbers of the download have names, of which any label set may have some. The four that mean "no label" (unlabeled,
ego vehicle, rectification border, out of roi) never become a class.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from fcn_core.labels import preset
from pipeline.data.annotations.class_map import ClassMap
from pipeline.data.annotations.importer import Annotated, Format, LeftOut, SourceClass
from pipeline.data.annotations.mask_files import from_numbers, indices
from pipeline.data.annotations.regions import RegionError
from pipeline.data.annotations.source_files import LARGEST_MASK, SourceFiles
from pipeline.errors import StorageError

_NO_LABEL = ("unlabeled", "ego vehicle", "rectification border", "out of roi")
_NAMES = (
    *_NO_LABEL, "static", "dynamic", "ground", "road", "sidewalk", "parking", "rail track", "building", "wall", "fence",
    "guard rail", "bridge", "tunnel", "pole", "polegroup", "traffic light", "traffic sign", "vegetation", "terrain",
    "sky", "person", "rider", "car", "truck", "bus", "caravan", "trailer", "train", "motorcycle", "bicycle",
)  # fmt: skip
_IDS, _TRAIN_IDS = "_gtFine_labelIds.png", "_gtFine_labelTrainIds.png"


class _GtFine:
    def __init__(self, files: SourceFiles) -> None:
        self._files = files
        ids = [name for name in files.names if name.endswith(_IDS)]
        self._ending = _IDS if ids else _TRAIN_IDS
        self._masks = ids or [name for name in files.names if name.endswith(_TRAIN_IDS)]
        self._names = dict(enumerate(_NAMES if ids else preset("cityscapes").names))

    def classes(self) -> Sequence[SourceClass]:
        colors = dict(zip(preset("cityscapes").names, preset("cityscapes").palette, strict=True))
        return [SourceClass(name, colors[name]) for name in self._names.values() if name in colors]

    def annotated(self, classes: ClassMap) -> Iterator[Annotated | LeftOut]:
        for name in self._masks:
            key = name.removesuffix(self._ending).rpartition("gtFine/")[2]
            try:
                numbers = indices(self._files.read(name, LARGEST_MASK))
                mask = from_numbers(numbers, self._names, classes)
            except (RegionError, StorageError) as error:
                yield LeftOut(key, str(error))
                continue
            if self._ending == _IDS:
                mask[numbers < len(_NO_LABEL)] = classes.labels.ignore_index
                if not np.any(numbers >= len(_NO_LABEL)):
                    yield LeftOut(key, "nothing in it is labelled, as in the test split that is published")
                    continue
            image = self._files.image(f"leftImg8bit/{key}_leftImg8bit.png")
            split = key.partition("/")[0] if key.count("/") == 2 else None
            yield Annotated(image.rpartition("leftImg8bit/")[2] if image else key, mask, image, split)


FORMAT = Format(
    "cityscapes",
    "Cityscapes' gtFine",
    lambda files: any(name.endswith((_IDS, _TRAIN_IDS)) for name in files.names),
    _GtFine,
)
