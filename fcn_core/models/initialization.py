"""What a fresh convolution holds before it has learned anything."""

from collections.abc import Iterable

from torch import nn


def initialize(layers: Iterable[tuple[str, nn.Module]]) -> None:
    """Fresh convolutions, by name: score layers become zero (as the authors' do), others Kaiming-normal."""
    for name, layer in layers:
        if isinstance(layer, nn.Conv2d):
            if name.startswith("score"):
                nn.init.zeros_(layer.weight)
            else:
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]  # these convolutions all have one
