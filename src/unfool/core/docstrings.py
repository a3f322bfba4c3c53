"""Docstrings and signatures of configured classes: what a base class or a field describes is not written again."""

from __future__ import annotations

import dataclasses
import inspect
import re
import textwrap
import types
from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

_SECTIONS = ("Args", "Returns", "Raises", "Example")
_HEADING = re.compile(rf"^({'|'.join(_SECTIONS)}):$", flags=re.MULTILINE)
_ARGUMENT = re.compile(r"^ {4}(\w+): ", flags=re.MULTILINE)


def document(cls: Any, text: str, fields: Mapping[str, FieldInfo]) -> None:
    """Give a dataclass the signature that one would type, and its docstring ``text``, completed."""
    signature = inspect.signature(cls)
    bases: tuple[type, ...] = cls.__mro__
    own_first = [name for base in bases for name in inspect.get_annotations(base)]
    parameters = [
        parameter.replace(annotation=_Written(_written(fields[name].annotation)))
        for name, parameter in signature.parameters.items()
    ]
    parameters.sort(key=lambda p: (p.kind, own_first.index(p.name) if p.kind is p.KEYWORD_ONLY else 0))
    cls.__signature__ = inspect.Signature(parameters)
    bound = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    cls.__init__.__signature__ = inspect.Signature([bound, *parameters])
    cls.__doc__ = _completed(text, cls, {name: field.description or "" for name, field in fields.items()})


def _completed(text: str, cls: type, descriptions: Mapping[str, str]) -> str:
    """A docstring, completed by descriptions of fields and by the docstrings of base classes.

    Its Args section then names, in the signature's order, every argument that any of them describes. Where it has no
    Returns or Raises section it takes the nearest base class's.
    """
    intro, sections = _split(text)
    arguments = {
        name: textwrap.fill(f"{name}: {line}", 110, initial_indent=" " * 4, subsequent_indent=" " * 8)
        for name, line in descriptions.items()
        if line
    }
    above = [_split(base.__doc__)[1] for base in cls.__mro__[1:] if dataclasses.is_dataclass(base)]
    for described in [*reversed(above), sections]:
        arguments |= _arguments(described.get("Args", ""))
    for name in ("Returns", "Raises"):
        sections.setdefault(name, next((described[name] for described in above if name in described), ""))
    order = dict.fromkeys([*inspect.signature(cls).parameters, *arguments])
    sections["Args"] = "\n".join(arguments[name] for name in order if name in arguments)
    return "\n\n".join([intro, *(f"{name}:\n{sections[name]}" for name in _SECTIONS if sections.get(name))])


def _split(text: str | None) -> tuple[str, dict[str, str]]:
    """The text above the sections of a docstring, and the sections by name."""
    intro, *parts = _HEADING.split(inspect.cleandoc(text or ""))
    return intro.rstrip(), {name: body.strip("\n") for name, body in zip(parts[::2], parts[1::2], strict=True)}


def _arguments(section: str) -> dict[str, str]:
    """The lines of an Args section by argument."""
    starts = [match.start() for match in _ARGUMENT.finditer(section)]
    blocks = [section[start:end].rstrip() for start, end in pairwise([*starts, len(section)])]
    return {block.split(":")[0].strip(): block for block in blocks}


class _Written(str):
    """An annotation that is shown without quotes."""

    __repr__ = str.__str__


def _written(kind: Any) -> str:
    """A type as one writes it: without module names, and without the checks of its values."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _written(inner[0])
    if origin is Literal:
        return f"Literal[{', '.join(map(repr, inner))}]"
    if origin in (Union, types.UnionType):
        return " | ".join(map(_written, inner))
    if origin is not None:
        return f"{origin.__name__}[{', '.join(map(_written, inner))}]"
    names = {type(None): "None", Ellipsis: "..."}
    return names.get(kind) or getattr(kind, "__name__", str(kind))
