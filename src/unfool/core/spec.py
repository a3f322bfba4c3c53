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


def parse_number(text: str, what: str) -> float:
    """Read a non-negative decimal or fraction such as ``0.5`` or ``8/255``; ``what`` names it in the error."""
    match = _NUMBER.fullmatch(text)
    if match is None or (match[2] is not None and float(match[2]) == 0.0):
        raise SpecError(f"{what} {text!r} is not a number; write a non-negative decimal or a fraction such as 8/255")
    value = float(match[1]) / float(match[2] or 1.0)
    if not math.isfinite(value):
        raise SpecError(f"{what} {text!r} is not finite; write a decimal or a fraction such as 8/255")
    return value


def unknown(kind: str, given: str, allowed: Iterable[str]) -> SpecError:
    """The error for a name that is not known: offers the nearest, then lists what is allowed."""
    names = sorted(allowed)
    near = difflib.get_close_matches(str(given).lower(), names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return SpecError(f"unknown {kind} {given!r}; {hint}allowed: {', '.join(names)}")
