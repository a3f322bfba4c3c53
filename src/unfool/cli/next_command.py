"""The one ``next:`` line after a command: what to run now, with the options that were given, ready to be copied."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unfool.cli.options.from_settings import explicit
from unfool.core.plugins import plugin_files

if TYPE_CHECKING:
    from unfool.evaluation.next_step import NextStep

_HARDENED = "hardened"


def next_line(
    step: NextStep | None, model: Any, data: Any, *, device: str = "auto", defense: str | None = None
) -> list[str]:
    """The line of what an evaluation suggests, with its own options of ``model`` and ``data``; none for None."""
    if step is None:
        return []
    system = [*_positional(model), *options(model, without=("system",))]
    machine = ["--device", device] if device != "auto" else []
    if step.action == "harden":
        words = ["harden", *system, *options(data, without=("images",)), "--threat", step.threat, *machine]
        return [command([*words, "--out", free_folder(_HARDENED)])]
    words = ["evaluate", *system, *options(data), "--threat", step.threat, *machine]
    if step.action == "ladder":
        return [command([*words, *(["--defense", defense] if defense is not None else []), "--adaptive"])]
    tested = ["--binarization-test"] if step.action == "binarization-test" else []
    return [command([*words, *_attack_options(step.attacks), *tested])]


def attack_options(threat: str) -> list[str]:
    """The options of the strongest attacks in a threat model."""
    from unfool.evaluation.next_step import strongest_attacks

    return _attack_options(strongest_attacks(threat))


def _attack_options(names: Iterable[str]) -> list[str]:
    return [word for name in names for word in ("--attack", name)]


def command(words: list[str]) -> str:
    """A ``next:`` line of one command, quoted for a shell, with the plugin files that this one was given."""
    plugins = [word for file in plugin_files() for word in ("--plugin", str(file))]
    return f"next: {shlex.join(['unfool', *words, *plugins])}"


def options(group: Any, *, without: tuple[str, ...] = ()) -> list[str]:
    """The options of a group that the user gave, as words of a command line, without some."""
    words: list[str] = []
    for name, value in explicit(group, without=without).items():
        words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return words


def free_folder(name: str) -> str:
    """The name of a folder that is not there yet: the name itself, or with a number behind it."""
    number = 1
    while Path(chosen := name if number == 1 else f"{name}-{number}").exists():
        number += 1
    return chosen


def _positional(model: Any) -> list[str]:
    system = getattr(model, "system", None)
    return [] if system is None else [str(system)]
