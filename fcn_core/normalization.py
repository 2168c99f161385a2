"""From pixels to what a network was trained to take: one formula, and the numbers that most weights want.

PyTorch is imported where numbers become tensors: whoever reads descriptions of models needs none.
"""

from functools import lru_cache
from typing import TYPE_CHECKING, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Normalization(BaseModel):
    """How pixels become network input: (pixel * scale - mean) / std, channels in `channel_order`.

    Pixels are RGB in 0..255; mean and std are given in `channel_order`, in units of pixel * scale.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channel_order: Literal["rgb", "bgr"] = "rgb"
    scale: float = Field(default=1 / 255, gt=0, allow_inf_nan=False)
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @model_validator(mode="after")
    def _finite(self) -> Self:
        if not all(abs(value) < float("inf") for value in self.mean):
            raise ValueError(f"mean must be finite, not {self.mean}")
        if not all(0 < value < float("inf") for value in self.std):
            raise ValueError(f"std must be positive and finite, not {self.std}")
        return self

    def apply(self, pixels: "Tensor") -> "Tensor":
        """Network input, float32 [..., 3, H, W], from RGB pixels in 0..255 (uint8 or float), same shape."""
        import torch

        # Sending numbers to a CUDA device waits for it, so there they are kept.
        column = _kept_column if pixels.device.type == "cuda" else _column
        mean, std = column(self.mean, pixels.device), column(self.std, pixels.device)
        if self.channel_order == "bgr":
            pixels = pixels.flip(-3)
        return pixels.to(torch.float32, copy=True).mul_(self.scale).sub_(mean).div_(std)


def _column(values: tuple[float, float, float], device: "torch.device") -> "Tensor":
    """A number for each channel, float32 [3, 1, 1]."""
    import torch

    return torch.tensor(values, device=device)[:, None, None]


@lru_cache(maxsize=64)
def _kept_column(values: tuple[float, float, float], device: "torch.device") -> "Tensor":
    import torch

    with torch.inference_mode(False):  # whoever comes first, training may come next
        return _column(values, device)


IMAGENET = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""torchvision's ImageNet models."""

CAFFE = Normalization(channel_order="bgr", scale=1.0, mean=(104.00699, 116.66877, 122.67892))
"""The authors' nets: BGR, 0..255, less the mean of ImageNet."""
