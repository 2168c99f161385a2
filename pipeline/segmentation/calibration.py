"""A few images of a place, chosen by chance but always the same ones: what int8 is calibrated with."""

import hashlib
import heapq
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from fcn_core.models.network import GRID
from pipeline.codec.processes import CodecPool
from pipeline.errors import ImageError, InputError, ObjectMissing, StorageError, StorageUnavailable
from pipeline.segmentation.choice import image_suffixes
from pipeline.sources.opening import open_source
from pipeline.storage.store import Store

Image = npt.NDArray[np.uint8]

LARGEST_SIDE = 1024
"""Of larger images the middle is taken: enough to calibrate with, in little memory."""


def sample_images(
    source: str, count: int, *, follow_links: bool = False, keys: Sequence[str] | None = None
) -> list[Image]:
    """Up to `count` images, uint8 [H, W, 3], from a folder or URI, in no meaningful order; of `keys`, if given.

    Which ones follows from their keys. Files that cannot be read are passed over, and images too small for the network
    to take as they are. `follow_links` is as `open_source` takes it. Raises InputError when the place cannot be read or
    holds no image.
    """
    store = open_source(source, follow_links=follow_links)
    try:
        with CodecPool(1) as codecs:
            listed = (info.key for info in store.list()) if keys is None else keys
            images = _usable(store, listed, count, codecs)
    except StorageUnavailable:
        raise
    except StorageError as error:
        raise InputError(str(error)) from error
    if not images:
        raise InputError(
            f"{source} holds no image that could be read; give a folder of photos such as will be labelled"
        )
    return images


def _middle(image: Image) -> Image:
    top, left = (max(size - LARGEST_SIDE, 0) // 2 for size in image.shape[:2])
    return np.ascontiguousarray(image[top : top + LARGEST_SIDE, left : left + LARGEST_SIDE])


def _usable(store: Store, listed: Iterable[str], count: int, codecs: CodecPool) -> list[Image]:
    images: list[Image] = []
    keys = (key for key in listed if key.lower().endswith(image_suffixes()))
    # Twice as many as are needed, for those that turn out to be of no use.
    for key in heapq.nsmallest(2 * count, keys, key=lambda key: hashlib.sha256(key.encode()).digest()):
        try:
            image = _middle(codecs.decode_now(store.get(key)).pixels)
        except (ImageError, ObjectMissing):
            continue
        if min(image.shape[:2]) >= GRID:
            images.append(image)
        if len(images) == count:
            break
    return images
