"""The optimiser of a network: its groups of parameters, the learning rate over a run, and its state by name."""

from typing import Any

import torch
from torch import Tensor, nn

from fcn_core.errors import CheckpointError
from fcn_core.models.network import Network
from fcn_core.training.config import TrainConfig


def make_optimizer(model: Network, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimiser over up to four groups: backbone or not, weights (decayed) or biases (not).

    A backbone whose rate factor is 0 is frozen, and so are the transposed convolutions where the config says so: their
    gradients are not even computed.
    """
    if config.freeze_upsampling:
        for layer in model.modules():
            if isinstance(layer, nn.ConvTranspose2d):
                layer.requires_grad_(False)
    backbone = {id(parameter) for parameter in model.backbone_parameters()}
    groups: list[dict[str, Any]] = []
    for in_backbone in (True, False):
        for as_bias in (False, True):
            members = [
                parameter
                for name, parameter in model.named_parameters()
                if parameter.requires_grad
                and (id(parameter) in backbone) == in_backbone
                and _trains_as_bias(name, parameter, config) == as_bias
            ]
            factor = config.backbone_lr_multiplier if in_backbone else 1.0
            if factor == 0:
                for parameter in members:
                    parameter.requires_grad_(False)
            elif members:
                groups.append(
                    {
                        "params": members,
                        "weight_decay": 0.0 if as_bias else config.weight_decay,
                        "rate_factor": factor * (config.bias_lr_multiplier if as_bias else 1.0),
                    }
                )
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.learning_rate, fused=True)
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum, fused=True)


def _trains_as_bias(name: str, parameter: nn.Parameter, config: TrainConfig) -> bool:
    return parameter.ndim <= 1 and (name.startswith("score_") or not config.biases_as_weights)


def learning_rate(config: TrainConfig, step: int, progress: float) -> float:
    """The rate of the step after `step`: warm-up, times the poly decay (DeepLab) over the run's progress, 0..1."""
    warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    return config.learning_rate * warmup * float((1 - progress) ** config.poly_power)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of `rate`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["rate_factor"]


def optimizer_state(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, dict[str, Tensor]]:
    """What the optimiser remembers of each parameter, by the parameter's name."""
    return {
        name: dict(optimizer.state[parameter])
        for name, parameter in model.named_parameters()
        if optimizer.state.get(parameter)
    }


def load_optimizer_state(
    optimizer: torch.optim.Optimizer, model: nn.Module, state: dict[str, dict[str, Tensor]]
) -> None:
    """Take back what `optimizer_state` gave. Raises CheckpointError when it is of another network."""
    parameters = dict(model.named_parameters())
    strangers = sorted(set(state) - set(parameters))
    if strangers:
        raise CheckpointError(
            f"the checkpoint's optimiser knows {strangers[0]!r}, which this network has not: "
            "resume with the network it was trained with"
        )
    for name, values in state.items():
        parameter = parameters[name]
        optimizer.state[parameter] = {key: _like(value, parameter) for key, value in values.items()}


def _like(value: Tensor, parameter: nn.Parameter) -> Tensor:
    """A copy of the parameter's kind and layout: the fused kernels walk both in memory order."""
    if value.shape != parameter.shape:
        return value.clone()  # the step count
    return torch.empty_like(parameter, memory_format=torch.preserve_format).copy_(value)
