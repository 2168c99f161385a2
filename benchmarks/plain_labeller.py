"""What peers do with an image: the plain float32 network of a bundle in channels-first PyTorch, and a palette PNG.

Not run by itself; the peers import it.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fcn_core import ModelBundle


def decoded(data: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """RGB, uint8 [H, W, 3]."""
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert("RGB"))


class PlainLabeller:
    """Masks below `output`/masks, each named after its image."""

    def __init__(self, model: str, output: str, threads: int) -> None:
        torch.set_num_threads(threads)
        bundle = ModelBundle.load(model)
        self._model = bundle.build().eval()
        self._normalization = bundle.normalization
        self._labels = bundle.labels
        self._output = Path(output, "masks")
        self._output.mkdir(parents=True, exist_ok=True)

    def label(self, path: str, image: np.ndarray[Any, np.dtype[np.uint8]]) -> tuple[str, list[int]]:
        """The file of the mask, and pixels per class."""
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
        with torch.inference_mode():
            mask = self._model(self._normalization.apply(pixels)).argmax(1)[0].to(torch.uint8).numpy()
        name = mask_of(self._output.parent, path)
        png = Image.fromarray(mask)
        png.putpalette(self._labels.flat_palette())
        png.save(name)
        return str(name), np.bincount(mask.ravel(), minlength=self._labels.num_classes).tolist()


def mask_of(output: Path, path: str) -> Path:
    """Where the mask of an image is."""
    return output / "masks" / f"{Path(path).stem}.png"
