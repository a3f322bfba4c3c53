"""What is wrong with the arguments of a command, as one line that names what was meant."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any, get_args, get_type_hints

import tyro

from unfool.core.errors import SpecError
from unfool.core.spec import nearest

_OPTION = re.compile(r"-[^\d.]")
"""What an option begins with; a negative number is a value."""
_CHOICE = re.compile(
    r"invalid choice '(?P<value>.*)' for argument '(?P<option>.*)'\. Expected one of \((?P<allowed>.*)\)"
)
_NO_NUMBER = re.compile(
    r"Error parsing (?P<option>-[^/:]*)\S*: "
    r"(?:no type matching (?P<kind>.*) could be instantiated from \[(?P<values>.*?)\]"
    r"|invalid literal for int\(\) with base 10: (?P<whole>.*)|could not convert string to float: (?P<number>.*))"
)
_NO_VALUE = re.compile(r"Missing value for argument '(?P<option>[^']*)'")
_MISSING = re.compile(r"Missing from (?P<command>unfool \w+): (?P<options>.*)")
_MEANT = {"model": "--trunk", "arch": "--trunk", "dataset": "--data", "bs": "--batch-size", "output": "--out"}
"""What options of other programs are called here."""

(_APPENDS,) = get_args(tyro.conf.UseAppendAction[int])[1:]
"""What marks an option that may stand several times."""


def check_options(arguments: Sequence[str], name: str, known: Sequence[str]) -> None:
    """Raise SpecError for the first argument that looks like an option and is none of the ``known`` ones."""
    for argument in takewhile(lambda word: word != "--", arguments):
        option = argument.partition("=")[0]
        if not _OPTION.match(option) or option.replace("_", "-") in known:
            continue
        near = _MEANT.get(option.lstrip("-")) or nearest(option, known)
        hint = f"did you mean {near!r}? see" if near in known else "its options are listed by"
        raise SpecError(f"unknown option {option!r} of unfool {name}; {hint} unfool {name} --help")


def remedy(arguments: Sequence[str], strange: str, name: str, repeatable: Sequence[str]) -> str:
    """What to do about an argument that nothing takes: a second value of a ``repeatable`` option needs it once more."""
    before = arguments[: arguments.index(strange)] if strange in arguments else []
    if len(before) > 1 and before[-2] in repeatable:
        option, first = before[-2:]
        return f"for several values write {option} {first} {option} {strange}"
    return f"see unfool {name} --help"


def repeatable_options(cls: Any) -> list[str]:
    """The options of a command that may stand several times, with their other names."""
    return [name for names, notes in _options(cls) if _APPENDS in notes for name in names]


def options_of(cls: Any) -> list[str]:
    """The options of a command, with their other names."""
    return [name for names, notes in _options(cls) if tyro.conf.Positional not in notes for name in names]


def _options(cls: Any) -> Iterator[tuple[list[str], Sequence[Any]]]:
    """The fields of a command and of its groups: names, and what their annotations note for tyro."""
    hints = get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        notes = get_args(hints[field.name])[1:]
        if dataclasses.is_dataclass(hints[field.name]):
            yield from _options(hints[field.name])
        else:
            # What is on by default can only be turned off.
            own = ("--no-" if field.default is True else "--") + field.name.replace("_", "-")
            yield [own, *(alias for note in notes for alias in getattr(note, "aliases", None) or ())], notes


def in_own_words(complaint: str) -> str:
    """A complaint of tyro's in this program's words: about a choice, a number, or what is missing."""
    if wrong := _CHOICE.search(complaint):
        return _no_choice(wrong)
    if wrong := _NO_NUMBER.search(complaint):
        whole = wrong["whole"] is not None or "INT" in (wrong["kind"] or "")
        value = wrong["whole"] or wrong["number"] or wrong["values"]
        return f"{wrong['option']} {value} is not allowed; give {'a whole number' if whole else 'a number'}"
    if wrong := _NO_VALUE.search(complaint):
        return f"{wrong['option']} needs a value"
    if wrong := _MISSING.search(complaint):
        parts = [part.split() for part in wrong["options"].split("(required)") if part.strip()]
        needed = [" ".join(words[: 1 + words[0].startswith("-")]) for words in parts]
        return f"{wrong['command']} needs {' and '.join(needed)}"
    return complaint


def _no_choice(wrong: re.Match[str]) -> str:
    allowed = sorted(set(re.findall(r"'([^']*)'", wrong["allowed"])) - {"None"})
    near = nearest(wrong["value"], allowed)
    hint = f"did you mean {near!r}? " if near else ""
    return f"{wrong['option']} {wrong['value']!r} is not allowed; {hint}allowed: {', '.join(allowed)}"


def first_paragraph(box: str) -> str:
    """What tyro says inside its box, from below the title down to the first rule, as one line."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [line.strip(" │") for line in text.strip("\n").splitlines()]
    # Where stdout takes no box-drawing characters, the title stands above a rule instead of in the frame.
    below = lines[1:] if lines and lines[0].startswith("╭") else lines[2:]
    rules = (
        number for number, line in enumerate(below) if line.startswith(("╰", "──", "--")) and not line.strip("╰─╯-")
    )
    said = " ".join(" ".join(below[: next(rules, len(below))]).split())
    return said.rstrip(".") or "the arguments are not understood"
