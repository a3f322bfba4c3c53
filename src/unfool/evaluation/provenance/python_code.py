"""Python code taken apart: a library's by its name and version, the user's own by its content."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from typing import Any

from unfool.evaluation.provenance.origin import library_of
from unfool.evaluation.provenance.parts import Parts

_OF_A_CLASS = frozenset(
    re.findall(
        r"\w+",
        """__dict__ __weakref__ __doc__ __module__ __qualname__ __firstlineno__ __static_attributes__ __annotations__
        __annotate__ __annotate_func__ __annotations_cache__ __abstractmethods__ _abc_impl __hash__ __orig_bases__
        __parameters__ __slots__ __match_args__ __dataclass_params__ __dataclass_fields__ __type_params__""",
    )
)
_DESCRIPTORS = (types.MemberDescriptorType, types.GetSetDescriptorType)


def parts_of_python_module(module: types.ModuleType) -> Parts:
    """A library's module by its name; of a module of the user's what it defines."""
    library = library_of(module.__name__)
    if library is not None:
        return Parts(f"module {module.__name__} of {library}".encode(), [])
    public = [(key, item) for key, item in sorted(vars(module).items()) if not key.startswith("__")]
    return Parts(b"module", public, attributes=True)


def parts_of_class(kind: type) -> Parts:
    """A library's class by its name; of a class of the user's all that it defines, and its bases."""
    label = f"class {kind.__module__}.{kind.__qualname__}"
    library = library_of(kind.__module__)
    if library is not None:
        return Parts(f"{label} of {library}".encode(), [])
    members = [(key, item) for key, item in sorted(vars(kind).items()) if key not in _OF_A_CLASS]
    shown = [(key, item) for key, item in members if not isinstance(item, _DESCRIPTORS)]
    bases = [("base", base) for base in kind.__bases__]
    return Parts(label.encode(), [*bases, *shown], attributes=True)


def parts_of_function(function: types.FunctionType) -> Parts:
    """A library's function by its name; of the user's the code and what it closes over."""
    library = library_of(function.__module__)
    closed = list(zip(function.__code__.co_freevars, function.__closure__ or (), strict=False))
    parts: list[tuple[str, Any]] = [("defaults", function.__defaults__), ("keywords", function.__kwdefaults__)]
    if library is not None and "<" not in function.__qualname__:
        return Parts(f"function {function.__module__}.{function.__qualname__} of {library}".encode(), parts)
    parts += [("code", function.__code__), *closed]
    if library is None:
        parts += [(key, item) for key, item in sorted(vars(function).items())]
    return Parts(f"function {function.__qualname__}".encode(), parts, attributes=True)


def mentioned_globals(function: types.FunctionType) -> list[tuple[str, Any]]:
    """The global variables of the user's that a function mentions, by name."""
    if library_of(function.__module__) is not None:
        return []
    known = function.__globals__
    return [(name, known[name]) for name in sorted(set(names_of(function.__code__))) if name in known]


def names_of(code: types.CodeType) -> Iterator[str]:
    """The names that a piece of code and the code inside it mention."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from names_of(constant)


def parts_of_code(code: types.CodeType) -> Parts:
    """Instructions, names and constants."""
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars, code.co_argcount, code.co_flags)
    table = getattr(code, "co_exceptiontable", b"")
    # A docstring is a constant that no instruction reads; it is left in, which is the safe side.
    return Parts(code.co_code + table + repr(names).encode(), [("constant", item) for item in code.co_consts])
