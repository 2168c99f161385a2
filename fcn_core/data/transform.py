"""Joint transforms of an image and its mask for training: scale, crop, flip, colour.

A mask only ever moves by whole pixels of its own: it is resized by nearest neighbour, so no class is ever
mixed from two others, and what a crop adds outside the picture is `ignore_index`. torchvision's v2 transforms
do the work; its tv_tensors tell them which of the two they hold. torchvision is imported where an example is
transformed: importing it takes as long as importing PyTorch.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fcn_core.data.augmentation import Augmentation

JointTransform = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def as_tensors(image: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8]) -> tuple[Tensor, Tensor]:
    """uint8 arrays [H, W, 3] and [H, W] -> uint8 tensors [3, H, W] and [H, W]."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1), torch.from_numpy(np.array(mask))


class TrainTransform:
    """Random scale, crop, mirror and colour, after `Augmentation`; every example comes out at the crop's
    size, or at its own where there is no crop.

    Called with uint8 tensors image [3, H, W] and mask [H, W], gives new ones [3, h, w] and [h, w]. Randomness
    comes from torch's global generator, which the trainer seeds example by example.
    """

    def __init__(self, augmentation: Augmentation, ignore_index: int = 255) -> None:
        from torchvision.transforms import v2

        self.augmentation = augmentation
        self.ignore_index = ignore_index
        self._flip = v2.RandomHorizontalFlip(augmentation.flip)
        self._color = v2.ColorJitter(
            brightness=augmentation.brightness,
            contrast=augmentation.contrast,
            saturation=augmentation.saturation,
        )

    def __call__(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        from torchvision import tv_tensors

        setting = self.augmentation
        scale = float(torch.empty(()).uniform_(setting.scale_min, setting.scale_max))
        if setting.crop_height is None or setting.crop_width is None:
            image, mask = resize(image, mask, scale)
        else:
            image, mask = random_crop(image, mask, setting.crop_height, setting.crop_width, self.ignore_index, scale)
        flipped: tuple[Tensor, Tensor] = self._flip(tv_tensors.Image(image), tv_tensors.Mask(mask))
        colored: Tensor = self._color(flipped[0])
        return colored.as_subclass(Tensor), flipped[1].as_subclass(Tensor)


def resize(image: Tensor, mask: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Both enlarged by `scale`: the image bilinearly with antialiasing, the mask by nearest neighbour."""
    height, width = (max(1, round(side * scale)) for side in mask.shape[-2:])
    return _resized(image, mask, height, width)


def random_crop(
    image: Tensor, mask: Tensor, height: int, width: int, ignore_index: int, scale: float = 1.0
) -> tuple[Tensor, Tensor]:
    """One window of height x width from both, enlarged by `scale`; what is too small is padded right and
    bottom, black and ignored.

    The window is cut out first and then enlarged, so pixels that nobody will see cost nothing; its side in the
    picture is a whole number of pixels, and `scale` is rounded accordingly.
    """
    top, rows, new_rows = _random_span(mask.shape[0], height, scale)
    left, columns, new_columns = _random_span(mask.shape[1], width, scale)
    window = (..., slice(top, top + rows), slice(left, left + columns))
    image, mask = _resized(image[window], mask[window], new_rows, new_columns)
    if (new_rows, new_columns) != (height, width):
        from torchvision.transforms.v2 import functional as tvf

        padding = [0, 0, width - new_columns, height - new_rows]
        image = tvf.pad(image, padding, fill=0)
        mask = tvf.pad(mask[None], padding, fill=ignore_index)[0]
    # Colours are varied a third faster with one channel after the other.
    return image.contiguous(), mask.contiguous()


def _random_span(side: int, wanted: int, scale: float) -> tuple[int, int, int]:
    """Of one side, in pixels: where the window begins, how long it is, and how long once enlarged."""
    length = max(1, round(wanted / scale))
    start = int(torch.randint(max(0, side - length) + 1, ()))
    if length <= side:
        return start, length, wanted
    return start, side, min(wanted, max(1, round(side * scale)))


def _resized(image: Tensor, mask: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as tvf

    size = [height, width]
    resized: Tensor = tvf.resize(image, size, interpolation=InterpolationMode.BILINEAR, antialias=True)
    # "exact" puts pixel centres where the bilinear resize of the image puts them.
    labels: Tensor = tvf.resize(mask[None], size, interpolation=InterpolationMode.NEAREST_EXACT)[0]
    return resized, labels
