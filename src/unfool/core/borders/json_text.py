"""JSON from files: bounded in length, nesting and numbers before anything is made of it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NoReturn, cast

from unfool.core.borders.reading import read_text
from unfool.core.errors import DataError, UnfoolError

MOST_BYTES = 1 << 25
"""The longest JSON that is read: 32 MiB."""
MOST_OBJECTS = 500_000
"""Lists and objects in one JSON text."""
MOST_DIGITS = 40


def parse_json(text: str) -> Any:
    """The value of a JSON text; ValueError, which names the bound, for what is malformed, not finite or too much."""
    objects = text.count("{") + text.count("[")
    if objects > MOST_OBJECTS:
        raise ValueError(f"{objects:,} lists and objects, more than the {MOST_OBJECTS:,} allowed")
    try:
        return json.loads(text, parse_int=_whole, parse_float=_decimal, parse_constant=_refused)
    except RecursionError:
        raise ValueError("lists and objects are nested too deeply") from None


def read_json(path: str | Path, advice: str, *, most: int = MOST_BYTES, error: type[UnfoolError] = DataError) -> Any:
    """The value of a JSON file (``-``: the standard input); raises ``error`` for whatever is wrong with it."""
    text = read_text(path, advice, most=most, error=error)
    try:
        return parse_json(text)
    except ValueError as fault:
        raise error(f"{path} is not JSON ({fault}); {advice}") from fault


def read_object(path: str | Path, advice: str, *, error: type[UnfoolError] = DataError) -> dict[str, Any]:
    """As `read_json`, for a file that must hold an object."""
    value: object = read_json(path, advice, error=error)
    if not isinstance(value, dict):
        raise error(f"{path} holds a JSON {type(value).__name__}, not an object; {advice}")
    return cast("dict[str, Any]", value)


def _whole(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits, more than the {MOST_DIGITS} allowed")
    return int(digits)


def _decimal(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:MOST_DIGITS]} is beyond all numbers")
    return value


def _refused(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")
