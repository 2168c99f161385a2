"""The seam between the Predictor and what computes."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

Image = npt.NDArray[np.uint8]


class Engine(Protocol):
    """Computes scores. Asked from one thread at a time, in inference mode.

    smallest_side: of images it can take, in pixels.
    """

    smallest_side: int

    def scores(self, images: Sequence[Image]) -> Tensor:
        """Class scores [N, C, h, w] of RGB images of one size, each uint8 [H, W, 3]: of any float type, on the
        settings' device, at the network's stride.
        """
