"""Images and their masks as a project that a labelling tool imports: Label Studio or CVAT.

Both get copies of the images under flat names of their own (a tool that flattens folders must not mix images up), the
masks as what the model proposes, the label set in the tool's own format, and `images.csv`, which says which copy is
which image.
"""

import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from fcn_core import LabelSet
from fcn_core.errors import LabelError
from fcn_core.labels import RGB, Mask, decode_mask, encode_mask
from pipeline.csv_text import csv_line
from pipeline.data.annotations.brush_rle import encode_brush
from pipeline.errors import InputError, ObjectChanged, ObjectMissing
from pipeline.outputs.identity import digest
from pipeline.outputs.masks import read_mask
from pipeline.parallel import in_parallel
from pipeline.storage.store import Store

LabellingFormat = Literal["label-studio", "cvat"]

COPIES_AT_ONCE = 8
TASKS_A_FILE = 50
LONGEST_NAME = 150
"""Bytes of a copy's name without its suffix, and without the mark that tells it from another."""

_GREYS = tuple((value, value, value) for value in range(1, 256))

_MARKED = re.compile(r"-[0-9a-f]{16}$", re.IGNORECASE)


@dataclass(frozen=True)
class ExportedImage:
    """One image with its mask: the image's identity, where the mask is, and what to keep beside them.

    `priority` is the ranking's, `confidence` the model's.
    """

    key: str
    etag: str
    mask_key: str
    priority: float
    reason: str
    confidence: float | None


@dataclass(frozen=True)
class Exported:
    """What an export did: `left_out` are (key, why) of images that are not what they were when they were segmented."""

    images: int
    left_out: tuple[tuple[str, str], ...]
    next_step: str


@dataclass(frozen=True)
class _Loaded:
    item: ExportedImage
    name: str  # of the copy, without a folder or suffix
    suffix: str
    image: bytes
    mask: Mask


def export_labelling(
    items: Sequence[ExportedImage],
    source: Store,
    output: Store,
    target: Store,
    labels: LabelSet,
    form: LabellingFormat,
    *,
    model_version: str,
    url_prefix: str | None = None,
) -> Exported:
    """Write `items`, in their order, as a project under `target`.

    Images are read from `source`, masks from `output`. An image that has changed since it was segmented is left out:
    its mask is of another picture. `url_prefix` is where Label Studio will find the folder `images/`; default: what
    `image_prefix` says. Raises InputError for labels that the format cannot express.
    """

    def read(item: ExportedImage) -> tuple[bytes, Mask]:
        return source.get(item.key, etag=item.etag), decode_mask(read_mask(output, item.mask_key))

    return write_project(items, read, target, labels, form, model_version=model_version, url_prefix=url_prefix)


def write_project(
    items: Sequence[ExportedImage],
    read: Callable[[ExportedImage], tuple[bytes, Mask]],
    target: Store,
    labels: LabelSet,
    form: LabellingFormat,
    *,
    model_version: str,
    url_prefix: str | None = None,
) -> Exported:
    """The same with images' bytes and masks, uint8 [H, W], from `read`, which raises ObjectChanged, ObjectMissing or
    LabelError for an item that is to be left out."""
    names = copy_names([item.key for item in items])
    left_out: list[tuple[str, str]] = []

    def load(item: ExportedImage) -> _Loaded | None:
        try:
            image, mask = read(item)
        except (ObjectChanged, ObjectMissing, LabelError) as error:
            left_out.append((item.key, str(error)))
            return None
        suffix = PurePosixPath(item.key).suffix.lower()
        suffix = suffix if re.fullmatch(r"\.[a-z0-9]{1,5}", suffix) else ".jpg"
        return _Loaded(item, names[item.key], suffix, image, mask)

    # A few at a time: images may be large.
    results = in_parallel(load, items, threads=COPIES_AT_ONCE, ahead=1, name="labelling")
    loaded = (one for one in results if one is not None)
    if form == "cvat":
        written, next_step = _write_cvat(loaded, target, labels)
    else:
        prefix = url_prefix if url_prefix is not None else image_prefix(target)
        written, next_step = _write_label_studio(loaded, target, labels, prefix, model_version)
    _write_list(target, written)
    return Exported(len(written), tuple(sorted(left_out)), next_step)


