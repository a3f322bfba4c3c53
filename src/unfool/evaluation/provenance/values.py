"""One value of a system taken apart: its own bytes, and the values it is made of."""

from __future__ import annotations

import collections
import contextvars
import copyreg
import enum
import functools
import io
import itertools
import pathlib
import re
import types
import weakref
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unfool.evaluation.provenance.origin import library_of
from unfool.evaluation.provenance.parts import (
    Parts,
    Unreadable,
    UnreadableError,
    class_name,
    is_source,
    seed_of,
)
from unfool.evaluation.provenance.python_code import (
    parts_of_class,
    parts_of_code,
    parts_of_function,
    parts_of_python_module,
)

PLUMBING = frozenset(vars(nn.Module()))
"""Attributes that every module has: its mode, its tables of parts (read by themselves) and torch's own bookkeeping."""
HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_hooks", "_backward_pre_hooks")
_PASSING = (types.GeneratorType, types.CoroutineType, io.IOBase, itertools.cycle)
"""What shows its content only by giving it away."""
_PLACES = frozenset({"_name_or_path", "name_or_path", "_commit_hash", "transformers_version"})
"""Where a configuration of transformers was read from: the same network lies in another folder elsewhere."""


def take_apart(value: Any) -> Parts:
    """A value with parts; raises UnreadableError where it shows none."""
    name = class_name(value)
    if type(value) in (dict, list, tuple):
        return _of_container(value, name) or Parts(b"", [])
    if isinstance(value, nn.Module):
        return _of_module(value)
    if isinstance(value, types.ModuleType):
        return parts_of_python_module(value)
    if isinstance(value, type):
        return parts_of_class(value)
    if isinstance(value, types.FunctionType):
        return parts_of_function(value)
    if isinstance(value, types.CodeType):
        return parts_of_code(value)
    if isinstance(value, types.MethodType):
        return Parts(b"method", [("function", value.__func__), ("self", value.__self__)])
    if isinstance(value, (types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType)):
        itself = getattr(value, "__self__", None)
        bound = [] if itself is None or isinstance(itself, types.ModuleType) else [("self", itself)]
        return Parts(f"{name} {getattr(value, '__module__', '')}.{value.__qualname__}".encode(), list(bound))
    if isinstance(value, functools.partial):
        return Parts(
            b"partial", [("func", value.func), ("args", value.args), ("keywords", sorted(value.keywords.items()))]
        )
    if isinstance(value, property):
        return Parts(b"property", [("get", value.fget), ("set", value.fset)])
    if isinstance(value, (staticmethod, classmethod)):
        return Parts(name.encode(), [("function", value.__func__)])
    if isinstance(value, np.ndarray):
        # A class of one's own may hold more than the values: a mask, a unit.
        more = [("class", type(value)), ("attributes", _state(value, {}))] if type(value) is not np.ndarray else []
        plain = np.asarray(value)
        if value.dtype.hasobject:
            items = [(str(i), item) for i, item in enumerate(plain.ravel().tolist())]
            return Parts(f"objects {value.shape}".encode(), [*items, *more])
        return Parts(f"{value.dtype} {value.shape};".encode() + np.ascontiguousarray(plain).tobytes(), more)
    if isinstance(value, (torch._ops.OpOverload, torch._ops.OpOverloadPacket)) and str(value).startswith("aten."):
        return Parts(f"{name} {value}".encode(), [])
    if is_source(value):
        return Parts(name.encode(), [("seed", seed_of(value))])
    if isinstance(value, enum.Enum):
        return Parts(f"{name}.{value.name}".encode(), [("value", value._value_)])
    return _of_container(value, name) or _of_object(value, name)


def _of_container(value: Any, name: str) -> Parts | None:
    if isinstance(value, (Mapping, weakref.WeakKeyDictionary, weakref.WeakValueDictionary)):
        entries = [("entry", (key, item)) for key, item in list(value.items())]
        if type(value) is dict:
            return Parts(b"dict", entries)
        extra = [("attributes", state)] if (state := _state(value, {})) else []
        extra += [("default", value.default_factory)] if isinstance(value, collections.defaultdict) else []
        return Parts(name.encode(), [*entries, *extra], ordered=isinstance(value, (dict, types.MappingProxyType)))
    if isinstance(value, (AbstractSet, weakref.WeakSet)):
        return Parts(name.encode(), [("item", item) for item in list(value)], ordered=False)
    if isinstance(value, (list, tuple, collections.deque)):
        extra = [("attributes", state)] if type(value) not in (list, tuple) and (state := _state(value, {})) else []
        extra += [("longest", value.maxlen)] if isinstance(value, collections.deque) else []
        return Parts(name.encode(), [*((str(index), item) for index, item in enumerate(value)), *extra])
    if isinstance(value, pathlib.PurePath):
        # Its other attributes are kept from earlier calls, such as its hash.
        own = [("attributes", vars(value))] if getattr(value, "__dict__", None) else []
        return Parts(name.encode(), [("class", type(value)), ("text", str(value)), *own])
    if isinstance(value, (slice, range)):
        return Parts(name.encode(), [("start", value.start), ("stop", value.stop), ("step", value.step)])
    if isinstance(value, torch.UntypedStorage):
        # Pickled, a storage carries its address.
        return Parts(name.encode(), [("bytes", torch.empty(0, dtype=torch.uint8, device=value.device).set_(value))])
    if isinstance(value, bytearray | memoryview):
        return Parts(name.encode() + bytes(value), [])
    if isinstance(value, types.CellType):
        try:
            return Parts(b"cell", [("content", value.cell_contents)])
        except ValueError:
            return Parts(b"empty cell", [])
    if isinstance(value, weakref.ReferenceType):
        return Parts(b"reference", [("to", value())])
    if isinstance(value, contextvars.ContextVar):
        return Parts(b"variable", [("value", value.get(None))])
    if isinstance(value, itertools.count):
        return Parts(repr(value).encode(), [])
    return None


