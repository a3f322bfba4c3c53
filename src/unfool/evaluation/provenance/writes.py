"""Which attributes and variables a pass through a system writes, read off the source of the code that a pass runs.

Counters, lists of feature maps and caches are written by passes: a system is the same before and after them.
"""

from __future__ import annotations

import ast
import functools
import linecache
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor, nn

from unfool.evaluation.provenance.origin import library_of, library_of_class, library_of_function, module_of
from unfool.evaluation.provenance.python_code import names_of
from unfool.evaluation.provenance.reads import MUTATORS, names_read

_CONSTRUCTION = frozenset({"__init__", "__new__", "__post_init__", "__setstate__", "__init_subclass__"})
_ENTRIES = ("forward", "__call__", "__getattr__", "__getattribute__", "__torch_function__")
"""Where a pass enters a class; from there the names that code mentions are followed."""


@dataclass
class Writes:
    """Names that passes write: of a class's own instances, of any object, and variables of modules and closures."""

    own: dict[type, set[str]] = field(default_factory=dict)
    anywhere: set[str] = field(default_factory=set)
    variables: set[str] = field(default_factory=set)
    grown_own: dict[type, set[str]] = field(default_factory=dict)
    grown_anywhere: set[str] = field(default_factory=set)
    """Attributes on which a method such as ``append`` or ``add`` is called: of a tensor, it leaves it as it is."""
    read: set[str] = field(default_factory=set)
    """Names that passes also read, so that what they hold may decide the outputs."""
    read_by: dict[type | None, set[str]] = field(default_factory=dict)
    """The same by the class whose methods read them."""
    set_first: dict[type | None, set[str]] = field(default_factory=dict)
    """Attributes that a class's ``forward`` sets for certain before anything reads them."""
    run: set[types.CodeType] = field(default_factory=set)
    """The code that a pass may run."""

    def covers(self, holder: object, name: str, value: object) -> bool:
        """Whether a pass writes the attribute ``name`` of this object, which is now ``value``."""
        grows = not isinstance(value, (Tensor, np.ndarray, int, float, str, bytes, tuple, frozenset, type(None)))
        if name in self.anywhere or (grows and name in self.grown_anywhere):
            return True
        for kind in type(holder).__mro__:
            if name in self.own.get(kind, ()) or (grows and name in self.grown_own.get(kind, ())):
                return True
            if isinstance(vars(kind).get(name), functools.cached_property):
                return True
        return False

    def reads(self, holder: object, name: str) -> bool:
        """Whether a pass reads an attribute of this object: by the user's code, or by its class's, if a library's."""
        kind = holder if isinstance(holder, type) else type(holder)
        return name in self.read or (library_of_class(kind) is not None and name in _names_in(kind))

    def covers_member(self, kind: type, name: str) -> bool:
        """Whether a pass writes the attribute ``name`` of this class, also through an instance of it."""
        tables = (*self.own.items(), *self.grown_own.items())
        related = (names for other, names in tables if issubclass(other, kind) or issubclass(kind, other))
        return name in self.anywhere or name in self.grown_anywhere or any(name in names for names in related)


@functools.lru_cache(maxsize=1024)
def _names_in(kind: type) -> frozenset[str]:
    """The names that the methods of a library's class mention."""
    methods = (item for base in kind.__mro__ if base not in (object, nn.Module) for item in vars(base).values())
    return frozenset(
        name for item in methods if isinstance(item, types.FunctionType) for name in names_of(item.__code__)
    )


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
    nodes = _nodes(function.__code__)
    if not nodes:
        _read_bytecode(owner, function.__code__, writes)
    for node in nodes:
        _Reader(owner, node, function, writes).read()
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
    source = "".join(linecache.getlines(code.co_filename))
    return _functions_of(source).get((code.co_firstlineno, code.co_name), []) if source else []


