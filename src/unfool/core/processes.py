"""Where this process stands among those that a launcher started together."""

from __future__ import annotations

import torch.distributed


def rank_and_world_size() -> tuple[int, int]:
    """This process's number in its group, and how many there are; (0, 1) without a group."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