def copy_names(keys: Sequence[str]) -> dict[str, str]:
    """A flat name for the copy of each key, all different, even where case does not count and in every tool.

    The key without its suffix; what is not a letter, digit, '.', '-' or '_' becomes '_'. Names that would meet, and
    those too long, end in a digest of the key.
    """
    plain = {key: _plain_name(key) for key in keys}
    uses = Counter(name.lower() for name in plain.values())

    def name_of(key: str) -> str:
        name = plain[key]
        # A name that looks marked is marked, too: it must not be what another key is given.
        free = uses[name.lower()] == 1 and len(name) <= LONGEST_NAME and not _MARKED.search(name)
        return name if free and name else f"{name[:LONGEST_NAME] or 'image'}-{digest(key)}"

    return {key: name_of(key) for key in keys}


def _plain_name(key: str) -> str:
    stem = re.sub(r"\.\w{1,5}$", "", key, flags=re.ASCII)
    return re.sub(r"[^\w.-]", "_", stem, flags=re.ASCII).lstrip(".-")


def image_prefix(target: Store) -> str:
    """Where Label Studio finds what is under `target`: object storage by URI, a folder through its local storage.

    For a folder, LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT must be the folder that it lies in.
    """
    if target.location.scheme != "file":
        return target.uri.split("?")[0].rstrip("/")
    return f"/data/local-files/?d={quote(target.location.folders[-1] if target.location.folders else '')}"


def _write_label_studio(
    loaded: Iterator[_Loaded], target: Store, labels: LabelSet, prefix: str, model_version: str
) -> tuple[list[_Loaded], str]:
    written: list[_Loaded] = []
    tasks: list[dict[str, Any]] = []
    files = 0

    def flush() -> None:
        nonlocal files
        files += 1
        target.put(f"tasks-{files:03d}.json", json.dumps(tasks, ensure_ascii=False).encode())
        tasks.clear()

    for one in loaded:
        file = f"{one.name}{one.suffix}"
        target.put(f"images/{file}", one.image)
        tasks.append(_task(one, f"{prefix}/images/{quote(file)}", labels, model_version))
        written.append(_without_pixels(one))
        if len(tasks) == TASKS_A_FILE:
            flush()
    if tasks:
        flush()
    target.put("label_config.xml", label_config(labels).encode())
    return written, "make a Label Studio project with label_config.xml as its labelling interface, import tasks-*.json"


def _task(one: _Loaded, url: str, labels: LabelSet, model_version: str) -> dict[str, Any]:
    """One image with what the model proposes, a brush region for each class that is there."""
    height, width = one.mask.shape
    regions = [
        {
            "id": f"{one.name[:20]}-{index}",
            "type": "brushlabels",
            "from_name": "label",
            "to_name": "image",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {
                "format": "rle",
                "rle": encode_brush(one.mask == index),
                "brushlabels": [labels.names[index]],
            },
        }
        for index in np.unique(one.mask).tolist()
        if index < labels.num_classes
    ]
    # Label Studio has its own name for the confidence of a prediction.
    prediction = {"model_version": model_version, "score": one.item.confidence, "result": regions}
    data = {"image": url, "key": one.item.key, "priority": one.item.priority, "reason": one.item.reason}
    return {"data": data, "predictions": [prediction]}


def label_config(labels: LabelSet) -> str:
    """Label Studio's labelling interface for a label set."""
    lines = [
        f"    <Label value={quoteattr(name)} background={quoteattr('#{:02x}{:02x}{:02x}'.format(*color))}/>"
        for name, color in zip(labels.names, labels.palette, strict=True)
    ]
    return "\n".join(
        [
            "<View>",
            '  <Image name="image" value="$image" zoom="true"/>',
            '  <BrushLabels name="label" toName="image">',
            *lines,
            "  </BrushLabels>",
            "</View>",
            "",
        ]
    )


