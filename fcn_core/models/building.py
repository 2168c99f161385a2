"""From an Architecture to a network."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, cast

import torch
from torch.overrides import TorchFunctionMode

from fcn_core.models.architecture import Architecture
from fcn_core.models.network import Network
from fcn_core.models.networks import network_spec


def build(architecture: Architecture) -> Network:
    """A network with fresh random weights, in training mode."""
    return cast(Network, network_spec(architecture.arch).build(architecture))


def build_without_values(architecture: Architecture) -> Network:
    """The same network on the "meta" device: tensors have shapes and no values, so it takes no memory and no time."""
    with torch.device("meta"), _NothingDrawn():
        return build(architecture)


class _NothingDrawn(TorchFunctionMode):
    """Leaves tensors as they are where normal random numbers are drawn for them.

    On the "meta" device nothing would be drawn, but PyTorch imports its compiler first, which takes a second.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Collection[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if getattr(func, "__name__", None) == "normal_":  # a tensor's method, or torch.nn.init's function
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))
