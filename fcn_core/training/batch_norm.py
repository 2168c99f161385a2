"""Batch normalization in training: at rest where its weights are frozen, and one set of statistics for all workers.

The one thing to know: running statistics change in every forward pass in training mode, with or without an optimiser.
So layers whose weights are frozen are kept in evaluation mode, and workers that do not share their statistics have to
be given the first worker's before anything is scored or saved.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def frozen_norms(model: nn.Module) -> list[nn.Module]:
    """The batch normalizations of a model none of whose weights is trained: they belong in evaluation mode."""
    return [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm)
        and (weights := list(module.parameters()))
        and not any(weight.requires_grad for weight in weights)
    ]


def synchronize(model: nn.Module, device: torch.device) -> bool:
    """Make every batch normalization of a model, in place, one over the batches of all workers together.

    Names and tensors of its state stay what they are. Returns whether there is any. PyTorch's own layer does it on GPUs
    alone, `SharedBatchNorm` anywhere.
    """
    found = any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        return found
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d) and not isinstance(child, SharedBatchNorm):
                setattr(parent, name, SharedBatchNorm.of(child))
    return found


def adopt_first_workers_buffers(model: nn.Module) -> None:
    """Give every worker the buffers of the first one. Collective; nothing where there is one process."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch normalization [N, C, H, W] with the mean and variance of all workers' pixels in training.

    All workers must call it equally often, whatever number of pixels each has. In evaluation mode it is
    `nn.BatchNorm2d`.
    """

    @classmethod
    def of(cls, layer: nn.BatchNorm2d) -> "SharedBatchNorm":
        """A layer that shares the tensors of `layer`."""
        shared = cls(
            layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats, device="meta"
        )
        shared._parameters.update(layer._parameters)
        shared._buffers.update(layer._buffers)
        return shared.train(layer.training)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        pixels = values.new_full((1,), values.numel() // values.shape[1])
        totals = _sum_of_all(torch.cat([values.sum((0, 2, 3)), pixels]))
        count = totals[-1].detach()
        if count <= 1:
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {list(x.shape)}")
        mean = totals[:-1] / count
        centred = values - _by_channel(mean)
        # From the deviations, not from the sum of squares: that one cancels where the mean is large.
        variance = _sum_of_all(centred.square().sum((0, 2, 3))) / count
        self._track(mean.detach(), variance.detach(), count)
        normalized = centred * _by_channel(torch.rsqrt(variance + self.eps))
        if self.affine:
            normalized = normalized * _by_channel(self.weight) + _by_channel(self.bias)
        return normalized.to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        unbiased = variance * (count / (count - 1))
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)


def _by_channel(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1)


class _SumOfAll(torch.autograd.Function):
    """The sum over all workers, whose gradient is the sum of all workers' gradients."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total


def _sum_of_all(values: Tensor) -> Tensor:
    total: Tensor = _SumOfAll.apply(values)
    return total
