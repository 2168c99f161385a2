"""Annotated masks of an audit's sample, from whatever a labelling tool exported.

A folder of PNGs that are called as the tasks or the images is read as it is; all else goes through the importers of
data sets (`pipeline.data.annotations`). Which image a mask is of follows from its name.
"""

import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from fcn_core import LabelSet
from fcn_core.errors import LabelError
from fcn_core.labels import UNREADABLE, Mask, decode_mask, encode_mask, indices_from_rgb
from pipeline.data.annotations.opening import open_annotations
from pipeline.errors import InputError
from pipeline.storage.store import Store

ARCHIVES = (".zip", ".json", ".tar", ".tar.gz", ".tgz")
COLOR_TABLE = "labelmap.txt"
LARGEST_MASK = 256 << 20
"""In bytes: no PNG of a mask is larger."""

_MASK_FOLDERS = ("SegmentationClass/",)
"""Folders of a tool's own in which masks lie, beside other pictures."""


@dataclass(frozen=True)
class AnnotatedMask:
    """One mask that a source holds: the name that it has there, without its suffix, and how to read it.

    `read` takes the width and height that the mask must have and raises LabelError for what is no such mask.
    """

    name: str
    read: Callable[[int, int], Mask]


def mask_folder(place: Store, labels: LabelSet) -> list[AnnotatedMask]:
    """A folder of PNGs, of class indices or in the colours of the label set, by the task's name or the image's key.

    Empty for a folder that has a colour table of its own: its colours are an importer's to read.
    """
    infos = list(place.list())
    if any(info.key.rpartition("/")[2] == COLOR_TABLE for info in infos):
        return []
    keys = [info.key for info in infos if info.key.lower().endswith(".png") and info.size <= LARGEST_MASK]
    for folder in _MASK_FOLDERS:
        keys = [key for key in keys if key.startswith(folder) or f"/{folder}" in key] or keys
    return [_png(place, key, labels) for key in keys]


def _png(place: Store, key: str, labels: LabelSet) -> AnnotatedMask:
    name = key[: -len(".png")]
    for folder in _MASK_FOLDERS:
        name = name.rpartition(folder)[2]
    return AnnotatedMask(name, lambda width, height: read_png(place.get(key), width, height, labels))


def imported(place: Store, labels: LabelSet) -> Iterator[AnnotatedMask]:
    """What an importer reads: CVAT, Label Studio, labelme, COCO and others. Keeps masks packed, one after the other.

    Raises InputError for what is of no known format.
    """
    source = open_annotations(place.uri, labels)
    for key, mask, _ in source:
        packed = encode_mask(mask, labels)
        yield AnnotatedMask(key, lambda width, height, packed=packed: read_png(packed, width, height, labels))  # type: ignore[misc]
    for item in source.left_out:
        yield AnnotatedMask(item.key, _refusal(item.why))


def _refusal(why: str) -> Callable[[int, int], Mask]:
    def read(width: int, height: int) -> Mask:
        raise LabelError(why)

    return read


@dataclass(frozen=True)
class Annotations:
    """What a source holds of a sample: by key the mask, and names of masks that are of no image of the sample."""

    masks: Mapping[str, AnnotatedMask]
    not_sampled: tuple[str, ...]


def find_annotations(place: Store, labels: LabelSet, names: Mapping[str, str]) -> Annotations:
    """The masks under `place` of the images in `names`: keys, by the name of the task.

    Raises InputError for what no importer knows, where none is of the sample, and where two are of one image.
    """
    keys = _by_name(names)
    found: list[AnnotatedMask] = []
    if not place.uri.lower().endswith(ARCHIVES):
        place.check_readable()
        found = mask_folder(place, labels)
    if not any(_key_of(mask.name, keys, names) for mask in found):
        try:
            found = list(imported(place, labels))
        except InputError:
            if not found:
                raise
    masks: dict[str, AnnotatedMask] = {}
    strangers = []
    for mask in found:
        key = _key_of(mask.name, keys, names)
        if key is None:
            strangers.append(mask.name)
        elif key in masks:
            raise InputError(
                f"{place.uri} has two masks of {key!r}: {masks[key].name!r} and {mask.name!r}; leave one of them out"
            )
        else:
            masks[key] = mask
    if not masks:
        shown = f" (such as {strangers[0]!r})" if strangers else ""
        raise InputError(
            f"none of the {len(strangers)} masks under {place.uri}{shown} is of an image that the audit drew; other "
            "annotations, such as a training set, are no random sample and give no estimate"
        )
    return Annotations(masks, tuple(sorted(strangers)))


def _key_of(name: str, keys: Mapping[str, str], names: Mapping[str, str]) -> str | None:
    """The image that a mask is of; tools put the task's file into folders of their own, with its suffix."""
    last = name.rpartition("/")[2]
    return keys.get(name) or keys.get(name.rpartition(".")[0]) or names.get(last) or names.get(last.rpartition(".")[0])


def _by_name(names: Mapping[str, str]) -> dict[str, str]:
    """What a mask of each image may be called: as its task, as its key, or as its key without a suffix.

    A name that two images could have means neither, except for the one whose task is called that.
    """
    keys: dict[str, str] = {}
    doubtful: set[str] = set()
    for key in names.values():
        stem = key.rpartition(".")[0] if "." in key.rpartition("/")[2] else key
        for name in {key, stem}:
            if keys.setdefault(name, key) != key:
                doubtful.add(name)
    return {name: key for name, key in keys.items() if name not in doubtful} | dict(names)


def read_png(data: bytes, width: int, height: int, labels: LabelSet) -> Mask:
    """A mask of this size, uint8 [height, width]: class indices, or colours of `labels`. Raises LabelError."""
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            size = image.size
            fits = size == (width, height)
            # Only what has the right size is unpacked.
            colours = np.array(image.convert("RGB")) if fits and image.mode in ("RGB", "RGBA") else None
    except UNREADABLE as error:
        raise LabelError("the mask is no readable PNG") from error
    if not fits:
        raise LabelError(f"the mask has {size[0]}x{size[1]} pixels, the image {width}x{height}")
    mask = indices_from_rgb(colours, labels) if colours is not None else decode_mask(data)
    strange = np.unique(mask[(mask >= labels.num_classes) & (mask != labels.ignore_index)])
    if len(strange):
        raise LabelError(f"the mask has the value {strange[0]}, which is no class and not {labels.ignore_index} (void)")
    return mask
