"""Optimizers and learning rates; a rate is a pure function of the step, so resuming needs no scheduler state."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from unfool.training.stage_config import StageConfig


def make_optimizer(config: StageConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Adam, or SGD with Nesterov momentum, over the parameters that are trained."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if config.optimizer == "adam":
        return torch.optim.Adam(trained, lr=config.learning_rate, weight_decay=config.weight_decay)
    return torch.optim.SGD(
        trained,
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=config.momentum > 0,
        weight_decay=config.weight_decay,
    )


def learning_rate(config: StageConfig, step: int, steps: int) -> float:
    """The rate of step ``step`` of ``steps``, counted from 0."""
    if config.schedule == "constant":
        return config.learning_rate
    if config.schedule == "cosine":
        return config.learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))
    peak = max(1, steps // 5)
    share = (step + 1) / peak if step < peak else (steps - step) / (steps - peak)
    return config.learning_rate * share
