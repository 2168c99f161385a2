"""The exponential moving average of a network's weights, which is steadier than the weights of any one step.

The one thing to know: running statistics of batch normalization are averaged alike, so that they fit the averaged
weights; whole numbers (how many batches were seen) are copied.
"""

from typing import cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from fcn_core.models.network import Network


class WeightAverage:
    """The average of a network's weights over the steps so far; `network` has it.

    After step s the average keeps the share min(decay, (s + 1) / (s + 10)) of itself, 0 < decay < 1, so that the first
    steps, from weights that nobody wants, are soon forgotten (as in TensorFlow's ExponentialMovingAverage).
    """

    def __init__(self, model: Network, decay: float) -> None:
        self._decay = decay
        self._averaged = AveragedModel(model, multi_avg_fn=self._average, use_buffers=True)

    @property
    def network(self) -> Network:
        """The network with the averaged weights, on the device of the one that is trained. Not a copy."""
        return cast(Network, self._averaged.module)

    def update(self, model: nn.Module) -> None:
        """Take in the weights of one more step."""
        self._averaged.update_parameters(model)

    def state_dict(self) -> dict[str, Tensor]:
        """All that the average needs to go on. Not a copy."""
        state: dict[str, Tensor] = self._averaged.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state_dict` gave."""
        self._averaged.load_state_dict(state)

    def _average(
        self,
        averages: tuple[Tensor, ...] | list[Tensor],
        values: tuple[Tensor, ...] | list[Tensor],
        count: Tensor | int,
    ) -> None:
        steps = int(count)
        kept = min(self._decay, (steps + 1) / (steps + 10))
        if torch.is_floating_point(averages[0]):
            torch._foreach_lerp_(averages, values, 1 - kept)
        else:
            torch._foreach_copy_(averages, values)
