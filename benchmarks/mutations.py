"""Small bugs that can be planted in a Python file: each is one place in its text and what stands there instead."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

_COMPARED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
_COMPUTED = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Div, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitAnd,
}  # fmt: skip
_SWAPPED = {"min": "max", "any": "all", "amin": "amax", "argmin": "argmax", "floor": "ceil", "sum": "mean"}
_NAMES = {**_SWAPPED, **{after: before for before, after in _SWAPPED.items()}}
_UNSEEN = frozenset({"device", "strict", "encoding"})
"""Arguments that change nothing on a machine without an accelerator, or where nothing else is wrong."""
_WORDS = frozenset({"warn", "debug", "info", "print", "update_display"})
"""Calls that only say something."""


@dataclass(frozen=True)
class Mutation:
    """One bug: ``before`` stands at these bytes of the file, in the function ``name``; ``after`` replaces it."""

    file: str
    name: str
    line: int
    start: int
    end: int
    before: str
    after: str
    occurrence: int

    @property
    def key(self) -> str:
        """What it is called in results and explanations: it stays when lines above it come or go."""
        again = f" (number {self.occurrence + 1})" if self.occurrence else ""
        return f"{self.file} {self.name}: {self.before} -> {self.after}{again}"

    def planted(self, source: bytes) -> bytes:
        """The file's text with the bug in it."""
        return source[: self.start] + self.after.encode() + source[self.end :]


def mutations(file: str, source: bytes) -> list[Mutation]:
    """Every bug that can be planted inside the functions of a file; texts, annotations, defaults and errors stay."""
    starts = [0]
    for text in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(text))
    collected: list[Mutation] = []
    counts: dict[tuple[str, str, str], int] = {}
    for name, node, after in _places(ast.parse(source), None):
        start = starts[node.lineno - 1] + node.col_offset
        end = starts[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
        before = " ".join(source[start:end].decode().split())
        key = (name, before, after)
        occurrence = counts.get(key, 0)
        counts[key] = occurrence + 1
        collected.append(Mutation(file, name, node.lineno, start, end, before, after, occurrence))
    return collected


def _places(node: ast.AST, name: str | None) -> Iterator[tuple[str, ast.expr | ast.stmt, str]]:
    """Function, node and replacement text of each bug below a node; ``name`` is the innermost function's."""
    if isinstance(node, (ast.Raise, ast.JoinedStr, ast.Import, ast.ImportFrom, ast.Assert)):
        return
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        if node.name in ("__repr__", "_repr_html_", "__str__"):
            return
        children: list[ast.AST] = list(node.body)
        name = node.name
    elif isinstance(node, ast.AnnAssign):
        children = [node.value] if node.value is not None else []
    elif isinstance(node, ast.Expr) and _says_only(node.value):
        return
    else:
        children = list(ast.iter_child_nodes(node))
    if name is not None and isinstance(node, (ast.expr, ast.stmt)):
        for after in _replacements(node):
            yield name, node, after
    for child in children:
        yield from _places(child, name)


def _says_only(value: ast.expr) -> bool:
    if not isinstance(value, ast.Call):
        return isinstance(value, ast.Constant)
    called = value.func
    return getattr(called, "attr", getattr(called, "id", "")) in _WORDS


def _replacements(node: ast.expr | ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        yield _text(ast.Compare(node.left, [_COMPARED[type(node.ops[0])]()], node.comparators))
    elif isinstance(node, ast.BinOp) and type(node.op) in _COMPUTED:
        yield _text(ast.BinOp(node.left, _COMPUTED[type(node.op)](), node.right))
    elif isinstance(node, ast.AugAssign) and type(node.op) in _COMPUTED:
        yield ast.unparse(ast.AugAssign(node.target, _COMPUTED[type(node.op)](), node.value))
    elif isinstance(node, ast.BoolOp):
        yield _text(ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.USub)):
        yield _text(node.operand)
    elif isinstance(node, ast.IfExp):
        yield _text(ast.IfExp(node.test, node.orelse, node.body))
    elif isinstance(node, ast.Constant):
        yield from _other_constant(node.value)
    elif isinstance(node, ast.Call):
        yield from _other_call(node)
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "pass"
    elif isinstance(node, (ast.Break, ast.Continue)):
        yield "continue" if isinstance(node, ast.Break) else "break"


def _other_constant(value: object) -> Iterator[str]:
    if isinstance(value, bool):
        yield repr(not value)
    elif isinstance(value, int):
        yield str(value + 1)
    elif isinstance(value, float):
        yield repr(value * 2 if value else 1.0)


def _other_call(node: ast.Call) -> Iterator[str]:
    if isinstance(node.func, ast.Name) and node.func.id in _NAMES:
        yield _text(ast.Call(ast.Name(_NAMES[node.func.id]), node.args, node.keywords))
    elif isinstance(node.func, ast.Attribute) and node.func.attr in _NAMES:
        yield _text(ast.Call(ast.Attribute(node.func.value, _NAMES[node.func.attr]), node.args, node.keywords))
    for index, keyword in enumerate(node.keywords):
        if keyword.arg is not None and keyword.arg not in _UNSEEN:
            yield _text(ast.Call(node.func, node.args, [*node.keywords[:index], *node.keywords[index + 1 :]]))


def _text(node: ast.expr) -> str:
    """An expression as text that holds together wherever it is put."""
    text = ast.unparse(node)
    return text if isinstance(node, (ast.Call, ast.Name, ast.Constant)) else f"({text})"
