# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
"""The processes that a launcher started together, and the batch that they share while they train.

What belongs to the joint batch (negatives of contrast, statistics of batch norm) is gathered only inside
`joint_batch`, which training enters: elsewhere, say while several processes evaluate different images, every process
is alone. Losses of the joint batch are means over equal shares, so the mean of the processes' gradients is its
gradient.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.distributed
from torch import Tensor

_JOINT: ContextVar[bool] = ContextVar("joint batch", default=False)


def rank_and_world_size() -> tuple[int, int]:
    """This process's number in its group, and how many there are; (0, 1) without a group."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1


@contextmanager
def joint_batch() -> Generator[None, None, None]:
    """Inside, the processes of the group show the network one batch together, step by step."""
    token = _JOINT.set(True)
    try:
        yield
    finally:
        _JOINT.reset(token)


def joint_rank_and_world_size() -> tuple[int, int]:
    """As `rank_and_world_size`, inside `joint_batch`; (0, 1) outside."""
    return rank_and_world_size() if _JOINT.get() else (0, 1)


def summed(values: Tensor) -> Tensor:
    """The sum over the processes of the joint batch, of equal shapes; its gradient is summed over them too."""
    _, processes = joint_rank_and_world_size()
    return values if processes == 1 else _Summed.apply(values)


class _Summed(torch.autograd.Function):
    # torch.distributed.nn.functional.all_reduce does the same, and warns since torch 2.13 that it will go.
    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        total = own.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Summed.apply(*gradients)
