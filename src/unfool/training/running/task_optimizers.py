"""Optimizers for parameters of a task that learn on losses of their own, stepped in turn after the stage's."""

from __future__ import annotations

import torch
from torch import Tensor

from unfool.core.errors import NonFiniteError
from unfool.core.processes import joint_rank_and_world_size, summed
from unfool.training.processes import joint_means
from unfool.training.schedule import make_optimizer
from unfool.training.stage import Stage


class TaskOptimizers:
    """The groups of a stage's tasks, each with an optimizer of the stage's kind; ``optimizers`` by ``TASK.GROUP``."""

    def __init__(self, stage: Stage):
        self.stage = stage
        self.groups = stage.groups()
        self.optimizers = {name: make_optimizer(stage.config, group.parameters) for name, group in self.groups.items()}

    def step(self, rate: float, step: int) -> dict[str, Tensor]:
        """Step every group once, on what the stage's step ``step`` learnt from and at ``rate`` times its own rate.

        Gives the mean losses, as ``loss/TASK.GROUP``. Raises NonFiniteError before the group is stepped.
        """
        means: dict[str, Tensor] = {}
        for name, optimizer in self.optimizers.items():
            losses = self.stage.turn_losses(name)
            parameters = self.groups[name].parameters
            # Not backward(): several processes have hooked that to the stage's own step.
            gradients = [
                summed(part) / joint_rank_and_world_size()[1] for part in torch.autograd.grad(losses.mean(), parameters)
            ]
            means |= joint_means({f"loss/{name}": losses})
            if not torch.isfinite(means[f"loss/{name}"] + torch.nn.utils.get_total_norm(gradients)):
                raise NonFiniteError(
                    f"the loss of {name} or its gradient is not finite at step {step + 1}; lower the learning rate "
                    "(the weights of the last checkpoint are intact)"
                )
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            for group in optimizer.param_groups:
                group["lr"] = rate * self.groups[name].rate
            optimizer.step()
            optimizer.zero_grad()
        return means
