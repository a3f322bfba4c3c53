"""Batch norm over the joint batch of several processes, so that their statistics are those of one process.

torch's own SyncBatchNorm is for GPUs alone. This one follows the definition: a mean over all processes, then the mean
square of what is left, both differentiated through; the running variance is the unbiased one, as torch has it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unfool.tasks.base import at_least_fp32
from unfool.tasks.gather import joint_rank_and_world_size, summed


class _JointStatistics(nn.modules.batchnorm._BatchNorm):
    def forward(self, input: Tensor) -> Tensor:
        _, processes = joint_rank_and_world_size()
        if not self.training or processes == 1:
            return super().forward(input)
        axes = [axis for axis in range(input.ndim) if axis != 1]
        shape = [1, -1] + [1] * (input.ndim - 2)
        features = at_least_fp32(input)
        mean = summed(features.mean(axes)) / processes
        centred = features - mean.view(shape)
        variance = summed(centred.square().mean(axes)) / processes
        self._follow(mean.detach(), variance.detach(), processes * input.numel() // input.shape[1])
        scale, shift = self.weight.view(shape), self.bias.view(shape)
        return (centred * torch.rsqrt(variance + self.eps).view(shape) * scale + shift).to(input.dtype)

    def _follow(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the running statistics; ``count`` values of a channel made the batch's."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * (count / (count - 1)), share)


class JointBatchNorm1d(_JointStatistics, nn.BatchNorm1d):
    """`nn.BatchNorm1d` over the joint batch, in train mode and inside `joint_batch`; else as it is."""


class JointBatchNorm2d(_JointStatistics, nn.BatchNorm2d):
    """`nn.BatchNorm2d` over the joint batch, in train mode and inside `joint_batch`; else as it is."""


_JOINT: dict[type[nn.Module], Any] = {nn.BatchNorm1d: JointBatchNorm1d, nn.BatchNorm2d: JointBatchNorm2d}


def share_statistics(module: nn.Module) -> None:
    """Turn every batch norm of a module into its joint form, in place: parameters, buffers and names stay."""
    for part in module.modules():
        if type(part) in _JOINT:
            part.__class__ = _JOINT[type(part)]
