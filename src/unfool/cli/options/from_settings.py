"""Command-line options made from settings classes, so that a new field of one is an option without another line."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Optional, get_origin

import tyro

from unfool.cli.options.settings_fields import REQUIRED, SettingField, read_fields

_METAVARS = {int: "N", float: "NUMBER", str: "TEXT"}


@dataclass(frozen=True, kw_only=True)
class Look:
    """How an option is shown beyond what its settings class says of it."""

    metavar: str | None = None
    aliases: tuple[str, ...] = ()
    default: str | None = None
    """The default in words."""
    form: str = ""
    """How the value is written, where the field holds more than text or a number."""
    off: str = ""
    """What the option does that turns off a field which is on by default."""


LOOKS = {
    "adversarial": Look(metavar="METHOD"),
    "alpha": Look(metavar="RATE"),
    "at": Look(metavar="NORM:EPS"),
    "attack": Look(metavar="ATTACK"),
    "augmentation": Look(metavar="NAME"),
    "awp": Look(metavar="GAMMA"),
    "batch_size": Look(aliases=("--batch",)),
    "binarization_test": Look(aliases=("--strength",)),
    "claim": Look(metavar="'>=SHARE'"),
    "classifier": Look(metavar="HEAD", default="the first labels task's"),
    "crop": Look(metavar="SHARE"),
    "union": Look(metavar="NORM:EPS,..", form="Written linf:8/255,l2:0.5,l1:12."),
    "curve": Look(metavar="eps=..|steps=..", form="Written eps=2/255,4/255,8/255 or steps=1,10,100."),
    "data": Look(
        metavar="NAME",
        default="none; required without --config",
        form="Also folder:PATH, FILE.csv or hub:OWNER/NAME; `unfool list data` names those of the catalog.",
    ),
    "drop_every": Look(metavar="EPOCHS"),
    "ema": Look(metavar="DECAY"),
    "fraction": Look(metavar="SHARE"),
    "image": Look(metavar="COLUMN"),
    "learning_rate": Look(aliases=("--lr",), metavar="RATE"),
    "memory": Look(metavar="GIB"),
    "nesterov": Look(off="Plain momentum of sgd, in place of Nesterov's form."),
    "normalisation": Look(metavar="NAME", default="cifar10"),
    "perturb": Look(metavar="ATTACK"),
    "size": Look(metavar="PIXELS"),
    "start": Look(metavar="FILE", default="random weights"),
    "stop_attack": Look(metavar="ATTACK"),
    "threat": Look(metavar="NORM:EPS", default="linf:8/255"),
    "trainable": Look(metavar="PART"),
    "weight_decay": Look(aliases=("--wd",)),
}
"""By field; a field without a row is shown by its type."""


def options_from(
    settings: str, *, only: Iterable[str] = (), without: Iterable[str] = (), own_first: bool = False
) -> Callable[[type[Any]], type[Any]]:
    """Decorator that makes a class a frozen group of options, its own and the fields of a settings class.

    ``settings`` names the settings class as `read_fields` takes it; ``only`` keeps these fields, ``without`` leaves
    some out. Help shows the class's own options after those, or before them with ``own_first``. Each option is None,
    or a flag off, unless the user gives it; `explicit` collects those that are given.
    """
    fields = read_fields(settings)
    names = tuple(only) or tuple(name for name in fields if name not in set(without))
    options = [_option(fields[name], _in_words(fields[name], fields)) for name in names]

    def add(cls: type[Any]) -> type[Any]:
        if own_first:
            return _dataclass(cls.__name__, options, dataclass(frozen=True, kw_only=True)(cls), cls)
        own = {key: value for key, value in vars(cls).items() if key not in ("__dict__", "__weakref__")}
        base = _dataclass(f"{cls.__name__}Settings", options, object, cls)
        return dataclass(frozen=True, kw_only=True)(type(cls.__name__, (base,), own))

    return add


def _dataclass(name: str, options: list[tuple[str, Any, Any]], base: type[Any], described: type[Any]) -> type[Any]:
    group = dataclasses.make_dataclass(name, options, bases=(base,), frozen=True, kw_only=True)
    group.__doc__, group.__module__ = described.__doc__, described.__module__
    return group


def _in_words(field: SettingField, fields: Iterable[str]) -> str:
    """The description of a field, which may name others, with their options instead."""
    words = field.description.replace("``", "")
    for name in fields:
        if "_" in name:
            words = re.sub(rf"\b{name}\b", _flag(name), words)
    return " ".join(filter(None, (words, LOOKS.get(field.name, Look()).form)))


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _option(field: SettingField, words: str) -> tuple[str, Any, Any]:
    """Name, annotation and default of a field's option, as `dataclasses.make_dataclass` takes them."""
    look = LOOKS.get(field.name, Look())
    if field.type is bool:
        note = tyro.conf.arg(
            help=look.off if field.default is True and look.off else words, aliases=look.aliases, help_behavior_hint=""
        )
        return field.name, Annotated[bool, note], field.default
    hint = "" if "default:" in words else f"(default: {look.default or _shown(field.default)})"
    metavar = look.metavar or _metavar(field.type)
    note = tyro.conf.arg(help=words, aliases=look.aliases, metavar=metavar, help_behavior_hint=hint)
    return field.name, Annotated[Optional[field.type], note], None  # noqa: UP045 - the type is a value


def _metavar(kind: Any) -> str:
    if get_origin(kind) is tuple:
        return f"{_metavar(kind.__args__[0])} .."
    choices = getattr(kind, "__args__", ())
    return "{" + ",".join(map(str, choices)) + "}" if choices else _METAVARS[kind]


def _shown(default: object) -> str:
    if default is None:
        return "none"
    if default is REQUIRED:
        return "the library's own"
    return " ".join(map(str, default)) if isinstance(default, tuple) else str(default)


def explicit(group: Any, *, without: Iterable[str] = ()) -> dict[str, object]:
    """The options of a group that the user gave, by name, as `core.config.build` takes them."""
    left_out = set(without)
    return {
        field.name: getattr(group, field.name)
        for field in dataclasses.fields(group)
        if field.name not in left_out and getattr(group, field.name) != field.default
    }
