"""What an image looks like to a network, in a few numbers: for choosing images that are unlike each other.

The one thing to know: a small version of the image goes through the network once more. So features depend on neither
the engine nor the batch nor the image's size, and masks are what they are without them.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from PIL import Image as PillowImage
from torch import Tensor

from fcn_core.inference.engines.engine import Image
from fcn_core.inference.engines.torch_engine import TorchEngine

NUMBERS = 128
"""Features of an image, whatever the network: 256 bytes."""

_SIDE = 160
"""The small version is a square of so many pixels a side: what matters is what is there, not its proportions."""


def pooled_features(engine: TorchEngine, images: Sequence[Image]) -> Tensor:
    """Features float16 [N, NUMBERS] of RGB images, uint8 [H, W, 3] of any sizes, on the engine's device.

    The network's deepest map, averaged over its cells, projected at random (Achlioptas 2003, the same signs for every
    network of that width, so that distances are kept up to about a tenth), of length 1.
    """
    pooled = torch.cat([engine.deepest([_small(image)]).float().mean((2, 3)) for image in images])
    projected = pooled @ _signs(pooled.shape[1]).to(pooled.device)
    return torch.nn.functional.normalize(torch.nan_to_num(projected)).half()


def _small(image: Image) -> Image:
    small = PillowImage.fromarray(image).resize((_SIDE, _SIDE), PillowImage.Resampling.BILINEAR, reducing_gap=2.0)
    return np.asarray(small)


@lru_cache(maxsize=4)
def _signs(channels: int) -> Tensor:
    """1 or -1, float32 [channels, NUMBERS]. RandomState's stream is frozen: features of different runs compare."""
    with torch.inference_mode(False):
        drawn = np.random.RandomState(0).randint(0, 2, (channels, NUMBERS)).astype(np.float32)
        return torch.from_numpy(2 * drawn - 1)
