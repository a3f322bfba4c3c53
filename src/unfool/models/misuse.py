"""A classifier that is used wrongly, in the two ways that explain most figures nobody can repeat."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from unfool.models.network import Network

NORMALISED, TRAIN_MODE = "normalised inputs", "train mode"
MISUSES = (NORMALISED, TRAIN_MODE)
"""By CIFAR-10's mean and deviation, which training did not see; and by each batch's own statistics."""
_BATCH_SIZE = 128


def misused(network: Network, how: str) -> Network:
    """A copy of a network that is used wrongly, in one of `MISUSES`, whatever mode it is set to.

    In train mode its predictions depend on the batches that it is given: those of 128 are its own.
    """
    network = copy.deepcopy(network)
    if how == NORMALISED:
        right = Network.build(network.trunk.spec, {}, normalisation="cifar10")
        network.mean, network.std = right.mean.to(network.mean), right.std.to(network.std)
        return network
    for part in list(network.modules()):
        for name, child in part.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(part, name, BatchStatistics(child))
    network.own_batch_size = _BATCH_SIZE  # type: ignore[assignment]
    return network


class BatchStatistics(nn.Module):
    """A batch norm as it is in train mode; no running statistics are kept."""

    def __init__(self, norm: nn.BatchNorm2d):
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps

    def forward(self, features: Tensor) -> Tensor:
        """(B, C, H, W) normalised over the batch; a single value a channel becomes the bias."""
        # F.batch_norm refuses that single value, which the last image has that an attack is left with.
        cudnn = torch.backends.cudnn.enabled
        return torch.batch_norm(features, self.weight, self.bias, None, None, True, 0.0, self.eps, cudnn)
