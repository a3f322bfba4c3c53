# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Borrow a module for attacking it, and give it back exactly as it was; draw what its random layers draw anew."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import nn

from unfool.core.streams import Streams


def parts_in_train_mode(module: nn.Module) -> list[str]:
    """Names of the submodules in train mode whose code asks for it: batch norm, dropout, and what a user writes so."""
    return [
        name or type(module).__name__
        for name, part in module.named_modules()
        if part.training and _asks_for_its_mode(type(part))
    ]


def _asks_for_its_mode(kind: type[nn.Module]) -> bool:
    """Whether a class's methods read ``training``; one without Python code may."""
    if issubclass(kind, torch.jit.ScriptModule):
        return True
    own = (vars(each).items() for each in kind.__mro__ if each not in (nn.Module, object))
    members = (member for items in own for name, member in items if name not in ("__init__", "train", "eval"))
    codes = (getattr(member, "__code__", None) for member in members)
    return any(code is not None and "training" in code.co_names for code in codes)


@contextmanager
def frozen_eval(module: nn.Module) -> Generator[None, None, None]:
    """Inside: eval mode and frozen parameters. After, also after an exception: everything as it was.

    That is: every submodule's own mode (a frozen batch norm stays frozen), ``requires_grad`` flags, the very ``.grad``
    tensors, buffers bit for bit, and the global random states of torch (CPU and CUDA).
    """
    modes = [(part, part.training) for part in module.modules()]
    flags = [(parameter, parameter.requires_grad, parameter.grad) for parameter in module.parameters()]
    buffers = [
        (part, name, buffer, buffer.detach().clone())
        for part in module.modules()
        for name, buffer in part.named_buffers(recurse=False)
    ]
    cpu = torch.random.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    try:
        module.eval()
        for parameter, _, _ in flags:
            parameter.requires_grad_(False)
            # Set aside, not cleared: an accumulation inside cannot reach the caller's tensor.
            parameter.grad = None
        yield
    finally:
        # Flags are set on each submodule by itself: train() would also reach a batch norm that was frozen on purpose.
        for part, mode in modes:
            part.training = mode
        for parameter, flag, gradient in flags:
            parameter.requires_grad_(flag)
            parameter.grad = gradient
        with torch.no_grad():
            for part, name, buffer, saved in buffers:
                setattr(part, name, buffer)
                # Written only if it changed: a write would invalidate graphs of the caller that saved the buffer.
                if not torch.equal(buffer, saved):
                    buffer.copy_(saved)
        torch.random.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


@contextmanager
def random_layers(streams: Streams) -> Generator[None, None, None]:
    """Inside, dropout and whatever else draws from torch's global random states draws what follows from ``streams``.

    After, those states are as they were. Such draws belong to places in the batch and not to images: give every step,
    and every process of a joint batch, streams of its own.
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    with torch.random.fork_rng(devices=devices):
        if torch.accelerator.is_available():
            torch.manual_seed(streams.key)
        else:
            # torch.manual_seed notes its caller for each kind of device, which takes longer than a small layer.
            torch.default_generator.manual_seed(streams.key)
        yield
