"""Batches that a device's memory may not hold: halved until they fit."""

from collections.abc import Callable
from typing import TypeVar

import torch

from fcn_core.errors import DeviceError

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def run_halving(
    run: Callable[[list[_Item]], list[_Result]], batch: list[_Item], too_large: Callable[[list[_Item]], None]
) -> list[_Result]:
    """run(batch), or if the device's memory does not hold it, its halves one after the other, and so on.

    too_large hears of each batch that did not fit. Raises DeviceError if one item alone does not.
    """
    try:
        return run(batch)
    except torch.OutOfMemoryError as error:
        if len(batch) == 1:
            raise DeviceError(
                "the device's memory does not hold one image in one pass; lower tile_pixels, which changes no mask,"
                f" or use another device ({str(error).splitlines()[0]})"
            ) from error
    # Out of the except block, where the error would keep the failed pass and its tensors alive.
    too_large(batch)
    half = len(batch) // 2
    return run_halving(run, batch[:half], too_large) + run_halving(run, batch[half:], too_large)
