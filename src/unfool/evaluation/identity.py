# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownLambdaType=false, reportPrivateUsage=false
"""Which system was attacked, and which was evaluated: a hash of all of it, from normalisation to defense."""

from __future__ import annotations

import functools
import hashlib
import json
import types
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unfool.core.errors import SpecError
from unfool.models.network import Network

_PLUMBING = frozenset(vars(nn.Module()))
"""Attributes that every module has: its mode, its tables of parts (read below) and torch's own bookkeeping."""
_HOOKS = ("_forward_pre_hooks", "_forward_hooks")


def identity(system: nn.Module) -> str:
    """Name a system by a hash of everything that decides its outputs, so that results say what they are about.

    Hashed are, part by part: class and name, every parameter and buffer (name, dtype, shape, bits), forward hooks, and
    the settings: a Network's architecture, any other module's own attributes, private ones included, so that a
    defense's number of steps counts. Device, memory order and mode are not hashed. An attribute that changes as a
    system runs changes its identity, and results are then called transfer, which is the safe side. The faster copy that
    attacks search on has no part in it: results carry the identity of the system that confirmed them.

    Args:
        system: The whole evaluated system, from normalisation to defense.

    Returns:
        Sixteen hex digits, equal for two systems only if they compute the same function from the same numbers.

    Example:
        >>> from unfool import identity
        >>> model = torch.nn.Linear(2, 2)
        >>> identity(model) == identity(model.eval())
        True
        >>> before = identity(model)
        >>> _ = model.bias.data.add_(1e-3)
        >>> identity(model) == before
        False
    """
    digest = hashlib.blake2b(digest_size=8)
    for piece in _module("", system, False, frozenset()):
        digest.update(piece)
    return digest.hexdigest()


def _module(name: str, part: nn.Module, described: bool, above: AbstractSet[int]) -> Iterator[bytes]:
    """One module and all below it; ``described``: an architecture above it has already named its settings."""
    yield f"\n{name}:{_class(part)}".encode()
    if id(part) in above:
        return
    above = above | {id(part)}
    architecture = _architecture(part)
    if architecture is not None:
        yield architecture.encode()
        described = True
    elif not described:
        for key in sorted(vars(part).keys() - _PLUMBING):
            yield f"\n{name}.{key}=".encode()
            yield from _value(vars(part)[key], above)
    for table in _HOOKS:
        for hook in getattr(part, table).values():
            yield f"\n{name} {table} ".encode()
            yield from _value(hook, above)
    for key, tensor in (*part._parameters.items(), *part._buffers.items()):
        yield f"\n{name}.{key}=".encode()
        yield from _value(tensor, above)
    for key, child in part._modules.items():
        if child is not None:
            yield from _module(f"{name}.{key}", child, described, above)


def _architecture(part: nn.Module) -> str | None:
    """A Network's description; None for a subclass, which may have settings of its own, and for a foreign head."""
    if type(part) is not Network:
        return None
    try:
        return json.dumps(part.architecture, sort_keys=True)
    except SpecError:
        return None


def _class(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _value(value: Any, above: AbstractSet[int]) -> Iterator[bytes]:
    """A setting as bytes: the same for equal values in every process, and different for different ones."""
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes, torch.dtype, torch.memory_format)):
        yield f"{_class(value)} {value!r};".encode()
    elif isinstance(value, Tensor):
        tensor = value.detach().cpu().contiguous()
        yield f"{tensor.dtype} {tuple(tensor.shape)};".encode()
        yield tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        yield f"{value.dtype} {value.shape};".encode()
        yield value.tobytes()
    elif isinstance(value, torch.device) or id(value) in above:
        yield b";"
    elif isinstance(value, nn.Module):
        yield from _module("", value, False, above)
    else:
        yield f"{_class(value)}(".encode()
        yield from _compound(value, above | {id(value)})
        yield b");"


def _compound(value: Any, above: AbstractSet[int]) -> Iterator[bytes]:
    if isinstance(value, Mapping):
        for key, item in sorted(value.items(), key=lambda entry: repr(entry[0])):
            yield f"{key!r}:".encode()
            yield from _value(item, above)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _value(item, above)
    elif isinstance(value, AbstractSet):
        yield from sorted(b"".join(_value(item, above)) for item in value)
    elif isinstance(value, functools.partial):
        yield from _value((value.func, value.args, value.keywords), above)
    elif isinstance(value, types.MethodType):
        yield from _value((value.__func__, value.__self__), above)
    elif isinstance(value, types.FunctionType):
        yield f"{value.__module__}.{value.__qualname__}".encode() + value.__code__.co_code
        constants = [item for item in value.__code__.co_consts if not isinstance(item, types.CodeType)]
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        yield from _value((constants, value.__defaults__, value.__kwdefaults__, cells), above)
    elif isinstance(value, (type, types.BuiltinFunctionType)):
        yield f"{value.__module__}.{value.__qualname__}".encode()
    else:
        slots = (slot for kind in type(value).__mro__ for slot in getattr(kind, "__slots__", ()))
        state = {name: getattr(value, name) for name in slots if hasattr(value, name)} | getattr(value, "__dict__", {})
        yield from _compound(state, above)
