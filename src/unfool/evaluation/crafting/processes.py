"""An evaluation in several processes: each computes every n-th batch, and all of them get every result.

A batch is the same images in one process or in ten, so its results are the same to the bit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch.distributed

from unfool.core.errors import DeviceError
from unfool.core.processes import rank_and_world_size

Key = TypeVar("Key")
Value = TypeVar("Value")


def gathered(own: dict[Key, Value]) -> dict[Key, Value]:
    """The values of all processes of the group, by key; every process must call it."""
    _, processes = rank_and_world_size()
    if processes == 1:
        return own
    shares: list[dict[Key, Value]] = [{} for _ in range(processes)]
    torch.distributed.all_gather_object(shares, own)
    return {key: value for share in shares for key, value in share.items()}


@contextmanager
def joined() -> Iterator[bool]:
    """Join the group that a launcher (torchrun, accelerate launch) has prepared, if any, and leave it at the end.

    Yields whether this process is the one that prints and writes. Raises DeviceError where the group cannot be joined.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1 or rank_and_world_size()[1] > 1:
        yield rank_and_world_size()[0] == 0
        return
    try:
        # Without a name the group has gloo, which exchanges results, and, for training on GPUs, nccl.
        torch.distributed.init_process_group()
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DeviceError(f"the group of processes cannot be joined ({reason}); start them with torchrun") from error
    try:
        yield rank_and_world_size()[0] == 0
    finally:
        torch.distributed.destroy_process_group()
