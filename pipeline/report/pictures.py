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
from fcn_core.render import Tile, colorize, overlay, shrink
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
class Wish:
    """An image to be shown, what to say of it, and the earlier mask to show with it."""

    candidate: Candidate
    note: str
    mask_before: str | None = None


@dataclass(frozen=True)
class Layer:
    """One way to see an image: "overlay", "photo", "mask" or "before", as a data URI."""

    name: str
    uri: str


@dataclass(frozen=True)
class Exhibit:
    """An image as the page shows it. `width` and `height` are the pictures'."""

    wish: Wish
    layers: tuple[Layer, ...]
    width: int
    height: int

    @property
    def bytes(self) -> int:
        return sum(len(layer.uri) for layer in self.layers)


class PictureRoom:
    """Makes exhibits from a source and an output. Close it (or use `with`): it holds codec processes."""

    def __init__(self, source: Store | None, output: Store) -> None:
        """Without a `source` there are no photos, only masks."""
        self._source = source
        self._output = output
        self._codecs = CodecPool(WORKERS, CODEC_MEMORY_BYTES, IMAGE_SECONDS, MAX_PIXELS)

    def __enter__(self) -> "PictureRoom":
        return self

    def __exit__(self, *exc: object) -> None:
        self._codecs.close()

    def hang(self, groups: Sequence[tuple[Sequence[Wish], int]]) -> list[list[Exhibit]]:
        """For each group (wishes, the best first, and how many of them to show) its exhibits."""
        with ThreadPoolExecutor(WORKERS, "pictures") as threads:
            hung = list(threads.map(lambda group: self._hang_group(*group), groups))
        return _within_budget(hung)

    def _hang_group(self, wishes: Sequence[Wish], count: int) -> list[Exhibit]:
        deadline = time.monotonic() + GROUP_SECONDS

        def first(make: Callable[[Wish], Exhibit | None]) -> list[Exhibit]:
            made: list[Exhibit] = []
            for wish in wishes:
                if len(made) == count or time.monotonic() > deadline:
                    break
                exhibit = make(wish)
                if exhibit is not None:
                    made.append(exhibit)
            return made

        return (first(self._exhibit) if self._source else []) or first(self._mask_alone)

    def _exhibit(self, wish: Wish) -> Exhibit | None:
        candidate = wish.candidate
        if self._source is None or candidate.pixels > MAX_PIXELS or candidate.size > MAX_FILE_BYTES:
            return None
        try:
            data = self._source.get(candidate.key, size=candidate.size, etag=candidate.etag)
            photo = self._codecs.decode(data).result().pixels
            mask, labels = self._read_mask(candidate.mask_key)
            before, labels_before = self._read_mask(wish.mask_before) if wish.mask_before else (None, labels)
            tile = shrink(Tile(candidate.key, photo, mask, truth=before), SIDE)
            layers = layers_of(tile, labels)
            if tile.truth is not None:
                # Next to the overlay, so that one press goes from now to then and back.
                layers.insert(1, Layer("before", jpeg(overlay(tile.image, tile.truth, labels_before))))
                if before is not None and labels == labels_before:
                    wish = replace(wish, note=f"{percent(float(np.mean(mask != before)))} of the pixels changed")
        except (StorageError, ImageError, LabelError):
            return None
        except PipelineError:
            return None  # no codec worker can be had; masks need none
        return Exhibit(wish, tuple(layers), tile.mask.shape[1], tile.mask.shape[0])

    def _mask_alone(self, wish: Wish) -> Exhibit | None:
        if wish.candidate.pixels > MAX_PIXELS:
            return None
        try:
            mask, labels = self._read_mask(wish.candidate.mask_key)
        except (StorageError, LabelError):
            return None
        small = shrink(Tile("", colorize(mask, labels), mask), SIDE).mask
        return Exhibit(wish, (Layer("mask", png(small, labels)),), small.shape[1], small.shape[0])

    def _read_mask(self, mask_key: str) -> tuple[npt.NDArray[np.uint8], LabelSet]:
        """A mask, and a label set with the colours that its file has: whatever became of the model, these are right."""
        data = read_mask(self._output, mask_key)
        return decode_mask(data), palette_of(data)


def layers_of(tile: Tile, labels: LabelSet) -> list[Layer]:
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


def _within_budget(groups: list[list[Exhibit]]) -> list[list[Exhibit]]:
    """The exhibits that fit into the page, groups taking turns, so that none is left with nothing."""
    left = GALLERY_BYTES
    kept: list[list[Exhibit]] = [[] for _ in groups]
    for turn in range(max(map(len, groups), default=0)):
        for group, exhibits in enumerate(groups):
            if turn < len(exhibits) and exhibits[turn].bytes <= left:
                left -= exhibits[turn].bytes
                kept[group].append(exhibits[turn])
    return kept
