"""An evaluation in several processes: each computes every n-th batch, and all of them get every result.

A batch is the same images in one process or in ten, so its results are the same to the bit.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar

import torch.distributed
from torch.distributed.constants import default_pg_timeout
from torch.distributed.rendezvous import rendezvous

from unfool.core.errors import DeviceError
from unfool.core.processes import rank_and_world_size

JOIN_SECONDS = 300
"""How long a process waits for the others to start."""

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
    if _world_size() <= 1 or rank_and_world_size()[1] > 1:
        yield rank_and_world_size()[0] == 0
        return
    try:
        # Waiting for the others to start ends sooner than waiting for their results.
        store, rank, size = next(rendezvous("env://", timeout=timedelta(seconds=JOIN_SECONDS)))
        store.set_timeout(default_pg_timeout)
        # Without a name the group has gloo, which exchanges results, and, for training on GPUs, nccl.
        torch.distributed.init_process_group(store=store, rank=rank, world_size=size)
    except (RuntimeError, ValueError, OverflowError) as error:
        reason = " ".join(str(error).split())[:300]
        raise DeviceError(f"the group of processes cannot be joined ({reason}); start them with torchrun") from error
    try:
        yield rank_and_world_size()[0] == 0
        # The others may still read what this process has stored.
        torch.distributed.barrier()
    except RuntimeError as error:
        if not re.search(r"gloo|nccl|DistStore|Connection (closed|reset)", str(error), re.IGNORECASE):
            raise
        reason = " ".join(str(error).split())[-200:]
        raise DeviceError(
            f"another process of the group ended or went silent ({reason}); see what it said, and run all again to "
            "resume"
        ) from error
    finally:
        torch.distributed.destroy_process_group()


def _world_size() -> int:
    """How many processes a launcher says that it started; DeviceError for what is no number."""
    text, rank = os.environ.get("WORLD_SIZE", "1"), os.environ.get("RANK", "0")
    if not re.fullmatch(r"\d{1,6}", text):
        raise DeviceError(f"WORLD_SIZE is {text!r}, which is no number of processes; start them with torchrun")
    if int(text) > 1 and not (re.fullmatch(r"\d{1,6}", rank) and int(rank) < int(text)):
        raise DeviceError(f"RANK is {rank!r}, which is none of {text} processes; start them with torchrun")
    return int(text)
