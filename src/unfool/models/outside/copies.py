# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Copies of modules, of any library's too, that share nothing with the original."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from unfool.core.errors import SpecError

Module = TypeVar("Module", bound=nn.Module)


def copied(module: Module, advice: str) -> Module:
    """A copy that shares nothing with the module, with every parameter a leaf that may learn where the module's may.

    Raises SpecError, with ``advice``, for a module that cannot be copied.
    """
    try:
        with torch.no_grad():  # With a graph, a script's copy would hang on to the original's parameters.
            own = copy.deepcopy(module, _kept_maps(module))
    except Exception as error:  # A module, or what it holds, may have copying code of its own.
        said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise SpecError(f"{type(module).__name__} cannot be copied ({said}); {advice}") from error
    for ours, theirs in zip(own.parameters(), module.parameters(), strict=True):
        ours.requires_grad_(theirs.requires_grad)
    return own


def _kept_maps(module: nn.Module) -> dict[int, Tensor]:
    """Copies without a graph, by id, of what passes left on the module: deepcopy refuses tensors with a graph."""
    copies: dict[int, Tensor] = {}
    waiting: list[Any] = [value for part in module.modules() for value in vars(part).values()]
    seen: set[int] = set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Tensor) and not value.is_leaf:
            copies[id(value)] = value.detach().clone()
        elif isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, (list, tuple, set)):
            waiting.extend(value)
    return copies
