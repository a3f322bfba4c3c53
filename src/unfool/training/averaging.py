"""The running average of a stage's weights: after step t, e ← d·e + (1 - d)·w with d = min(decay, (1 + t) / (10 + t)).

The decay is ramped up, as TensorFlow's ExponentialMovingAverage does it, so that a short stage forgets the weights it
began with. Batch norm's running mean and variance are averaged as the weights are; counts are copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """Copies of a module's parameters and buffers, by name."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


@contextmanager
def holding(module: nn.Module, tensors: dict[str, Tensor]) -> Iterator[None]:
    """Inside, the module holds these tensors; after, bit for bit what it held before."""
    before = snapshot(module)
    module.load_state_dict(tensors)
    try:
        yield
    finally:
        module.load_state_dict(before)


class Average:
    """The average itself, in ``tensors`` by name; what does not move in a stage stays as it is, to the bit."""

    def __init__(self, module: nn.Module, decay: float):
        self.decay = decay
        self.tensors = snapshot(module)

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Take in the weights after step ``step``, counted from 0."""
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        for name, value in module.state_dict().items():
            if value.is_floating_point():
                self.tensors[name].lerp_(value, share)
            else:
                self.tensors[name].copy_(value)
