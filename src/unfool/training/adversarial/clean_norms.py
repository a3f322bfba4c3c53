"""Batch norm that clean views have to themselves, beside the network's own, which adversarial views go through.

Adversarial contrast (ACL, Jiang et al., "Robust Pre-Training by Adversarial Contrastive Learning", NeurIPS 2020) keeps
both and hands on the adversarial one. Departure: there the projection head's batch norms are kept apart too; here the
heads, which are left behind after pretraining, are shared.
"""

from __future__ import annotations

import copy
from collections.abc import Set
from typing import Any

from torch import Tensor, nn
from torch.func import functional_call

from unfool.models.network import Network


class CleanNorms(nn.Module):
    """A second set of a trunk's batch norms: running statistics and affine parameters, which train and are kept here.

    The convolutions, and whether a norm is in training mode, are the network's.
    """

    def __init__(self, network: Network):
        super().__init__()
        norms = {name: part for name, part in network.named_modules() if _is_trunk_norm(name, part)}
        self.names = tuple(norms)
        self.norms = nn.ModuleList(copy.deepcopy(norm) for norm in norms.values())

    def begin(self, network: Network) -> None:
        """Take over what the network's own norms hold now, and which of them move."""
        for name, own in zip(self.names, self.norms, strict=True):
            theirs = network.get_submodule(name)
            own.load_state_dict(theirs.state_dict())
            for parameter, other in zip(own.parameters(), theirs.parameters(), strict=True):
                parameter.requires_grad_(other.requires_grad)
        self.zero_grad(set_to_none=True)

    def features_at(self, network: Network, images: Tensor, stages: Set[str]) -> dict[str, Tensor]:
        """As `Network.features_at`, through these norms; in training mode these running statistics move."""
        tensors: dict[str, Any] = {}
        for name, own in zip(self.names, self.norms, strict=True):
            held = [*own.named_parameters(), *own.named_buffers()]
            tensors |= {f"network.{name}.{key}": tensor for key, tensor in held}
        return functional_call(_Features(network), tensors, (images, stages))


class _Features(nn.Module):
    """A network whose forward pass gives features, since `functional_call` calls nothing else."""

    def __init__(self, network: Network):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, stages: Set[str]) -> dict[str, Tensor]:
        return self.network.features_at(images, stages)


def _is_trunk_norm(name: str, part: nn.Module) -> bool:
    return name.startswith("trunk.") and isinstance(part, nn.modules.batchnorm._BatchNorm)
