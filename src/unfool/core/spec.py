"""Names and numbers as users write them, read by closed grammars: never ``eval``."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable

from unfool.core.errors import SpecError

_NUMBER = re.compile(
    r"\s*(\d+(?:\.\d*)?(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?)\s*(?:/\s*(\d+(?:\.\d+)?)\s*)?", re.ASCII
)

LONGEST_NUMBER = 64
"""Characters of a number."""

_NEAR = 0.65
"""Share of letters in common from which two names are near: 'pdg' and 'pgd' are, 'model' and 'moves' are not."""


_ELSEWHERE = {
    "alpha": "step-size",
    "arch": "trunk",
    "epsilon": "eps",
    "eps": "threat",
    "eps-iter": "step-size",
    "iterations": "steps",
    "iters": "steps",
    "lr": "learning-rate",
    "max-iter": "steps",
    "n-iter": "steps",
    "nb-iter": "steps",
    "norm": "threat",
    "num-steps": "steps",
    "wd": "weight-decay",
}
"""What other programs call a setting, and this one's name for it."""

_LONGEST_NAME = 100
"""Of a longer name only the beginning is compared, since comparing takes time by the square of its length."""


def parse_number(text: str, what: str) -> float:
    """Read a non-negative decimal or fraction such as ``0.5`` or ``8/255``; ``what`` names it in the error."""
    match = _NUMBER.fullmatch(text) if len(text) <= LONGEST_NUMBER else None
    if match is None or (match[2] is not None and float(match[2]) == 0.0):
        raise SpecError(f"{what} {text!r} is not a number; write a non-negative decimal or a fraction such as 8/255")
    value = float(match[1]) / float(match[2] or 1.0)
    if not math.isfinite(value):
        raise SpecError(f"{what} {text!r} is not finite; write a decimal or a fraction such as 8/255")
    if value == 0.0 and re.search("[1-9]", re.split("[eE]", match[1])[0]):
        raise SpecError(f"{what} {text!r} is too small to be told from 0; write 0, or a larger number")
    return value


def parse_whole(text: str, what: str) -> int:
    """Read a whole number of at most 18 digits; ``what`` names it in the error."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise SpecError(f"{what} {text!r} is no whole number; write digits, at most 18")
    return int(text)


def write_number(value: float) -> str:
    """Text that `parse_number` reads back as the same number: ``8/255`` for pixel levels, else the shortest decimal."""
    short = f"{value:g}"
    if float(short) == value:
        return short
    level = round(value * 255)
    return f"{level}/255" if level / 255 == value else repr(float(value))


def unknown(kind: str, name: str, allowed: Iterable[str]) -> SpecError:
    """The error for a name that is not known: offers the nearest, then lists what is allowed."""
    names = sorted(set(allowed))
    near = nearest(name, names)
    hint = f"did you mean {near!r}? " if near else ""
    of_a_name = ":" if kind.endswith("'") else ""
    return SpecError(f"unknown {kind}{of_a_name} {name!r}; {hint}allowed: {', '.join(names) or 'none'}")


def nearest(name: str, allowed: Iterable[str]) -> str | None:
    """The allowed name that a mistyped or shortened one most likely means; None if none is near.

    Leading dashes and the difference between ``-`` and ``_`` do not count.
    """
    name = name[:_LONGEST_NAME]
    plain = {allowed_name: _bare(allowed_name) for allowed_name in allowed}
    elsewhere = _ELSEWHERE.get(_bare(name))
    while elsewhere is not None:
        meant = next((allowed_name for allowed_name, bare in plain.items() if bare in (elsewhere, elsewhere + "s")), "")
        if meant:
            return meant
        elsewhere = _ELSEWHERE.get(elsewhere)
    near = difflib.get_close_matches(_bare(name), plain.values(), n=1, cutoff=_NEAR)
    if near:
        return next(allowed_name for allowed_name, bare in plain.items() if bare == near[0])
    started = [n for n, bare in plain.items() if min(len(bare), len(_bare(name))) > 2 and _starts(bare, _bare(name))]
    return started[0] if len(started) == 1 else None


def _bare(name: str) -> str:
    return str(name).lower().lstrip("-").replace("_", "-")


def _starts(first: str, second: str) -> bool:
    return first.startswith(second) or second.startswith(first)
