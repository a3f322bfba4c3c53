# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Models that take one batch size only, as exported programs do: which one, and batches padded to it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

_TRIED = (8, 1, 2, 4, 16, 32, 64, 128, 256, 10, 20, 25, 50, 100, 200)


def resized(images: Tensor, count: int) -> Tensor:
    """So many images (count, C, H, W): the first ones, or all of them over and over."""
    return images[torch.arange(count, device=images.device) % len(images)]


def in_batches(run: Callable[[Tensor], list[Tensor]], images: Tensor, size: int) -> list[Tensor]:
    """What ``run`` gives for images (B, C, H, W), ``size`` at a time; the last batch is padded with its last image."""
    parts: list[list[Tensor]] = []
    for part in images.split(size):
        missing = size - len(part)
        padded = torch.cat([part, part[-1:].expand(missing, *part.shape[1:])]) if missing else part
        parts.append([values[: len(part)] for values in run(padded)])
    return [torch.cat(values) for values in zip(*parts, strict=True)]


def fixed_batch(run: Callable[[Tensor], Any], images: Tensor, first: Iterable[int] = ()) -> int | None:
    """The one batch size that a model takes; None for one that takes any, and for one that fails at every size."""

    def works(count: int) -> bool:
        try:
            run(resized(images, count))
        except Exception:  # The model is the user's, and may refuse in any way.
            return False
        return True

    if works(3) and works(1):
        return None
    return next((size for size in (*first, *_TRIED) if works(size)), None)
