"""The running average of a stage's weights: after step t, e ← d·e + (1 - d)·w with d = min(decay, (1 + t) / (10 + t)).

The decay is ramped up, as TensorFlow's ExponentialMovingAverage does it, so that a short stage forgets the weights it
began with. Batch norm's running mean and variance are averaged as the weights are; counts are copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


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


Tensors = tuple[Tensor, ...] | list[Tensor]


class Average:
    """The average itself, in ``tensors`` by name; what is not trained in a stage stays as it is, to the bit."""

    def __init__(self, module: nn.Module, decay: float):
        self.decay = decay
        self.averaged = AveragedModel(module, multi_avg_fn=self._average, use_buffers=True)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The averaged parameters and buffers; what is written into them is averaged on."""
        return self.averaged.module.state_dict()

    def update(self, module: nn.Module, step: int) -> None:
        """Take in the weights after step ``step``, counted from 0."""
        # One more than the steps: AveragedModel copies the first weights that it is given, and averages from then on.
        self.averaged.n_averaged.fill_(step + 1)
        self.averaged.update_parameters(module)

    def _average(self, averaged: Tensors, current: Tensors, count: Tensor | int) -> None:
        """Average tensors of one type in place, after ``count`` - 1 earlier steps."""
        step = int(count) - 1
        share = 1 - min(self.decay, (1 + step) / (10 + step))
        for own, value in zip(averaged, current, strict=True):
            if own.is_floating_point():
                own.lerp_(value, share)
            else:
                own.copy_(value)
