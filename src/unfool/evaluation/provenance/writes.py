"""Which attributes and variables a pass through a system writes, read off the source of the code that a pass runs.

Counters, lists of feature maps and caches are written by passes: a system is the same before and after them.
"""

from __future__ import annotations

import ast
import functools
import linecache
import types
from collections.abc import Iterable, Iterator

from unfool.evaluation.provenance.origin import library_of, library_of_class, library_of_function, module_of
from unfool.evaluation.provenance.python_code import names_of
from unfool.evaluation.provenance.reads import names_read
from unfool.evaluation.provenance.write_reader import WriteReader
from unfool.evaluation.provenance.written_names import Writes

_CONSTRUCTION = frozenset({"__init__", "__new__", "__post_init__", "__setstate__", "__init_subclass__"})
_ENTRIES = ("forward", "__call__", "__getattr__", "__getattribute__", "__torch_function__")
"""Where a pass enters a class; from there the names that code mentions are followed."""


def written_by_passes(classes: Iterable[type], functions: Iterable[types.FunctionType]) -> Writes:
    """What passes write, given the user's classes in a system and the functions it holds (hooks, black boxes)."""
    writes = Writes()
    methods = {kind: dict(_methods(kind)) for kind in classes}
    mentioned: set[str] = set(_ENTRIES)
    waiting: list[tuple[type | None, types.FunctionType]] = [(None, function) for function in functions]
    seen = writes.run
    while True:
        while waiting:
            owner, function = waiting.pop()
            if function.__code__ in seen:
                continue
            seen.add(function.__code__)
            if library_of(module_of(function)) is not None:
                # A library's function around one of the user's.
                inner = (cell.cell_contents for cell in function.__closure__ or () if cell != types.CellType())
                waiting.extend((owner, item) for item in inner if isinstance(item, types.FunctionType))
                continue
            _read(owner, function, writes)
            names = set(names_of(function.__code__))
            mentioned |= names
            for name in names:
                value = function.__globals__.get(name)
                if isinstance(value, types.FunctionType) and library_of_function(value) is None:
                    waiting.append((None, value))
                elif isinstance(value, types.ModuleType) and library_of(value.__name__) is None:
                    inner = (vars(value).get(other) for other in names)
                    waiting.extend((None, item) for item in inner if isinstance(item, types.FunctionType))
        waiting = [
            (kind, function)
            for kind, own in methods.items()
            for name, function in own.items()
            if name in mentioned and name not in _CONSTRUCTION and function.__code__ not in seen
        ]
        if not waiting:
            for owner, names in writes.read_by.items():
                writes.read |= names - writes.set_first.get(owner, set())
            return writes


def _methods(kind: type) -> Iterator[tuple[str, types.FunctionType]]:
    """The functions of a class, those inside properties and static methods included."""
    for name, value in vars(kind).items():
        parts = (value, getattr(value, "__func__", None), getattr(value, "fget", None), getattr(value, "func", None))
        for part in parts:
            inner = getattr(part, "__wrapped__", None)
            for function in (part, inner):
                if isinstance(function, types.FunctionType):
                    yield (name if function is part else f"{name} inside"), function
                    if function is inner:
                        # What a decorator wraps runs under the same name.
                        yield name, function


def _read(owner: type | None, function: types.FunctionType, writes: Writes) -> None:
    """Add what a function writes and reads, from its source or else its bytecode."""
    nodes = _nodes(function.__code__)
    if not nodes:
        _read_bytecode(owner, function.__code__, writes)
    for node in nodes:
        WriteReader(owner, node, function, writes).read()
        own = (base for base in owner.__mro__ if library_of_class(base) is None) if owner is not None else ()
        read, set_first = names_read(node, frozenset(name for base in own for name in vars(base)))
        writes.read_by.setdefault(owner, set()).update(read)
        if function.__name__ == "forward":
            writes.set_first.setdefault(owner, set()).update(set_first)


def _read_bytecode(owner: type | None, code: types.CodeType, writes: Writes) -> None:
    """Without source: every attribute that is assigned or read, of whichever object."""
    import dis

    for step in dis.get_instructions(code):
        if step.opname in ("STORE_ATTR", "DELETE_ATTR"):
            (writes.own.setdefault(owner, set()) if owner is not None else writes.anywhere).add(str(step.argval))
        elif step.opname in ("STORE_GLOBAL", "STORE_DEREF"):
            writes.variables.add(str(step.argval))
        elif step.opname.startswith("LOAD_") and isinstance(step.argval, str):
            writes.read_by.setdefault(owner, set()).add(step.argval)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            _read_bytecode(owner, constant, writes)


@functools.lru_cache(maxsize=256)
def _functions_of(source: str) -> dict[tuple[int, str], list[ast.AST]]:
    """The functions and lambdas of a source text by first line and name."""
    table: dict[tuple[int, str], list[ast.AST]] = {}
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return table
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            line = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            table.setdefault((line, node.name), []).append(node)
        elif isinstance(node, ast.Lambda):
            table.setdefault((node.lineno, "<lambda>"), []).append(node)
    return table


def _nodes(code: types.CodeType) -> list[ast.AST]:
    """The functions of the source at the place where this code is from; none without source."""
    source = "".join(linecache.getlines(code.co_filename))
    return _functions_of(source).get((code.co_firstlineno, code.co_name), []) if source else []
