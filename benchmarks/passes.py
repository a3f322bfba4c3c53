"""Counts the images that pass through networks, forward and backward, whichever copy of a network computes.

Square calls the layers of some networks one by one, to compute only what a window changes. That is one pass of the
images whose windows are redrawn, however many layers it calls.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from unfool.models.windowed.chains import Chain
from unfool.models.windowed.passes import WindowedPasses


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
    """Count every outermost call of a module on images, whatever module it is, and every windowed pass once."""
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

    def as_one_pass(images: Tensor, compute: Callable[[], Any]) -> Any:
        nonlocal depth
        # Layers that are called meanwhile are inner calls.
        depth += 1
        passes.forward += len(images) if depth == 1 else 0
        try:
            return compute()
        finally:
            depth -= 1

    prepare, redraw = WindowedPasses.__init__, WindowedPasses.__call__

    def first_pass(self: WindowedPasses, chain: Chain, links: int, images: Tensor, side: int, changes: int) -> None:
        as_one_pass(images, lambda: prepare(self, chain, links, images, side, changes))

    def windowed_pass(self: WindowedPasses, windows: Tensor, slots: Tensor, top: Tensor, left: Tensor) -> Tensor:
        return as_one_pass(windows, lambda: redraw(self, windows, slots, top, left))

    handles = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave, always_call=True)]
    try:
        with patch.multiple(WindowedPasses, __init__=first_pass, __call__=windowed_pass):
            yield passes
    finally:
        for handle in handles:
            handle.remove()
