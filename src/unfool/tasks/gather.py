"""Batches that several processes share: each has equally many images of one joint batch.

What belongs to the joint batch (negatives of contrast, statistics of batch norm) is gathered only inside
`joint_batch`, which training enters: elsewhere, say while several processes judge different images, every process is
alone. Losses of the joint batch are means over equal shares, so the mean of the processes' gradients is its gradient.

Legend: b images of this process, P processes, V views of each image (n = V·b, N = V·P·b, view-major), D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from unfool.core.processes import rank_and_world_size

_JOINT: ContextVar[bool] = ContextVar("joint batch", default=False)


@contextmanager
def joint_batch() -> Iterator[None]:
    """Inside, the processes of the group show the network one batch together, step by step."""
    token = _JOINT.set(True)
    try:
        yield
    finally:
        _JOINT.reset(token)


def joint_rank_and_world_size() -> tuple[int, int]:
    """As `place`, inside `joint_batch`; (0, 1) outside."""
    return rank_and_world_size() if _JOINT.get() else (0, 1)


def gathered(z_ND: Tensor, count: int = 1) -> Tensor:
    """The joint batch's rows (N, D), of this process's (n, D), in the order that one process would have them in.

    ``count`` is V. Differentiable: the gradients of all processes reach every process's own rows. Each process gets
    the losses of the whole batch from it, and keeps `own_rows` of them.
    """
    number, processes = joint_rank_and_world_size()
    if processes == 1:
        return z_ND
    own_VbD = z_ND.unflatten(0, (count, -1))
    # Rows of the other processes are zeros to be added to.
    every_PVbD = torch.stack([own_VbD if place == number else torch.zeros_like(own_VbD) for place in range(processes)])
    return summed(every_PVbD).transpose(0, 1).flatten(0, 2)


def own_rows(values_B: Tensor) -> Tensor:
    """This process's rows (b, ...) of values for the images of the joint batch (P·b, ...)."""
    number, processes = joint_rank_and_world_size()
    return values_B if processes == 1 else values_B.chunk(processes)[number]


def summed(values: Tensor) -> Tensor:
    """The sum over the processes of the joint batch, of equal shapes; differentiable."""
    _, processes = joint_rank_and_world_size()
    return values if processes == 1 else _Summed.apply(values)


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        total = own.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _Summed.apply(*gradients)
