"""Label Studio's export "Brush labels to PNG": a black and white PNG per task, annotation, control tag and label.

Such a file names its task by number only. With the project's JSON export beside the PNGs the image is known; without,
the key is "task-<number>". No order is recorded, so where two labels overlap nothing is known, and the pixels have no
label.
"""

import re
from collections.abc import Iterator, Sequence

import numpy as np

from fcn_core.labels import Mask
from pipeline.data.annotations.class_map import ClassMap
from pipeline.data.annotations.importer import Annotated, Format, LeftOut, SourceClass
from pipeline.data.annotations.label_studio import place_of_image, task_files
from pipeline.data.annotations.mask_files import indices
from pipeline.data.annotations.notes import Notes
from pipeline.data.annotations.regions import Bits, RegionError
from pipeline.data.annotations.source_files import LARGEST_MASK, SourceFiles
from pipeline.errors import StorageError

_NAME = re.compile(
    r"(?:.*/)?task-(?P<task>\d+)-annotation-(?P<annotation>\d+)-by-[\w@.]*-[^-]+-(?P<label>.+)-\d+\.png", re.DOTALL
)


class _BrushPngs:
    def __init__(self, files: SourceFiles) -> None:
        self._files = files
        self._tasks: dict[str, dict[str, list[tuple[str, str]]]] = {}
        for name in files.names:
            match = _NAME.fullmatch(name)
            if match:
                annotations = self._tasks.setdefault(match["task"], {})
                annotations.setdefault(match["annotation"], []).append((match["label"], name))

    def classes(self) -> Sequence[SourceClass]:
        found = {label for task in self._tasks.values() for masks in task.values() for label, _ in masks}
        return [SourceClass(name) for name in sorted(found)]

    def annotated(self, classes: ClassMap) -> Iterator[Annotated | LeftOut]:
        known = self._images()
        for task in sorted(self._tasks, key=int):
            key, paths = known.get(task, (f"task-{task}", []))
            annotations = self._tasks[task]
            if len(annotations) > 1:
                yield LeftOut(key, f"it has {len(annotations)} annotations, and nothing says which one counts")
                continue
            try:
                (masks,) = annotations.values()
                mask, notes = self._painted(masks, classes)
            except (RegionError, StorageError) as error:
                yield LeftOut(key, str(error))
                continue
            image = next((found for path in paths if (found := self._files.image(path))), None)
            yield Annotated(key, mask, image, None, notes)

    def _images(self) -> dict[str, tuple[str, list[str]]]:
        found = {}
        for document in task_files(self._files):
            for task in self._files.json(document):
                try:
                    found[str(task["id"])] = place_of_image(task)
                except (RegionError, ValueError, KeyError, TypeError, AttributeError):
                    continue
        return found

    def _painted(self, masks: list[tuple[str, str]], classes: ClassMap) -> tuple[Mask, tuple[str, ...]]:
        mask: Mask | None = None
        drawn: Bits | None = None
        disputed: Bits | None = None
        notes = Notes()
        for label, name in sorted(masks):
            bits = indices(self._files.read(name, LARGEST_MASK)) > 0
            if mask is None or drawn is None or disputed is None:
                mask = np.full(bits.shape, classes.unlabelled, np.uint8)
                drawn, disputed = np.zeros(bits.shape, np.bool_), np.zeros(bits.shape, np.bool_)
            if bits.shape != mask.shape:
                raise RegionError(f"its masks are of different sizes ({bits.shape} and {mask.shape}, height first)")
            value = classes.value(label)
            disputed |= bits & drawn & (mask != value)
            mask[bits] = value
            drawn |= bits
        if mask is None or disputed is None:
            raise RegionError("it has no mask")
        if disputed.any():
            mask[disputed] = classes.labels.ignore_index
            count = int(np.count_nonzero(disputed))
            notes.add(f"labels overlap in {count:,} pixels, in no order that is recorded; they have none now")
        return mask, notes.all()


FORMAT = Format(
    "label-studio-png",
    'Label Studio\'s "Brush labels to PNG"',
    lambda files: any(_NAME.fullmatch(name) for name in files.names),
    _BrushPngs,
)