def _write_cvat(loaded: Iterator[_Loaded], target: Store, labels: LabelSet) -> tuple[list[_Loaded], str]:
    """The layout of CVAT's "Segmentation mask 1.1", and the annotations alone as the zip that CVAT uploads.

    Without SegmentationObject, CVAT makes one mask a class of each image, which is what these masks are.
    """
    labels = _paintable(labels)
    written: list[_Loaded] = []
    has_unlabelled = False
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:

        def put(name: str, data: bytes) -> None:
            target.put(name, data)
            archive.writestr(zipfile.ZipInfo(name), data)

        for one in loaded:
            target.put(f"JPEGImages/{one.name}{one.suffix}", one.image)
            put(f"SegmentationClass/{one.name}.png", encode_mask(one.mask, labels))
            has_unlabelled = has_unlabelled or bool((one.mask == labels.ignore_index).any())
            written.append(_without_pixels(one))
        put("ImageSets/Segmentation/default.txt", "".join(f"{one.name}\n" for one in written).encode())
        put("labelmap.txt", labelmap(labels, has_unlabelled).encode())
    target.put("annotations.zip", sink.getvalue())
    raw = [
        {"name": name, "color": "#{:02x}{:02x}{:02x}".format(*color), "attributes": []}
        for name, color in _painted(labels, has_unlabelled)
    ]
    target.put("labels.json", json.dumps(raw, indent=1, ensure_ascii=False).encode())
    return written, (
        "make a CVAT task with labels.json (Raw) as its labels and the files in JPEGImages, "
        'then upload annotations.zip as "Segmentation mask 1.1"'
    )


def labelmap(labels: LabelSet, has_unlabelled: bool = False) -> str:
    """CVAT's labelmap.txt: name, colour, and two fields that segmentation has no use for."""
    lines = [f"{name}:{','.join(map(str, color))}::" for name, color in _painted(labels, has_unlabelled)]
    return "\n".join(["# label:color_rgb:parts:actions", *lines, ""])


def _painted(labels: LabelSet, has_unlabelled: bool) -> list[tuple[str, RGB]]:
    """What masks show, by name and colour. Pixels without a label are drawn, too, and CVAT refuses a colour that nobody
    has declared; they have the name by which its own exports call them, unless a class has it."""
    painted = list(zip(labels.names, labels.palette, strict=True))
    if has_unlabelled:
        taken = {name.lower() for name in labels.names}
        painted.append(("unlabelled" if "background" in taken else "background", labels.ignore_color))
    return painted


def _paintable(labels: LabelSet) -> LabelSet:
    """Labels that CVAT can tell apart by colour. Raises InputError for names that its label map cannot hold."""
    for name in labels.names:
        if ":" in name or name.startswith("#") or name != name.strip() or not name.isprintable():
            raise InputError(
                f"CVAT's labelmap.txt cannot hold the class name {name!r} (no ':', no line break or other "
                "character that does not print, no '#' or space "
                "at its ends); take --format label-studio"
            )
    colors = labels.palette
    if len(set(colors)) < labels.num_classes:
        # Colours of one's own may repeat. Any that differ will do.
        colors = tuple((index, 255 - index, 37 * index % 256) for index in range(labels.num_classes))
    free = (color for color in (labels.ignore_color, (0, 0, 0), *_GREYS) if color not in colors)
    return labels.model_copy(update={"palette": colors, "ignore_color": next(free)})


def _without_pixels(one: _Loaded) -> _Loaded:
    return _Loaded(one.item, one.name, one.suffix, b"", np.zeros((0, 0), np.uint8))


def _write_list(target: Store, written: Sequence[_Loaded]) -> None:
    header: list[object] = ["name", "key", "etag", "priority", "reason", "confidence", "mask_key"]
    rows: list[list[object]] = [
        [f"{one.name}{one.suffix}", one.item.key, one.item.etag, one.item.priority, one.item.reason,
         one.item.confidence, one.item.mask_key]
        for one in written
    ]  # fmt: skip
    target.put("images.csv", "".join(csv_line(row) for row in (header, *rows)).encode(errors="surrogatepass"))
