"""Whether a network can be trained on crops and batches of this size at all, found out without computing anything."""

import torch

from fcn_core.errors import DataError
from fcn_core.models.architecture import Architecture
from fcn_core.models.building import build_without_values
from fcn_core.training.config import TrainConfig


def check_shapes(architecture: Architecture, config: TrainConfig, workers: int) -> None:
    """Raise DataError if a step on so many workers cannot be taken: batch normalization wants more than one value per
    channel, and a small crop leaves the deepest maps a single cell.

    Nothing is said of whole images, whose sizes are not known here.
    """
    height, width = config.augmentation.crop_height, config.augmentation.crop_width
    if height is None or width is None:
        return
    sharing = 1 if config.sync_batch_norm else workers
    examples = max(1, config.batch_size // (sharing * config.gradient_accumulation_steps))
    model = build_without_values(architecture).train()
    with torch.device("meta"):
        if config.backbone_lr_multiplier == 0:
            return  # what is frozen normalizes by what it has learnt
        try:
            model(torch.empty(examples, 3, height, width))
        except (ValueError, RuntimeError) as error:
            raise DataError(
                f"{architecture.arch} on {architecture.backbone} cannot be trained on crops of {height}x{width} with "
                f"{examples} example(s) at a time ({error}): give larger crops, or a larger batch_size"
            ) from error
