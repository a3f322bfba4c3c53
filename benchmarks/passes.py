"""Counts the images that pass through networks, forward and backward, whichever copy of a network computes."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook


@dataclass
class Passes:
    """Images that went forward, and images whose gradient was taken."""

    forward: int = 0
    backward: int = 0


class _Marked(torch.autograd.Function):
    """Images as they are; their gradient is counted as it comes back."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, passes: Passes) -> Tensor:
        ctx.passes = passes
        return images.view_as(images)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ctx.passes.backward += len(gradient)
        return gradient, None


@contextmanager
def counted() -> Generator[Passes, None, None]:
    """Count every outermost call of a module on images, whatever module it is."""
    passes, depth = Passes(), 0

    def enter(module: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...] | None:
        nonlocal depth
        depth += 1
        images = inputs[0] if inputs else None
        if depth > 1 or not isinstance(images, Tensor) or images.ndim != 4:
            return None
        passes.forward += len(images)
        return (_Marked.apply(images, passes), *inputs[1:])

    def leave(module: torch.nn.Module, inputs: Any, outputs: Any) -> None:
        nonlocal depth
        depth -= 1

    handles = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave, always_call=True)]
    try:
        yield passes
    finally:
        for handle in handles:
            handle.remove()
