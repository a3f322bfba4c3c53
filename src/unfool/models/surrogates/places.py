# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Places in a model's pass, at which tensors are looked at or replaced: the inputs and outputs of its leaves."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Place:
    """The ``input`` or ``output`` of a module at one of its calls in a pass; ``""`` names the model itself."""

    module: str
    side: Literal["input", "output"]
    call: int = 0


IMAGES = Place(module="", side="input")
"""Where the images enter a model."""
RESULT = Place(module="", side="output")
"""Where its logits leave it."""

Visit = Callable[[Place, Tensor], Tensor]
"""Looks at the tensor at a place, and returns what the pass goes on with."""


def leaves_of(model: nn.Module) -> dict[str, nn.Module]:
    """The modules without submodules, by name; those that cannot be hooked are left out."""
    return {
        name: part
        for name, part in model.named_modules()
        if name and not any(True for _ in part.children()) and not isinstance(part, torch.jit.ScriptModule)
    }


@contextmanager
def visiting(model: nn.Module, visit: Visit, only: Collection[str] | None = None) -> Generator[None, None, None]:
    """Inside, each call of a leaf shows its first floating input and its output to ``visit``; after, no hook is left.

    What ``visit`` calls is as it is, whatever changes the functions that the model calls.

    ``only``: names of the leaves. The model's own input and output are the caller's to visit.
    """
    calls: dict[str, int] = {}

    def enter(name: str) -> Any:
        def hook(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
            calls[name] = calls.get(name, -1) + 1
            position = next((i for i, value in enumerate(arguments) if _is_floating(value)), None)
            if position is None:
                return arguments
            changed = list(arguments)
            with torch._C.DisableTorchFunction():
                changed[position] = visit(Place(module=name, side="input", call=calls[name]), arguments[position])
            return tuple(changed)

        return hook

    def leave(name: str) -> Any:
        def hook(_: nn.Module, __: tuple[Any, ...], output: Any) -> Any:
            if not _is_floating(output):
                return None
            with torch._C.DisableTorchFunction():
                return visit(Place(module=name, side="output", call=calls[name]), output)

        return hook

    hooks: list[Any] = []
    try:
        for name, part in leaves_of(model).items():
            if only is None or name in only:
                hooks += [part.register_forward_pre_hook(enter(name)), part.register_forward_hook(leave(name))]
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _is_floating(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.ndim > 0
