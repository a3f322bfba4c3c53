"""An axis: where a value lies on it, in percent of its length, and which values are written beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_NEAREST, _NEAREST_NARROW = 3.5, 11.0
"""Percent of an axis between two written values, and on a telephone, where longer words need more."""
_CHARACTER, _BLANK = 2.5, 1.5
"""Percent of an axis that a character takes on a telephone, and the blank between two words."""
_LARGEST = 1e300
"""What an axis ends at, so that its length is a number."""


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A value beside an axis; ``minor`` ones give way where a page is narrow."""

    place: float
    text: str
    minor: bool = False


@dataclass(frozen=True, kw_only=True)
class Scale:
    """An axis from ``low`` to ``high``, whose values are spread by ``warp`` (equally where it is None)."""

    low: float
    high: float
    ticks: tuple[Tick, ...] = ()
    warp: Callable[[float], float] | None = None

    def place(self, value: float) -> float:
        """Where a value lies, in percent from the axis' beginning; values beyond its ends lie on them."""
        spread = self.warp or float
        low, high = spread(self.low), spread(self.high)
        share = (spread(min(max(value, self.low), self.high)) - low) / ((high - low) or 1.0)
        return round(100.0 * share, 2)


def plain(value: float) -> str:
    """A number as short as it can be: ``0.05``, ``20``, ``1.5M``."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):.3g}{unit}"
    return f"{value:.4g}"


def in_percent(value: float) -> str:
    """A share in [0,1] as a percentage."""
    return f"{100 * value:.3g} %"


def nice_scale(values: Sequence[float], words: Callable[[float], str] = plain) -> Scale:
    """An equally spread axis that holds all values, from round number to round number, written at round numbers.

    Of shares in [0,1], written ``in_percent``, it does not pass their ends.
    """
    low, high = max(min(values), -_LARGEST), min(max(values), _LARGEST)
    if high - low < 1e-12:
        half = max(abs(high) * 0.1, 0.01)
        low, high = low - half, high + half
    size = 10 ** math.floor(math.log10((high - low) / 5))
    step = next(size * each for each in _STEPS if (high - low) / (size * each) <= 6)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    start, end = first * step, last * step
    if words is in_percent and min(values) >= 0 and max(values) <= 1:
        start, end = max(start, 0.0), min(end, 1.0)
    scale = Scale(low=start, high=end)
    at = [round(number * step, 12) for number in range(first, last + 1)]
    return written(scale, [value for value in at if start - 1e-9 <= value <= end + 1e-9], words)


def data_scale(values: Sequence[float], warp: Callable[[float], float] | None = None) -> Scale:
    """An axis written at the values themselves where these are few, as far as there is room."""
    places = sorted(set(values))
    if len(places) > 12 and warp is None:
        return nice_scale(places)
    scale = Scale(low=places[0], high=places[-1], warp=warp)
    if len(places) == 1:
        return nice_scale(places)
    return written(scale, places, plain)


def written(scale: Scale, values: Sequence[float], words: Callable[[float], str]) -> Scale:
    """The axis with those of some values beside it that have room there."""
    ticks: list[Tick] = []
    shown: Tick | None = None
    for value in values:
        place, text = scale.place(value), words(value)
        if ticks and place - ticks[-1].place < _NEAREST:
            continue
        tick = Tick(place=place, text=text, minor=shown is not None and place - shown.place < _needed(shown.text, text))
        shown = shown if tick.minor else tick
        ticks.append(tick)
    return replace(scale, ticks=tuple(ticks))


def _needed(left: str, right: str) -> float:
    """Percent of an axis between the middles of two words on a telephone."""
    return max(_NEAREST_NARROW, _BLANK + _CHARACTER * (len(left) + len(right)) / 2)
