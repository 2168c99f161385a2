"""Small real things that tests work with: images as files, and a model whose masks are not all one class."""

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from fcn_core import Architecture, LabelSet, ModelBundle, build, preset


def photo(width: int, height: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Smooth random colour fields, uint8 [height, width, 3]: enough structure for classes to differ over the image."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (max(2, height // 24), max(2, width // 24), 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def jpeg(width: int, height: int, seed: int = 0) -> bytes:
    """A JPEG of `photo`."""
    return encode(Image.fromarray(photo(width, height, seed)), "JPEG", quality=90)


def encode(image: Image.Image, format: str, **options: object) -> bytes:
    sink = io.BytesIO()
    image.save(sink, format, **options)
    return sink.getvalue()


def model(labels: LabelSet | None = None, seed: int = 0) -> ModelBundle:
    """A narrow FCN-8s with random score layers, so that it says something (a new network scores all classes alike)."""
    labels = labels or preset("camvid")
    network = build(Architecture(num_classes=labels.num_classes, width=0.125, head_width=32))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            scale = 0.5 / max(1.0, parameter[0].numel() ** 0.5) if parameter.ndim > 1 else 0.1
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale * 3)
    return ModelBundle.from_model(network, labels)


def fill(folder: Path, count: int, *, size: tuple[int, int] = (96, 72), start: int = 0) -> list[str]:
    """`count` JPEGs of `size` (width, height) under `folder`; returns their keys, sorted."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = [f"{index:04d}.jpg" for index in range(start, start + count)]
    for index, key in enumerate(keys, start):
        (folder / key).write_bytes(jpeg(*size, seed=index))
    return keys
