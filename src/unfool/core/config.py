"""Configuration: frozen, keyword-only dataclasses that refuse what they do not know.

``configured`` makes one (pydantic underneath, so text from YAML or the command line is converted and checked);
``build`` fills one from a mapping and turns every complaint into a single line.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import reprlib
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic.fields import FieldInfo
from typing_extensions import dataclass_transform

from unfool.core.docstrings import document
from unfool.core.errors import SpecError, UnfoolError
from unfool.core.spec import nearest, unknown

MOST_COUNT = 1_000_000_000
"""The largest whole number in a configuration, such as a number of steps."""
MOST_SEED = 2**63 - 1

Config = TypeVar("Config")
Filled = TypeVar("Filled")


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(Field,))
def configured(cls: type[Config]) -> type[Config]:
    """Make a class a frozen, keyword-only, validated dataclass; what it refuses is a SpecError of one line.

    Descriptions of fields and of inherited arguments become part of the Args section of its docstring, so that each is
    written once. Printed, it shows what is not the default. Fields that it inherits from a plain dataclass may stay
    positional.
    """
    text = cls.__doc__ or ""
    own_repr = "__repr__" in vars(cls)
    config: Any = pydantic_dataclass(frozen=True, kw_only=True, repr=False, config=ConfigDict(extra="forbid"))(cls)
    validated = config.__init__
    first = [field.name for field in dataclasses.fields(config) if field.init and not field.kw_only]

    @functools.wraps(validated)
    def init(self: Any, *positional: Any, **values: Any) -> None:
        if len(positional) > len(first):
            allowed = f"{', '.join(first)} may be given without a name" if first else "give every value by its name"
            raise TypeError(f"{config.__name__} was given {len(positional)} values without a name; {allowed}")
        named = dict(zip(first, positional, strict=False))
        twice = [name for name in named if name in values]
        if twice:
            raise TypeError(f"{config.__name__} was given {twice[0]} twice; give it once")
        values = {**named, **values}
        _filled(config, values, config.__name__, lambda: validated(self, **values))
        _check_whole(self, config.__name__)

    config.__init__ = init
    if not own_repr:
        config.__repr__ = _short
    document(config, text, config.__pydantic_fields__)
    return config


def _short(config: Any) -> str:
    """The class and the values that are not the default."""
    fields: Mapping[str, FieldInfo] = config.__pydantic_fields__
    values = {name: getattr(config, name) for name in fields}
    defaults = {name: field.get_default(call_default_factory=True) for name, field in fields.items()}
    changed = [f"{name}={value!r}" for name, value in values.items() if value != defaults[name]]
    return f"{type(config).__name__}({', '.join(changed)})"


@configured
class NoSettings:
    """Settings of something that has none."""


def build(cls: type[Config], values: Mapping[str, Any], what: str) -> Config:
    """Make ``cls`` from a mapping; SpecError names ``what``, the bad key (nearest known name offered) or bad value."""
    config = _filled(cls, values, what, lambda: TypeAdapter(cls).validate_python(dict(values)))
    _check_whole(config, what)
    return config


def _check_whole(config: Any, what: str) -> None:
    """Refuse numbers that no run could reach, and seeds that 64 bits cannot hold."""
    for field in dataclasses.fields(config):
        value: Any = getattr(config, field.name, None)
        most = MOST_SEED if field.name.startswith("seed") else MOST_COUNT
        numbers = cast("tuple[Any, ...]", value) if isinstance(value, tuple) else (value,)
        for number in numbers:
            if type(number) is int and abs(number) > most:
                shown = reprlib.repr(number)
                raise SpecError(f"{what}: {field.name}={shown} is not allowed: at most {most:,} are")


def _filled(cls: Any, values: Mapping[str, Any], what: str, fill: Callable[[], Filled]) -> Filled:
    known = [field.name for field in dataclasses.fields(cls) if field.init]
    for key in values:
        if key not in known:
            raise unknown(f"key of {what}", str(key), known)
    try:
        return fill()
    except ValidationError as error:
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error")
        if not first["loc"] and isinstance(cause, UnfoolError):
            # Raised by the class itself about several values together: it says all there is to say.
            raise cause from None
        where = ".".join(str(part) for part in first["loc"]) or what
        if first["type"] == "missing":
            raise SpecError(f"{what} needs {where}; give a value for it") from None
        reason = first["msg"].removeprefix("Value error, ")
        reason = reason[:1].lower() + reason[1:]
        if first["type"] == "literal_error":
            names = re.findall(r"'([^']*)'", str(first.get("ctx", {}).get("expected")))
            near = nearest(str(first.get("input")), names)
            reason = (f"did you mean {near!r}? " if near else "") + f"allowed: {', '.join(names)}"
        raise SpecError(f"{what}: {where}={reprlib.repr(first.get('input'))} is not allowed: {reason}") from None


def to_plain(config: Any) -> Any:
    """A configuration as JSON-able values, tuples as lists."""
    return TypeAdapter[Any](config.__class__).dump_python(config, mode="json")


def parse_settings(text: str) -> tuple[str, dict[str, str]]:
    """Split ``name:key=value,key=value`` into the name and a mapping; SpecError on anything else."""
    name, _, rest = text.partition(":")
    values: dict[str, str] = {}
    for part in filter(None, rest.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not key.strip() or key.strip() in values:
            raise SpecError(
                f"{text!r} is not understood at {part!r}; write name:key=value,key=value with each key once"
            )
        values[key.strip()] = value.strip()
    return name.strip(), values
