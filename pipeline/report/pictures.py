"""The gallery's pictures: photo, mask and overlay of chosen images, small enough to lie inside the page.

Photos are strangers' files and are decoded in codec processes. What can no longer be had (a photo changed, gone, too
large) is replaced by the next candidate; where no photo can be had, masks are shown alone.
"""

import base64
import io
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image

from fcn_core.errors import LabelError
from fcn_core.labels import LabelSet, decode_mask
from fcn_core.render import SheetTile, colorize, overlay, shrink
from pipeline.codec.processes import CodecPool
from pipeline.errors import ImageError, PipelineError, StorageError
from pipeline.numbers import percent
from pipeline.outputs.masks import read_mask
from pipeline.report.samples import Candidate
from pipeline.storage.store import Store

SIDE = 512
"""The longest side of a picture, in pixels."""

QUALITIES = (82, 60, 35)
PICTURE_BYTES = 64_000
"""A JPEG of more is made again with less quality."""

GALLERY_BYTES = 7_000_000
"""Of the page, for all pictures together."""

MAX_PIXELS = 64_000_000
MAX_FILE_BYTES = 100_000_000
CODEC_MEMORY_BYTES = 1 << 30
IMAGE_SECONDS = 20.0
GROUP_SECONDS = 10.0
"""After that, a group shows what it has: a page that is late helps nobody."""

WORKERS = 2


@dataclass(frozen=True)
class ImageRequest:
    """An image to be shown, what to say of it, and the earlier mask to show with it."""

    candidate: Candidate
    note: str
    mask_before: str | None = None


@dataclass(frozen=True)
class Layer:
    """One way to see an image, as a data URI. `name` is one of `pipeline.report.gallery.LAYERS`."""

    name: str
    uri: str


@dataclass(frozen=True)
class ShownImage:
    """An image as the page shows it. `width` and `height` are the pictures'."""

    request: ImageRequest
    layers: tuple[Layer, ...]
    width: int
    height: int

    @property
    def bytes(self) -> int:
        return sum(len(layer.uri) for layer in self.layers)


class ImageRenderer:
    """Makes images from a source and an output. Close it (or use `with`): it holds codec processes."""

    def __init__(self, source: Store | None, output: Store) -> None:
        """Without a `source` there are no photos, only masks."""
        self._source = source
        self._output = output
        self._codecs = CodecPool(WORKERS, CODEC_MEMORY_BYTES, IMAGE_SECONDS, MAX_PIXELS)

    def __enter__(self) -> "ImageRenderer":
        return self

    def __exit__(self, *exc: object) -> None:
        self._codecs.close()

    def render(self, groups: Sequence[tuple[Sequence[ImageRequest], int]]) -> list[list[ShownImage]]:
        """For each group (requests, the best first, and how many of them to show) its images."""
        with ThreadPoolExecutor(WORKERS, "pictures") as threads:
            rendered = list(threads.map(lambda group: self._render_group(*group), groups))
        return within_budget(rendered)

    def _render_group(self, requests: Sequence[ImageRequest], count: int) -> list[ShownImage]:
        deadline = time.monotonic() + GROUP_SECONDS

        def first(make: Callable[[ImageRequest], ShownImage | None]) -> list[ShownImage]:
            made: list[ShownImage] = []
            for request in requests:
                if len(made) == count or time.monotonic() > deadline:
                    break
                image = make(request)
                if image is not None:
                    made.append(image)
            return made

        return (first(self._image_and_mask) if self._source else []) or first(self._mask_alone)

    def _image_and_mask(self, request: ImageRequest) -> ShownImage | None:
        candidate = request.candidate
        if self._source is None or candidate.pixels > MAX_PIXELS or candidate.size > MAX_FILE_BYTES:
            return None
        try:
            data = self._source.get(candidate.key, size=candidate.size, etag=candidate.etag)
            photo = self._codecs.decode(data).result().pixels
            mask, labels = self._read_mask(candidate.mask_key)
            before, labels_before = self._read_mask(request.mask_before) if request.mask_before else (None, labels)
            tile = shrink(SheetTile(candidate.key, photo, mask, truth=before), SIDE)
            layers = layers_of(tile, labels)
            if tile.truth is not None:
                layers.append(Layer("before", jpeg(overlay(tile.image, tile.truth, labels_before))))
                if before is not None and labels == labels_before:
                    request = replace(request, note=f"{percent(float(np.mean(mask != before)))} of the pixels changed")
        except (StorageError, ImageError, LabelError):
            return None
        except PipelineError:
            return None  # no codec worker can be had; masks need none
        return ShownImage(request, tuple(layers), tile.mask.shape[1], tile.mask.shape[0])

    def _mask_alone(self, request: ImageRequest) -> ShownImage | None:
        if request.candidate.pixels > MAX_PIXELS:
            return None
        try:
            mask, labels = self._read_mask(request.candidate.mask_key)
        except (StorageError, LabelError):
            return None
        small = shrink(SheetTile("", colorize(mask, labels), mask), SIDE).mask
        return ShownImage(request, (Layer("mask", png(small, labels)),), small.shape[1], small.shape[0])

    def _read_mask(self, mask_key: str) -> tuple[npt.NDArray[np.uint8], LabelSet]:
        """A mask, and a label set with the colours that its file has: whatever became of the model, these are right."""
        data = read_mask(self._output, mask_key)
        return decode_mask(data), palette_of(data)


