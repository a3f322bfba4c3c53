"""The fields of the library's settings classes, read from their source: help needs their words, but not torch."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union

_PACKAGE = Path(__file__).parents[2]
_PLAIN = {"int": int, "float": float, "str": str, "bool": bool}
REQUIRED = object()
"""Default of a field that has none."""


@dataclass(frozen=True, kw_only=True)
class SettingField:
    """One field of a settings class: its type (``str`` for one that text describes), default and description."""

    name: str
    type: Any
    default: object
    description: str


def read_fields(settings: str) -> dict[str, SettingField]:
    """The fields of a settings class named ``unfool.room.module:Class``, in order, without importing the module."""
    module, _, name = settings.partition(":")
    path = _PACKAGE.joinpath(*module.split(".")[1:]).with_suffix(".py")
    tree = ast.parse(path.read_text(encoding="utf-8"))
    constants = dict(_constants(tree))
    (body,) = (node.body for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    fields = [
        _field(node.target.id, node, constants)
        for node in body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    ]
    return {field.name: field for field in fields}


def _constants(tree: ast.Module) -> Iterator[tuple[str, object]]:
    """The names that a module gives to literal values."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = _value(node.value, {})
            if value is not REQUIRED:
                yield node.targets[0].id, value


def _field(name: str, node: ast.AnnAssign, constants: Mapping[str, object]) -> SettingField:
    value, description = node.value, ""
    default: object = REQUIRED if value is None else _value(value, constants)
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "Field":
        keywords = {word.arg: _value(word.value, constants) for word in value.keywords}
        default, description = keywords.get("default", REQUIRED), str(keywords.get("description", ""))
    return SettingField(name=name, type=_type(node.annotation), default=default, description=description)


def _value(node: ast.expr, constants: Mapping[str, object]) -> object:
    """A literal or a constant of the module; REQUIRED for anything else."""
    if isinstance(node, ast.Name) and node.id in constants:
        return constants[node.id]
    try:
        return ast.literal_eval(node)
    except ValueError:
        return REQUIRED


def _type(node: ast.expr) -> Any:
    """An annotation as the type that an option is parsed to, ``None`` left out."""
    match node:
        case ast.Name(id=name):
            return _PLAIN.get(name, str)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            sides = [_type(side) for side in (left, right) if not (isinstance(side, ast.Constant))]
            return Union[tuple(sides)]  # noqa: UP007 - made from a tuple
        case ast.Subscript(value=ast.Name(id="Literal"), slice=choices):
            chosen = ast.literal_eval(choices)
            return Literal[chosen]  # type: ignore[valid-type]
        case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[first, *_])):
            return _type(first)
        case ast.Subscript(value=ast.Name(id="tuple"), slice=ast.Tuple(elts=[first, ast.Constant()])):
            return tuple[_type(first), ...]
        case _:
            return str
