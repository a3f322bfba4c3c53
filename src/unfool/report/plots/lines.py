"""Panels of lines: values over an axis, with bands or bars for their intervals, and outlines of histograms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from unfool.evaluation.results.charts import Point
from unfool.report.plots.figures import COLOURS, Line, Mark, Panel
from unfool.report.plots.scale import Scale, in_percent, nice_scale, plain

_DOTS = 24
"""Points of a line from which on they have no dots."""


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points ``[x, y]`` or ``[x, y, low, high]`` under a name; ``apart`` are points that no line joins."""

    name: str
    points: Sequence[Point]
    colour: int
    look: str = "plain"
    apart: Sequence[Point] = ()


def line_panel(series: Sequence[Series], *, title: str, x: str, y: str, across: Scale, shares: bool) -> Panel:
    """A panel of lines; with ``shares`` the values are accuracies and written in percent."""
    every = [point for each in series for point in (*each.points, *each.apart)]
    heights = [value for point in every for value in point[1:]]
    words = in_percent if shares else plain
    up = nice_scale(heights, words)
    lines = [_line(each, across, up, shares) for each in series]
    said = [f"{each.name}: {_in_words((*each.points, *each.apart), words)}." for each in series]
    alt = f"{title or y}. {y} against {x}. {' '.join(said)}"
    return Panel(title=title, x=x, y=y, x_ticks=across.ticks, y_ticks=up.ticks, lines=tuple(lines), alt=alt)


def histogram_panel(series: Sequence[Series], *, title: str, x: str, y: str) -> Panel:
    """Outlines of histograms: each point is the left edge of a bin and its height; the last one closes it."""
    edges = [point[0] for each in series for point in each.points]
    across = nice_scale(edges)
    up = nice_scale([0.0, *(point[1] for each in series for point in each.points)])
    lines = []
    for each in series:
        corners = [(each.points[0][0], 0.0)]
        for left, right in zip(each.points, each.points[1:], strict=False):
            corners += [(left[0], left[1]), (right[0], left[1])]
        corners.append((each.points[-1][0], 0.0))
        outline = " ".join(_corner(across.place(place), up.place(height)) for place, height in corners)
        lines.append(Line(colour=each.colour % COLOURS, look=each.look, points=outline, filled=True))
    said = ", ".join(each.name for each in series)
    alt = f"{title}. Histograms of the {x}: {said}."
    return Panel(title=title, x=x, y=y, x_ticks=across.ticks, y_ticks=up.ticks, lines=tuple(lines), alt=alt)


def _line(series: Series, across: Scale, up: Scale, shares: bool) -> Line:
    points = sorted(series.points, key=lambda point: point[0])
    corners = [_corner(across.place(point[0]), up.place(point[1])) for point in points]
    whole = [point for point in points if len(point) == 4]
    band = ""
    if len(whole) > 1:
        ends = [(point[0], point[3]) for point in whole] + [(point[0], point[2]) for point in reversed(whole)]
        band = " ".join(_corner(across.place(place), up.place(value)) for place, value in ends)
    alone = len(points) == 1
    shape = {"transfer": "ring", "adaptive": "diamond"}.get(series.look, "dot")
    marks = [_mark(point, across, up, shares, series.name, shape, alone) for point in points if len(points) <= _DOTS]
    marks += [_mark(point, across, up, shares, series.name, "diamond", True) for point in series.apart]
    return Line(
        colour=series.colour % COLOURS, look=series.look, points=" ".join(corners), band=band, marks=tuple(marks)
    )


def _mark(point: Point, across: Scale, up: Scale, shares: bool, name: str, shape: str, whiskers: bool) -> Mark:
    value = in_percent(point[1]) if shares else plain(point[1])
    ends = (up.place(point[2]), up.place(point[3])) if whiskers and len(point) == 4 else (None, None)
    return Mark(
        x=across.place(point[0]),
        y=round(100 - up.place(point[1]), 2),
        low=None if ends[0] is None else round(100 - ends[0], 2),
        high=None if ends[1] is None else round(100 - ends[1], 2),
        words=f"{name}: {value} at {plain(point[0])}",
        shape=shape,
    )


def _corner(x: float, y: float) -> str:
    """A corner in thousandths of the panel, from its upper left."""
    return f"{10 * x:.1f},{1000 - 10 * y:.1f}"


def _in_words(points: Sequence[Point], words: object) -> str:
    write = in_percent if words is in_percent else plain
    return ", ".join(f"{write(point[1])} at {plain(point[0])}" for point in points[:12])
