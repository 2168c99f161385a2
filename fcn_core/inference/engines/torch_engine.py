"""PyTorch as it is: channels last, in the settings' precision. It also computes the tiles of large images."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fcn_core.bundle import ModelBundle
from fcn_core.inference.engines.engine import Image
from fcn_core.inference.settings import PredictorSettings
from fcn_core.inference.tiling import tiled_scores

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class TorchEngine:
    """A bundle's network on the settings' device. `network` also says how scores lie over an image's pixels."""

    smallest_side = 1

    def __init__(self, bundle: ModelBundle, settings: PredictorSettings) -> None:
        self._device = torch.device(settings.device)
        self._dtype = _DTYPES[settings.precision]
        self._copies: torch.cuda.Stream | None = None
        if self._device.type == "cuda":
            self._copies = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        self._normalization = bundle.normalization
        self.network = bundle.build().to(self._device, self._dtype).to(memory_format=torch.channels_last)

    def scores(self, images: Sequence[Image]) -> Tensor:
        return self.network.scores(self._prepare(images))

    def tiled_scores(self, image: Image, max_pixels: int) -> Tensor:
        """Scores [1, C, h, w] of one image of any size, computed in parts of at most max_pixels pixels."""
        return tiled_scores(self.network, image, lambda part: self._prepare([part]), max_pixels)

    def deepest(self, images: Sequence[Image]) -> Tensor:
        """The network's deepest maps, [N, C, h, w], of images of one size."""
        return self.network.deepest(self._prepare(images))

    def _prepare(self, images: Sequence[Image]) -> Tensor:
        """Network input [N, 3, H, W], of images of one size; pixels travel to the device as bytes."""
        pixels = self._sent(torch.from_numpy(np.stack(images))).permute(0, 3, 1, 2)
        return self._normalization.apply(pixels).to(self._dtype, memory_format=torch.channels_last)

    def _sent(self, pixels: Tensor) -> Tensor:
        """The pixels on the device. They travel while it computes; only what is computed of them waits for them."""
        if self._copies is None:
            return pixels.to(self._device)
        with torch.cuda.stream(self._copies):
            sent = pixels.pin_memory().to(self._device, non_blocking=True)
        here = torch.cuda.current_stream(self._device)
        here.wait_stream(self._copies)
        sent.record_stream(here)
        return sent
