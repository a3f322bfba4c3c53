# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false, reportUnnecessaryComparison=false
"""Adversarial weight perturbation (Wu et al., "Adversarial Weight Perturbation Helps Robust Generalization", NeurIPS
2020, algorithm 1).

Departures: one step, from v = 0 and of the full length γ, as in the authors' experiments; the weights are put back,
to the bit, before the optimizer moves them, so that weight decay acts on w and not on w + v. As in the authors' code,
biases and batch norm stay where they are, and the pass that learns at w + v is the one that moves batch norm's running
statistics; the pass that finds v leaves them alone.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from unfool.core.processes import joint_rank_and_world_size, summed

_TINY = 1e-20
"""Keeps the direction of a weight without a gradient finite."""


class WeightPerturbation:
    """Moves weights uphill for one learning step, to w + v, where each layer has ‖v‖ = ``gamma`` · ‖w‖."""

    def __init__(self, gamma: float):
        self.gamma = gamma
        self._saved: list[tuple[nn.Parameter, Tensor]] = []

    def climb(self, module: nn.Module, loss: Callable[[], Tensor]) -> None:
        """Move every weight of two or more dimensions that learns, in place, along its gradient of ``loss``."""
        weights = [parameter for parameter in module.parameters() if parameter.requires_grad and parameter.ndim > 1]
        statistics = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
        gradients = torch.autograd.grad(loss(), weights, allow_unused=True)
        with torch.no_grad():
            for buffer, saved in statistics:
                buffer.copy_(saved)
            for weight, gradient in zip(weights, gradients, strict=True):
                # None where another stage's head takes no part in this one's loss.
                if gradient is not None:
                    gradient = summed(gradient) / joint_rank_and_world_size()[1]
                    self._saved.append((weight, weight.detach().clone()))
                    weight.add_(gradient * (self.gamma * weight.norm() / (gradient.norm() + _TINY)))

    @torch.no_grad()
    def undo(self) -> None:
        """Put the weights back, bit for bit."""
        for weight, saved in self._saved:
            weight.copy_(saved)
        self._saved.clear()
