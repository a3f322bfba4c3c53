"""A chart as a results file carries it, and its points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unfool.evaluation import Records


def chart(title: str, x: str, y: str, kind: str, series: Mapping[str, Sequence[Any]], caption: str) -> dict[str, Any]:
    """A chart (see `report.charts`) of series of points by name."""
    listed = [{"name": name, "points": [list(point) for point in points]} for name, points in series.items()]
    return {"title": title, "x": x, "y": y, "kind": kind, "series": listed, "caption": caption}


def point(place: Any, records: Records) -> list[Any]:
    """The accuracy of records with its 95 % interval, at a place."""
    low, high = records.interval()
    return [place, round(records.accuracy, 6), round(low, 6), round(high, 6)]


def histogram(title: str, what: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """The pretext losses that an audit found, as `Audit.to_json` tells them."""
    edges = found["histogram"]["edges"]
    series = {
        kind: [[edge, count] for edge, count in zip(edges, [*counts, 0], strict=True)]
        for kind, counts in found["histogram"]["counts"].items()
    }
    text = f"{found['n']} of each kind; an attacked image has the higher loss with probability {found['auroc']:.2f}."
    return chart(title, what, "images", "steps", series, text)
