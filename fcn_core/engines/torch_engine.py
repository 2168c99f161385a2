"""PyTorch as it is: channels last, in the settings' precision. It also computes the tiles of large images."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fcn_core.bundle import ModelBundle
from fcn_core.engines.engine import Image
from fcn_core.settings import PredictorSettings
from fcn_core.tiling import tiled_scores

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class TorchEngine:
    """A bundle's network on the settings' device. `network` also says how scores lie over an image's pixels."""

    smallest_side = 1

    def __init__(self, bundle: ModelBundle, settings: PredictorSettings) -> None:
        self._device = torch.device(settings.device)
        self._dtype = _DTYPES[settings.precision]
        self._normalization = bundle.normalization
        self.network = bundle.build().to(self._device, self._dtype).to(memory_format=torch.channels_last)

    def scores(self, images: Sequence[Image]) -> Tensor:
        return self.network.scores(self._prepare(images))

    def tiled_scores(self, image: Image, max_pixels: int) -> Tensor:
        """Scores [1, C, h, w] of one image of any size, computed in parts of at most max_pixels pixels."""
        return tiled_scores(self.network, image, lambda part: self._prepare([part]), max_pixels)

    def _prepare(self, images: Sequence[Image]) -> Tensor:
        """Network input [N, 3, H, W], of images of one size; pixels travel to the device as bytes."""
        pixels = torch.from_numpy(np.stack(images)).to(self._device).permute(0, 3, 1, 2)
        return self._normalization.apply(pixels).to(self._dtype, memory_format=torch.channels_last)
