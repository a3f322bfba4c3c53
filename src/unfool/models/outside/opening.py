# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""A classifier by the text that names it: a Python file, a hub's name, a program file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import is_lazy

from unfool.core.errors import SpecError
from unfool.models.outside.black_box import BlackBox, is_estimator
from unfool.models.outside.hubs import HUBS, Source
from unfool.models.outside.program_files import read_program
from unfool.models.python_file import FORM, load_object

_PROGRAMS = (".pt", ".pth", ".pt2", ".ts", ".jit", ".torchscript", ".th", ".ckpt", ".bin")


def open_source(text: str, *, random: bool = False) -> Source:
    """The classifier that a text names: FILE.py:NAME, hf:, timm:, torchvision:, a TorchScript or exported program.

    ``random``: other weights are given, so those of a hub are not read. Raises SpecError.
    """
    prefix, colon, name = text.partition(":")
    if colon and prefix in HUBS and not os.path.exists(text):
        if not name:
            raise SpecError(f"model {text!r} names nothing; write {prefix}:NAME")
        return HUBS[prefix](name, random)
    path = Path(text)
    if path.suffix in _PROGRAMS:
        return Source(model=read_program(path))
    return Source(model=as_module(load_object(text), text))


def as_module(value: Any, name: str) -> nn.Module:
    """Whatever classifies images as a module; SpecError for what does not.

    An exported program gives its module, `DataParallel` and compiled networks what they wrap, functions and estimators
    of scikit-learn become black boxes.
    """
    if isinstance(value, torch.export.ExportedProgram):
        value = value.module()
    if isinstance(value, torch.fx.GraphModule):
        _let_switch(value)
    while isinstance(value, nn.Module):
        inner = getattr(value, "_orig_mod", None) if type(value).__module__.startswith("torch._dynamo") else None
        if isinstance(value, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = value.module
        if not isinstance(inner, nn.Module):
            return value
        value = inner
    if is_estimator(value) or (callable(value) and not isinstance(value, type)):
        return BlackBox(value)
    kind = type(value).__name__
    if isinstance(value, type):
        raise SpecError(f"the model is the class {value.__name__}; give an instance of it, {value.__name__}(...)")
    shown = "the model" if name == kind else f"model {name}"
    raise SpecError(f"{shown} is a {kind}, not an nn.Module, a function or an estimator; {FORM}")


def _let_switch(module: nn.Module) -> None:
    """An exported program computes the same in either mode, but refuses to be switched: let it take eval mode."""
    own = vars(module)
    if "train" in own or "eval" in own:
        own.pop("train", None)
        own.pop("eval", None)
        for part in module.modules():
            part.training = False


def check_materialised(module: nn.Module) -> None:
    """Raise SpecError for a lazy layer that has no weights yet, and for weights on the meta device."""
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if not is_lazy(tensor) and tensor.is_meta:
            raise SpecError(
                f"{name} has a shape and no values (device meta); build the model on the CPU, with its weights"
            )
    for name, part in module.named_modules():
        if isinstance(part, LazyModuleMixin) and part.has_uninitialized_params():  # pyright: ignore[reportAttributeAccessIssue]
            raise SpecError(
                f"{type(part).__name__} {name!r} has no weights yet; pass one batch through the model where you build "
                "it, or give --weights"
            )
