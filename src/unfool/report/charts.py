"""The charts of results: lines, bars with intervals, and histograms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, PercentFormatter

from unfool.evaluation.results.charts import Chart, Point
from unfool.report.drawing import COLOURS, Picture, drawable, legend, panels, picture, style


def chart_pictures(charts: Sequence[Chart]) -> list[tuple[str, Picture]]:
    """Every chart as its title and a picture."""
    return [(chart.title, _picture_of(chart)) for chart in charts]


def _picture_of(chart: Chart) -> Picture:
    series = chart.series
    with style():
        figure, (axis,) = panels(1, across=1)
        {"line": _lines, "bars": _bars, "steps": _steps}[chart.kind](axis, series)
        if chart.kind == "bars":
            figure.set_figheight(figure.get_figheight() + _below(_names(series)))
        axis.set_xlabel(drawable(chart.x))
        axis.set_ylabel(drawable(chart.y))
        if "accuracy" in chart.y:
            axis.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        if len(series) > 1:
            handles = [Line2D([], [], color=_colour(number), linewidth=3) for number in range(len(series))]
            legend(figure, handles, list(series))
    words = [f"{name}: {', '.join(_words(point) for point in points)}." for name, points in series.items()]
    alt = f"{chart.title}. {chart.y} against {chart.x}. " + (
        " ".join(words) if chart.kind != "steps" else "Histograms."
    )
    return picture(figure, alt, chart.caption)


def _words(point: Point) -> str:
    return f"{point[1]:.3g} at {point[0] if isinstance(point[0], str) else format(point[0], 'g')}"


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _lines(axis: Axes, series: Mapping[str, Sequence[Point]]) -> None:
    ticks = sorted({point[0] for points in series.values() for point in points})
    wide = len(ticks) > 2 and ticks[0] > 0 and ticks[-1] / ticks[0] >= 16
    for number, series_points in enumerate(series.values()):
        points = sorted(series_points, key=lambda point: point[0])
        x, y = [point[0] for point in points], [point[1] for point in points]
        dots = "o" if len(points) <= 12 else None
        axis.plot(x, y, color=_colour(number), marker=dots, markersize=5)
        if all(len(point) == 4 for point in points):
            low, high = [point[2] for point in points], [point[3] for point in points]
            axis.fill_between(x, low, high, color=_colour(number), alpha=0.15, linewidth=0)
    if wide:
        axis.set_xscale("log", base=2)
    if len(ticks) <= 12:
        axis.xaxis.set_major_locator(FixedLocator(ticks))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    else:
        axis.xaxis.set_major_locator(MaxNLocator(8))


def _names(series: Mapping[str, Sequence[Point]]) -> list[str]:
    """The names of the bars, in order."""
    return list(dict.fromkeys(point[0] for points in series.values() for point in points))


def _slanted(names: Sequence[str]) -> bool:
    """Whether the names of bars do not fit side by side."""
    return sum(len(name) for name in names) > 70


def _below(names: Sequence[str]) -> float:
    """Inches that slanted names take from the bars above them, beyond those of a short one."""
    longest = max((len(drawable(name)) for name in names), default=0)
    return max(0.0, 0.04 * (longest - 25)) if _slanted(names) else 0.0


def _bars(axis: Axes, series: Mapping[str, Sequence[Point]]) -> None:
    """Bars side by side, with whiskers; no bar starts anywhere but at zero."""
    names = _names(series)
    width = 0.8 / len(series)
    for number, points in enumerate(series.values()):
        for point in points:
            place = names.index(point[0]) + (number - (len(series) - 1) / 2) * width
            axis.bar(place, point[1], width * 0.94, color=_colour(number), alpha=0.85)
            if len(point) == 4:
                axis.vlines(place, point[2], point[3], color="#222222", linewidth=1.2)
    axis.set_xticks(range(len(names)), [drawable(name) for name in names])
    if _slanted(names):
        axis.tick_params("x", rotation=30)
        for label in axis.get_xticklabels():
            label.set_horizontalalignment("right")
    axis.grid(visible=False, axis="x")
    axis.set_axisbelow(True)


def _steps(axis: Axes, series: Mapping[str, Sequence[Point]]) -> None:
    """Outlines of histograms: each point is the left edge of a bin and its height; the last one closes it."""
    for number, points in enumerate(series.values()):
        x, y = [point[0] for point in points], [point[1] for point in points]
        axis.stairs(y[:-1], x, color=_colour(number), linewidth=1.8, fill=False)
        axis.stairs(y[:-1], x, color=_colour(number), alpha=0.12, fill=True)
