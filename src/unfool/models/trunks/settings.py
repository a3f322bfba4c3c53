# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Types that trunks' settings share: widths and depths with their limits, and settings read from text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import BeforeValidator

MAX_WIDTH = 1 << 14

SettingValue = str | int | float | bool | tuple[int, ...] | list[int]
"""What a setting of a trunk may be given as."""

_WIDTHS = re.compile(r"\d{1,18}(-\d{1,18})+", re.ASCII)


def _width(value: object) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 1 / 64 <= value <= 32:  # type: ignore[operator]
        raise ValueError("give a multiplier from 1/64 to 32")
    return float(value)  # type: ignore[arg-type]


def _three_widths(value: object) -> tuple[int, ...]:
    widths = tuple(value) if isinstance(value, (tuple, list)) else ()
    whole = all(isinstance(w, int) and not isinstance(w, bool) and 1 <= w <= MAX_WIDTH for w in widths)
    if len(widths) != 3 or not whole:
        raise ValueError(f"give 3 whole numbers from 1 to {MAX_WIDTH}")
    return widths


Width = Annotated[float, BeforeValidator(_width)]
"""A multiplier of all widths, from 1/64 to 32."""

ThreeWidths = Annotated[tuple[int, int, int], BeforeValidator(_three_widths)]
"""Three numbers of channels."""


def check_depth(depth: object, allowed: range) -> int:
    """The depth, if it is one of ``allowed``; ValueError otherwise."""
    if not isinstance(depth, int) or isinstance(depth, bool) or depth not in allowed:
        first, second, third, *_, last = allowed
        raise ValueError(f"give one of {first}, {second}, {third} and so on up to {last}")
    return depth


def read_texts(settings: Mapping[str, str]) -> dict[str, SettingValue]:
    """Settings written as text as the values they stand for: ``28``, ``0.5``, ``true``, ``24-64-128`` or a word."""
    return {key: _read(text) for key, text in settings.items()}


def _read(text: str) -> SettingValue:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if _WIDTHS.fullmatch(text):
        return tuple(int(number) for number in text.split("-"))
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
