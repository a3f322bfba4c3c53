"""Charts as a results file holds them: named series of points, drawn by the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from unfool.core.files import JsonObject

ChartKind = Literal["line", "bars", "steps"]
CHART_KINDS: tuple[ChartKind, ...] = ("line", "bars", "steps")
"""Kinds of charts; ``steps`` is a histogram's outline."""

Point = Sequence[Any]
"""``[x, y]`` or ``[x, y, low, high]``; the x of bars are words."""


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart: ``x`` and ``y`` label the axes, ``series`` are points by name, ``caption`` says what is drawn."""

    title: str
    x: str
    y: str
    kind: ChartKind
    series: Mapping[str, Sequence[Point]]
    caption: str = ""

    def to_json(self) -> JsonObject:
        """The chart as a results file holds it."""
        listed = [{"name": name, "points": [list(point) for point in points]} for name, points in self.series.items()]
        return {
            "title": self.title,
            "x": self.x,
            "y": self.y,
            "kind": self.kind,
            "series": listed,
            "caption": self.caption,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Chart:
        """The chart that `to_json` wrote."""
        series = {each["name"]: [tuple(point) for point in each["points"]] for each in values["series"]}
        words = {key: values[key] for key in ("title", "x", "y", "kind")}
        return cls(**words, series=series, caption=str(values.get("caption", "")))