def _of_object(value: Any, name: str) -> Parts:
    """An instance of any other class: its attributes, or what pickle would rebuild it from."""
    if isinstance(value, Unreadable):
        raise UnreadableError(value.what)
    if isinstance(value, _PASSING):
        raise UnreadableError(f"a {type(value).__name__}")
    kind = [("class", type(value))]
    wrapped = getattr(value, "__wrapped__", None) if library_of(type(value).__module__) is not None else None
    if isinstance(wrapped, types.FunctionType):
        return Parts(name.encode(), [("function", wrapped)])
    state = _state(value, None)
    if state is not None:
        return Parts(name.encode(), [*kind, *sorted(state.items())], attributes=True)
    try:
        rebuilt = copyreg.dispatch_table.get(type(value), lambda item: item.__reduce_ex__(4))(value)
    except Exception as error:
        raise UnreadableError(f"a {type(value).__name__}") from error
    if isinstance(rebuilt, str):
        return Parts(f"{name} {rebuilt}".encode(), [])
    pieces = [("rebuilt", rebuilt[0]), ("arguments", rebuilt[1]), *(("state", piece) for piece in rebuilt[2:3])]
    pieces += [("items", list(items)) for items in rebuilt[3:5] if items is not None]
    return Parts(name.encode(), [*kind, *pieces])


def _state(value: Any, otherwise: Any) -> Any:
    """The attributes of an instance by name; ``otherwise`` if its class gives it none."""
    state: dict[str, Any] = {}
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for slot in [slots] if isinstance(slots, str) else slots:
            if slot not in ("__dict__", "__weakref__"):
                private = slot.startswith("__") and not slot.endswith("__")
                name = f"_{kind.__name__.lstrip('_')}{slot}" if private else slot
                try:
                    state[slot] = object.__getattribute__(value, name)
                except AttributeError:
                    continue
    own = getattr(value, "__dict__", None)
    if isinstance(own, dict):
        state.update({str(key): item for key, item in own.items()})
    library = library_of(type(value).__module__) or ""
    if library.startswith("transformers "):
        state = {key: item for key, item in state.items() if key not in _PLACES}
    return state or otherwise


def _of_module(module: nn.Module) -> Parts:
    """One module: class, attributes, hooks, parameters, buffers and parts; of a script or a graph its code."""
    name = class_name(module)
    inner = getattr(module, "_orig_mod", None)
    if name.startswith("torch._dynamo") and isinstance(inner, nn.Module):
        return Parts(name.encode(), [("_orig_mod", inner)])
    own, attributes = _own_code(module)
    parts: list[tuple[str, Any]] = [("class", type(module))] if own is None else []
    parts += [(key, attributes[key]) for key in sorted(attributes)]
    for table in HOOKS:
        # A script has no tables of hooks.
        parts += [(f"{table} {index}", hook) for index, hook in enumerate(getattr(module, table, {}).values())]
    return Parts(name.encode() + (own or b""), parts, attributes=True)


def _own_code(module: nn.Module) -> tuple[bytes | None, dict[str, Any]]:
    """The code that a module carries itself, if it does, and its attributes."""
    if isinstance(module, torch.jit.ScriptModule):
        script: Any = getattr(module, "_c", None)
        graph = script.dump_to_str(True, False, False) if script is not None else ""
        # Where a line came from, and the numbers that keep two scripts of one class apart.
        code = re.sub(r" # .*|___torch_mangle_\d+\.| object at 0x[0-9a-f]+", "", graph)
        names = sorted(set(re.findall(r'GetAttr\[name="(\w+)"\]', code)))
        settings = {name: getattr(module, name, None) for name in names}
        plain = (bool, int, float, str, list, tuple, dict, Tensor)
        own = {*module._parameters.keys(), *module._buffers.keys()}
        return code.encode(), {k: v for k, v in settings.items() if isinstance(v, plain) and k not in own}
    left_out = getattr(type(module), "identity_leaves_out", frozenset()) if library_of(type(module).__module__) else ()
    attributes = {k: item for k, item in vars(module).items() if k not in PLUMBING and k not in left_out}
    if isinstance(module, torch.fx.GraphModule):
        tensors = {key: item for key, item in attributes.items() if isinstance(item, (Tensor, bool, int, float))}
        return module.code.encode(), tensors
    return None, attributes
