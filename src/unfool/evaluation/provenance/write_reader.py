"""What one function writes, read off its syntax tree: assignments, deletions, and methods that change their object."""

from __future__ import annotations

import ast
import functools
import types

from unfool.evaluation.provenance.reads import MUTATORS
from unfool.evaluation.provenance.written_names import Writes


class WriteReader(ast.NodeVisitor):
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
        """Go through the function: first the names that stand for attributes, then what is written."""
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
