# pyright: reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Rows of the joint batch that several processes share: each has equally many of its images.

Legend: b images of this process, P processes, V views of each image (n = V·b, N = V·P·b, view-major), D dimensions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unfool.core.processes import joint_rank_and_world_size, summed


def gathered(z_ND: Tensor, count: int = 1) -> Tensor:
    """The joint batch's rows (N, D), of this process's (n, D), in the order that a single process would have them in.

    ``count`` is V. Differentiable: the gradients of all processes reach every process's own rows. Each process gets
    the losses of the whole batch from it, and keeps `own_rows` of them.
    """
    rank, processes = joint_rank_and_world_size()
    if processes == 1:
        return z_ND
    own_VbD = z_ND.unflatten(0, (count, -1))
    # Rows of the other processes are zeros to be added to.
    every_PVbD = torch.stack([own_VbD if number == rank else torch.zeros_like(own_VbD) for number in range(processes)])
    return summed(every_PVbD).transpose(0, 1).flatten(0, 2)


def own_rows(values_B: Tensor) -> Tensor:
    """This process's rows (b, ...) of values for the images of the joint batch (P·b, ...)."""
    rank, processes = joint_rank_and_world_size()
    return values_B if processes == 1 else values_B.chunk(processes)[rank]
