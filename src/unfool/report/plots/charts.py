"""The charts of results: lines, bars with intervals, and histograms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from unfool.evaluation.results.charts import Chart, Point
from unfool.report.plots.figures import COLOURS, Bar, BarRow, Bars, Key, Panels
from unfool.report.plots.lines import Series, histogram_panel, line_panel
from unfool.report.plots.scale import Scale, data_scale, in_percent, nice_scale, plain


def chart_figures(charts: Sequence[Chart]) -> list[tuple[str, Panels | Bars]]:
    """Every chart as its title and a figure."""
    return [(chart.title, _bars(chart) if chart.kind == "bars" else _panels(chart)) for chart in charts]


def _is_share(chart: Chart) -> bool:
    return any(word in chart.y for word in ("accuracy", "probability"))


def _keys(chart: Chart) -> tuple[Key, ...]:
    """The legend; a single series needs none."""
    names = list(chart.series)
    return tuple(Key(name=name, colour=number % COLOURS) for number, name in enumerate(names) if len(names) > 1)


def _panels(chart: Chart) -> Panels:
    series = [Series(name=name, points=points, colour=n) for n, (name, points) in enumerate(chart.series.items())]
    if chart.kind == "steps":
        panel = histogram_panel(series, title=chart.title, x=chart.x, y=chart.y)
    else:
        places = sorted({float(point[0]) for points in chart.series.values() for point in points})
        wide = len(places) > 2 and places[0] > 0 and places[-1] / places[0] >= 16
        across = data_scale(places, math.log if wide else None)
        panel = line_panel(series, title=chart.title, x=chart.x, y=chart.y, across=across, shares=_is_share(chart))
    # the chart's title stands above it already
    return Panels(panels=(replace(panel, title=""),), keys=_keys(chart), caption=chart.caption)


def _bars(chart: Chart) -> Bars:
    """Rows of bars by name; no bar starts anywhere but at zero."""
    names = list(dict.fromkeys(point[0] for points in chart.series.values() for point in points))
    values = [float(value) for points in chart.series.values() for point in points for value in point[1:]]
    shares = _is_share(chart)
    words = in_percent if shares else plain
    short = in_percent if shares else "{:.3g}".format
    scale = nice_scale([0.0, *values], words)
    rows = []
    for name in names:
        points = [(n, p) for n, series in enumerate(chart.series.values()) for p in series if p[0] == name]
        bars = tuple(_bar(point, scale, number % COLOURS, short(point[1])) for number, point in points)
        rows.append(BarRow(name=name, bars=bars))
    said = [
        f"{series}: {', '.join(f'{words(point[1])} at {point[0]}' for point in points)}."
        for series, points in chart.series.items()
    ]
    return Bars(
        x=chart.x,
        y=chart.y,
        ticks=scale.ticks,
        zero=scale.place(0.0),
        rows=tuple(rows),
        keys=_keys(chart),
        alt=f"{chart.title}. {chart.y} by {chart.x}. {' '.join(said)}",
        caption=chart.caption,
    )


def _bar(point: Point, scale: Scale, colour: int, text: str) -> Bar:
    zero, end = scale.place(0.0), scale.place(point[1])
    low, high = (scale.place(point[2]), scale.place(point[3])) if len(point) == 4 else (None, None)
    return Bar(
        colour=colour,
        start=min(zero, end),
        width=round(abs(end - zero), 2),
        low=low,
        high=high,
        text=text,
        text_place=max(zero, end, high or 0.0),
    )