class _Reader(ast.NodeVisitor):
    """Adds what one function writes."""

    def __init__(self, owner: type | None, node: ast.AST, function: types.FunctionType, writes: Writes):
        self.owner = owner
        self.node = node
        self.writes = writes
        arguments = function.__code__.co_varnames[: function.__code__.co_argcount]
        self.itself = arguments[0] if owner is not None and arguments else None
        self.aliases: dict[str, ast.expr] = {}
        self.outer: set[str] = set(function.__code__.co_freevars)

    def read(self) -> None:
        for node in ast.walk(self.node):
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                if isinstance(node.value, (ast.Attribute, ast.Subscript)):
                    self.aliases[node.targets[0].id] = node.value
            elif isinstance(node, (ast.Global, ast.Nonlocal)):
                self.outer |= set(node.names)
        for child in ast.iter_child_nodes(self.node):
            self.visit(child)

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self.stored(target)
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.stored(node.target)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.stored(node.target)
        self.generic_visit(node)

    def visit_Delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            self.stored(target)

    def visit_If(self, node: ast.If) -> None:
        """What only training writes does not count: systems are evaluated in eval mode."""
        only_training = isinstance(node.test, ast.Attribute) and node.test.attr == "training"
        for part in node.orelse if only_training else (node.test, *node.body, *node.orelse):
            self.visit(part)

    def visit_For(self, node: ast.For) -> None:
        self.stored(node.target)
        self.generic_visit(node)

    def visit_withitem(self, node: ast.withitem) -> None:
        if node.optional_vars is not None:
            self.stored(node.optional_vars)
        self.generic_visit(node)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.stored(node.target)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        function = node.func
        if isinstance(function, ast.Attribute) and function.attr in MUTATORS:
            self.changed(function.value, by_method=True)
        elif isinstance(function, ast.Attribute) and function.attr.endswith("_") and function.attr[:1] != "_":
            self.changed(function.value)  # PyTorch's way to write in place
        elif isinstance(function, ast.Name) and function.id == "next" and node.args:
            self.changed(node.args[0])
        elif isinstance(function, ast.Name) and function.id in ("setattr", "delattr") and len(node.args) > 1:
            name = node.args[1]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                self.attribute(node.args[0], name.value)
        for keyword in node.keywords:
            if keyword.arg == "out":
                self.changed(keyword.value)
        self.generic_visit(node)

    def stored(self, target: ast.expr) -> None:
        """A target of an assignment."""
        if isinstance(target, (ast.Tuple, ast.List)):
            for part in target.elts:
                self.stored(part)
        elif isinstance(target, ast.Starred):
            self.stored(target.value)
        elif isinstance(target, ast.Attribute):
            self.attribute(target.value, target.attr)
        elif isinstance(target, ast.Subscript):
            self.changed(target.value)
        elif isinstance(target, ast.Name) and target.id in self.outer:
            self.writes.variables.add(target.id)

    def attribute(self, holder: ast.expr, name: str, by_method: bool = False) -> None:
        """An attribute of ``holder`` is assigned, or changed by one of its methods."""
        if isinstance(holder, ast.Name) and holder.id == self.itself and self.owner is not None:
            own = self.writes.grown_own if by_method else self.writes.own
            own.setdefault(self.owner, set()).add(name)
        else:
            (self.writes.grown_anywhere if by_method else self.writes.anywhere).add(name)

    def changed(self, value: ast.expr, by_method: bool = False) -> None:
        """The object that ``value`` names changes: a list grows, an entry is set."""
        for _ in range(8):
            if isinstance(value, ast.Name) and value.id in self.aliases:
                value = self.aliases[value.id]
            elif isinstance(value, ast.Subscript):
                value = value.value
            elif isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
                value = value.func.value  # self.cache.setdefault(key, []).append(...)
            else:
                break
        if isinstance(value, ast.Attribute):
            if value.attr == "__dict__":
                return
            self.attribute(value.value, value.attr, by_method)
        elif isinstance(value, ast.Name) and (value.id in self.outer or value.id not in _locals(self.node)):
            self.writes.variables.add(value.id)


@functools.lru_cache(maxsize=4096)
def _locals(node: ast.AST) -> frozenset[str]:
    """Names that a function assigns or takes as arguments."""
    names = {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}
    return frozenset(names | {part.arg for part in ast.walk(node) if isinstance(part, ast.arg)})
