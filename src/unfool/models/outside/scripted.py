# pyright: reportUnknownMemberType=false
"""Long searches without gradients: a fast copy without Python between its layers."""

from __future__ import annotations

import warnings
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn

_FIRST_PASSES = 200
"""Passes without a gradient after which making a script pays: a few hundred more are then likely."""


class Scripted(nn.Module):
    """A module of whose many passes without a gradient the later ones run as a script, with the same bits.

    Only what `torch.fx` can trace is scripted: a module that decides by its images, and so is another function for
    others, is not.
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module
        self.script: Any = None
        self.passes = 0

    def forward(self, inputs: Tensor) -> Any:
        """What the module gives."""
        if torch.is_grad_enabled():
            return self.module(inputs)
        self.passes += 1
        if self.passes == _FIRST_PASSES:
            self.script = _script(self.module, inputs)
        return self.module(inputs) if self.script is None else self.script(inputs)


def _script(module: nn.Module, inputs: Tensor) -> Any:
    """The module as a frozen script; None if that is not possible, or does not give the same bits."""
    try:
        with warnings.catch_warnings():
            # PyTorch announces the end of scripts; without them searches are as slow as before.
            warnings.simplefilter("ignore")
            graph = torch.fx.symbolic_trace(module)
            traced = torch.jit.freeze(torch.jit.trace(graph, inputs[:1], check_trace=False))
        # Twice, as a script is optimised on its second pass; on two sizes of batch, as a trace may keep one.
        same = all(torch.equal(traced(part), module(part)) for part in (inputs, inputs, inputs[:1], inputs))
    except Exception:  # The module is the user's, and most of Python cannot be traced.
        return None
    return traced if same else None