def layers_of(tile: SheetTile, labels: LabelSet) -> list[Layer]:
    """Overlay, photo and mask of an image that was shrunk to SIDE."""
    return [
        Layer("overlay", jpeg(overlay(tile.image, tile.mask, labels))),
        Layer("photo", jpeg(tile.image)),
        Layer("mask", png(tile.mask, labels)),
    ]


def palette_of(mask_png: bytes) -> LabelSet:
    """A label set of nameless classes with the colours of a mask's file. Raises LabelError if it has none."""
    with Image.open(io.BytesIO(mask_png), formats=["PNG"]) as image:
        flat = image.getpalette("RGB") or []
    colors = [(flat[at], flat[at + 1], flat[at + 2]) for at in range(0, len(flat) - 2, 3)]
    if not colors:
        raise LabelError("the mask has no palette; it was not written by fcn segment")
    colors += [(0, 0, 0)] * (256 - len(colors))
    return LabelSet(
        name="palette",
        names=tuple(f"class {index}" for index in range(255)),
        palette=tuple(colors[:255]),
        ignore_color=colors[255],
    )


def jpeg(pixels: npt.NDArray[np.uint8]) -> str:
    """uint8 [H, W, 3] as a data URI."""
    for quality in QUALITIES:
        sink = io.BytesIO()
        Image.fromarray(pixels).save(sink, "JPEG", quality=quality, optimize=True)
        if sink.tell() <= PICTURE_BYTES:
            break
    return _data_uri("image/jpeg", sink.getvalue())


def png(mask: npt.NDArray[np.uint8], labels: LabelSet) -> str:
    """uint8 [H, W] class indices as a data URI of a picture in their colours; only those that occur are in the file."""
    present, indices = np.unique(mask, return_inverse=True)
    image = Image.fromarray(indices.reshape(mask.shape).astype(np.uint8))
    image.putpalette(bytes(np.frombuffer(labels.flat_palette(), np.uint8).reshape(256, 3)[present]))
    sink = io.BytesIO()
    image.save(sink, "PNG", optimize=True)
    return _data_uri("image/png", sink.getvalue())


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def within_budget(groups: list[list[ShownImage]]) -> list[list[ShownImage]]:
    """The images that fit into the page, groups taking turns, so that none is left with nothing."""
    left = GALLERY_BYTES
    kept: list[list[ShownImage]] = [[] for _ in groups]
    for turn in range(max(map(len, groups), default=0)):
        for group, images in enumerate(groups):
            if turn < len(images) and images[turn].bytes <= left:
                left -= images[turn].bytes
                kept[group].append(images[turn])
    return kept
