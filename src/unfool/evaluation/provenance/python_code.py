"""Python code taken apart: a library's by its name and version, the user's own by its content."""

from __future__ import annotations

import dis
import importlib
import importlib.util
import os
import re
import sys
import types
from collections.abc import Iterator
from typing import Any

import torch

from unfool.evaluation.provenance.origin import (
    library_of,
    library_of_class,
    library_of_file,
    library_of_function,
    module_of,
)
from unfool.evaluation.provenance.parts import Parts, Unreadable

_OF_A_CLASS = frozenset(
    re.findall(
        r"\w+",
        """__dict__ __weakref__ __doc__ __module__ __qualname__ __firstlineno__ __static_attributes__ __annotations__
        __annotate__ __annotate_func__ __annotations_cache__ __abstractmethods__ _abc_impl __hash__ __orig_bases__
        __parameters__ __slots__ __match_args__ __dataclass_params__ __dataclass_fields__ __type_params__""",
    )
)
_BY_TEXT = frozenset({"globals", "eval", "exec"})
"""By these a function may reach any variable of its module."""
_IMPORTING = frozenset({"import_module", "__import__"})
_ENVIRONMENT = frozenset({"environ", "getenv"})
_DESCRIPTORS = (types.MemberDescriptorType, types.GetSetDescriptorType)


def parts_of_python_module(module: types.ModuleType) -> Parts:
    """A library's module by its name; of a module of the user's what it defines."""
    library = library_of(module.__name__)
    if library is not None and sys.modules.get(module.__name__, module) is module:
        return Parts(f"module {module.__name__} of {library}".encode(), [])
    public = [
        (key, item)
        for key, item in sorted(vars(module).items())
        if not (key.startswith("__") and key.endswith("__")) or key == "__getattr__"
    ]
    return Parts(b"module", public, attributes=True)


def parts_of_class(kind: type) -> Parts:
    """A library's class by its name; of a class of the user's all that it defines, and its bases."""
    label = f"class {kind.__module__}.{kind.__qualname__}"
    library = library_of_class(kind)
    if library is not None:
        return Parts(f"{label} of {library}".encode(), replaced_functions(*kind.__mro__))
    members = [(key, item) for key, item in sorted(vars(kind).items()) if key not in _OF_A_CLASS]
    shown = [(key, item) for key, item in members if not isinstance(item, _DESCRIPTORS)]
    bases = [("base", base) for base in kind.__bases__]
    bases += [("metaclass", type(kind))] if library_of_class(type(kind)) is None else []
    return Parts(label.encode(), [*bases, *shown], attributes=True)


def parts_of_function(function: types.FunctionType) -> Parts:
    """A library's function by its name; of the user's the code and what it closes over."""
    library = library_of_function(function)
    closed = list(zip(function.__code__.co_freevars, function.__closure__ or (), strict=False))
    parts: list[tuple[str, Any]] = [("defaults", function.__defaults__), ("keywords", function.__kwdefaults__)]
    if library is not None:
        return Parts(f"function {function.__module__}.{function.__qualname__} of {library}".encode(), parts)
    parts += [("code", function.__code__), *closed]
    parts += [(key, item) for key, item in sorted(vars(function).items())]
    return Parts(f"function {function.__qualname__}".encode(), parts, attributes=True)


def replaced_functions(*holders: Any) -> list[tuple[str, Any]]:
    """Functions of the user's that stand in modules or classes of libraries, by name: they run in place of theirs."""
    return [
        (f"{holder.__name__}.{key}", item)
        for holder in holders
        if library_of(holder.__name__ if isinstance(holder, types.ModuleType) else holder.__module__) is not None
        for key, item in list(vars(holder).items())
        if isinstance(item, types.FunctionType)
        and (library_of(item.__module__) is None or library_of(module_of(item)) is None)
    ]


def changes_of_torch() -> list[tuple[str, Any]]:
    """What of the user's runs inside every model: functions put into PyTorch in place of its own, and global hooks."""
    hooks = vars(torch.nn.modules.module)
    tables = ("_global_forward_pre_hooks", "_global_forward_hooks", "_global_backward_hooks")
    own = [(f"{table} {index}", hook) for table in tables for index, hook in enumerate(hooks.get(table, {}).values())]
    return own + replaced_functions(torch, torch.nn.functional, torch.Tensor, torch.nn.Module)


def mentioned_globals(function: types.FunctionType) -> list[tuple[str, Any]]:
    """The global variables of the user's that a function mentions by name, and those of the environment."""
    if library_of(module_of(function)) is not None:
        return []
    known, names = function.__globals__, set(names_of(function.__code__))
    if names & _BY_TEXT:
        names |= {name for name in known if not name.startswith("__")}
    mentioned = [(name, known[name]) for name in sorted(names) if name in known]
    if names & _ENVIRONMENT:
        texts = sorted(text for text in _texts_of(function.__code__) if text in os.environ)
        mentioned += [(f"environment {text}", os.environ[text]) for text in texts]
    return mentioned


def imported_modules(function: types.FunctionType) -> list[tuple[str, Any]]:
    """The modules of the user's that a function itself imports, which a pass is known to run: they are imported now."""
    package = str(function.__globals__.get("__package__") or "")
    names: set[str] = set()
    for code in codes_of(function.__code__):
        for step in dis.get_instructions(code):
            if step.opname == "IMPORT_NAME":
                names |= {str(step.argval), f"{package}.{step.argval}".strip(".")}
    if set(names_of(function.__code__)) & _IMPORTING:
        names |= {text for text in _texts_of(function.__code__) if text.replace(".", "").isidentifier()}
    return [(f"import {name}", _imported(name)) for name in sorted(names - {""}) if _is_users(name)]


def _is_users(name: str) -> bool:
    if name in sys.modules:
        return library_of(name) is None
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return False
    return spec is not None and library_of_file(name, spec.origin) is None


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except Exception:  # The user's module may do anything.
        return Unreadable(f"the module {name}, which cannot be imported")


def codes_of(code: types.CodeType) -> Iterator[types.CodeType]:
    """A piece of code and the code inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from codes_of(constant)


def _texts_of(code: types.CodeType) -> Iterator[str]:
    for inner in codes_of(code):
        yield from (item for item in inner.co_consts if isinstance(item, str))


def names_of(code: types.CodeType) -> Iterator[str]:
    """The names that a piece of code and the code inside it mention."""
    for inner in codes_of(code):
        yield from inner.co_names


def parts_of_code(code: types.CodeType) -> Parts:
    """Instructions, names and constants."""
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars, code.co_argcount, code.co_flags)
    table = getattr(code, "co_exceptiontable", b"")
    # A docstring is a constant that no instruction reads; it is left in, which is the safe side.
    return Parts(code.co_code + table + repr(names).encode(), [("constant", item) for item in code.co_consts])
