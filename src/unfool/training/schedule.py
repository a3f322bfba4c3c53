# pyright: reportUnknownMemberType=false
"""Optimizers, learning rates, and how long a stage is.

A rate is a pure function of the step and of how many there will be, so resuming needs no scheduler state.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable

import torch
from torch import nn

from unfool.core.errors import SpecError
from unfool.core.processes import joint_batch, joint_rank_and_world_size, summed
from unfool.training.stage_config import StageConfig


def make_optimizer(config: StageConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Adam, or SGD with plain or Nesterov momentum, over the parameters that are trained; SpecError for none."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not trained:
        raise SpecError(
            f"trainable {config.trainable!r} leaves no parameter to train, as heads do that are another library's own; "
            "give all, or from:STAGE"
        )
    # torch chooses a fast step by itself on GPUs alone; on CPUs that of Adam takes a fifth of the time where asked for.
    fused = True if all(parameter.device.type == "cpu" and _is_dense(parameter) for parameter in trained) else None
    if config.optimizer == "adam":
        adam = torch.optim.Adam(trained, lr=config.learning_rate, weight_decay=config.weight_decay, fused=fused)
        return _in_equal_layout(adam) if fused else adam
    sgd = torch.optim.SGD(
        trained,
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=config.nesterov and config.momentum > 0,
        weight_decay=config.weight_decay,
        fused=fused,
    )
    return _in_equal_layout(sgd) if fused else sgd


def _in_equal_layout(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Lay gradients out in memory as their parameters are, before each step; the optimizer's state always is.

    The fused steps of torch read them in memory order, and pair wrong values without a word where that differs
    (pytorch issue 106951 tells how gradients come to lie otherwise).
    """

    def lay_out(optimizer: torch.optim.Optimizer, *_: object) -> None:
        for parameter in (each for group in optimizer.param_groups for each in group["params"]):
            gradient = parameter.grad
            if gradient is None or gradient.layout is not torch.strided:
                continue
            if gradient.stride() != parameter.stride():
                parameter.grad = torch.empty_like(parameter, requires_grad=False).copy_(gradient)

    optimizer.register_step_pre_hook(lay_out)
    return optimizer


def _is_dense(parameter: nn.Parameter) -> bool:
    """Whether the parameter fills its memory, one value a place: no part of a larger tensor, and not expanded."""
    return parameter.stride() == torch.empty_like(parameter).stride()


def stage_length(config: StageConfig, images: int) -> tuple[int, int]:
    """How many steps a stage has on a table of so many images, and how many an epoch; ``minutes`` may end it before."""
    per_epoch = images // min(config.batch_size, images)
    return config.steps or per_epoch * config.epochs, per_epoch


def learning_rate(config: StageConfig, step: int, steps: int, per_epoch: int) -> float:
    """The rate of step ``step`` of ``steps``, counted from 0, in epochs of ``per_epoch`` steps.

    A warm-up rises linearly (Goyal et al. 2017, arXiv:1706.02677, section 2.2).
    """
    rising = config.warmup_epochs * per_epoch
    risen = min(1.0, (step + 1) / rising) if rising else 1.0
    return config.learning_rate * risen * _share(config, step, steps, per_epoch)


def _share(config: StageConfig, step: int, steps: int, per_epoch: int) -> float:
    """The share of the highest rate that is left."""
    epoch = step // per_epoch
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "step":
        return config.drop_factor ** (epoch // config.drop_every)
    if config.schedule == "exponential":
        return config.decay**epoch
    if config.schedule == "triangle":
        peak = max(1, steps // 5)
        return (step + 1) / peak if step < peak else (steps - step) / (steps - peak)
    if not config.constant_epochs:
        return 0.5 * (1 + math.cos(math.pi * step / steps))
    fall = config.cosine_epochs or math.ceil(steps / per_epoch) - config.constant_epochs
    fallen = max(0, epoch - config.constant_epochs)
    return 0.5 * (1 + math.cos(math.pi * min(fallen, fall) / fall)) if fallen else 1.0


class StageClock:
    """The steps of a stage, and those that its minutes allow at the pace so far.

    ``spent`` are the seconds that the stage took before it was stopped. Of several processes the first one's clock
    counts.
    """

    def __init__(self, config: StageConfig, steps: int, spent: float, device: torch.device):
        self.steps = steps
        self.limit = 60 * config.minutes
        self.device = device
        self.began = time.monotonic() - spent

    @property
    def seconds(self) -> float:
        """What the stage has taken so far, by this process's clock."""
        return time.monotonic() - self.began

    def steps_in_all(self, step: int) -> int:
        """How many steps the stage will have, as it looks before ``step`` (counted from 0); at least that one."""
        if not self.limit or not step:
            return self.steps
        return max(step + 1, min(self.steps, int(step * self.limit / max(first_of(self.seconds, self.device), 1e-9))))


def first_of(value: float, device: torch.device | str = "cpu") -> float:
    """The value of the first process, in all that train together."""
    with joint_batch():
        rank, processes = joint_rank_and_world_size()
        return value if processes == 1 else float(summed(torch.tensor(value if rank == 0 else 0.0, device=device)))
