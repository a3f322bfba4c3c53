"""What charts consist of, as the page draws them: every place in percent of the chart's width or height.

A figure has one or more panels of lines (`Panels`), rows of bars (`Bars`) or rows of intervals (`Intervals`). Colours
are numbers of the page's palette; a ``look`` is the name of a dash and of the marks that go with it.
"""

from __future__ import annotations

from dataclasses import dataclass

from unfool.report.plots.scale import Tick

COLOURS = 8
"""Colours of the palette; a chart of more series begins again."""


@dataclass(frozen=True, kw_only=True)
class Key:
    """An entry of a legend; ``colour`` is None where the entry is about the look alone."""

    name: str
    colour: int | None
    look: str = "plain"


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A point with its interval, if it has one; ``words`` are shown where it is pointed at."""

    x: float
    y: float
    low: float | None
    high: float | None
    words: str
    shape: str = "dot"


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line in one colour: ``points`` and ``band`` are corners of polygons, in thousandths; ``filled`` to the axis."""

    colour: int
    look: str
    points: str
    band: str = ""
    filled: bool = False
    marks: tuple[Mark, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Lines over one pair of axes."""

    title: str
    x: str
    y: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    alt: str = ""


@dataclass(frozen=True, kw_only=True)
class Panels:
    """Panels side by side, which share a legend."""

    panels: tuple[Panel, ...]
    keys: tuple[Key, ...]
    caption: str
    kind: str = "panels"


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A bar from zero, with its interval if it has one; ``text`` stands behind its end."""

    colour: int
    start: float
    width: float
    low: float | None
    high: float | None
    text: str
    text_place: float


@dataclass(frozen=True, kw_only=True)
class BarRow:
    """The bars of one name, one below the other."""

    name: str
    bars: tuple[Bar, ...]


@dataclass(frozen=True, kw_only=True)
class Bars:
    """Rows of bars over one axis, whose zero lies at ``zero``."""

    x: str
    y: str
    ticks: tuple[Tick, ...]
    zero: float
    rows: tuple[BarRow, ...]
    keys: tuple[Key, ...]
    alt: str
    caption: str
    kind: str = "bars"


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A figure with its interval; ``look`` is a verdict or a protocol, which decides colour and shape."""

    at: float
    low: float
    high: float
    look: str
    words: str


@dataclass(frozen=True, kw_only=True)
class IntervalRow:
    """Figures of one system: its name, what sets it apart, the figures in words, and the rule's bound on the axis."""

    name: str
    detail: str
    intervals: tuple[Interval, ...]
    words: str
    bound: float | None = None


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """Rows of intervals over one axis; those of ``more`` are shown on demand."""

    x: str
    ticks: tuple[Tick, ...]
    rows: tuple[IntervalRow, ...]
    more: tuple[IntervalRow, ...]
    looks: tuple[str, ...]
    caption: str
    kind: str = "intervals"
