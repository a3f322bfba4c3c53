"""Charts of accuracies, costs, audits and ladders, each made in one call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from unfool.evaluation.records import Records
from unfool.evaluation.results.charts import Chart, Point


def point(place: Any, records: Records) -> list[Any]:
    """The accuracy of records with its 95 % interval, at a place."""
    low, high = records.interval()
    return [place, *(round(share, 6) for share in (records.accuracy, low, high))]


def spread(place: Any, records: Iterable[Records]) -> list[Any]:
    """The mean accuracy over seeds: with the lowest and the highest, or the interval of a single one."""
    first, *others = records
    shares = [item.accuracy for item in (first, *others)]
    low, high = (min(shares), max(shares)) if others else first.interval()
    return [place, *(round(share, 6) for share in (sum(shares) / len(shares), low, high))]


def bars(title: str, x: str, y: str, series: Mapping[str, Sequence[Point]], caption: str) -> Chart:
    """Bars side by side, one colour a series."""
    return Chart(title=title, x=x, y=y, kind="bars", series=series, caption=caption)


def lines(title: str, x: str, y: str, series: Mapping[str, Sequence[Point]], caption: str) -> Chart:
    """Lines with bands."""
    return Chart(title=title, x=x, y=y, kind="line", series=series, caption=caption)


def training_costs(runs: Mapping[str, int], title: str = "Cost", x: str = "method") -> Chart:
    """Images through the network in training, by run."""
    points = [[name, images / 1e6] for name, images in runs.items()]
    caption = "Counted exactly: every image that went forward through the network in training, crafting included."
    return bars(title, x, "millions of images through the network", {"training": points}, caption)


def histogram(title: str, x: str, audit: Mapping[str, Any]) -> Chart:
    """The pretext losses that an audit measured, as its JSON holds them."""
    edges = audit["histogram"]["edges"]
    series = {
        kind: [[edge, count] for edge, count in zip(edges, [*counts, 0], strict=True)]
        for kind, counts in audit["histogram"]["counts"].items()
    }
    text = f"{audit['n']} of each kind; an attacked image has the higher loss with probability {audit['auroc']:.2f}."
    return Chart(title=title, x=x, y="images", kind="steps", series=series, caption=text)


def rungs(title: str, ladder: Mapping[str, Any]) -> Chart:
    """The rungs of an adaptive ladder, as its JSON holds them, on the images that all of them have."""
    every = ladder["rungs"]
    points = [
        [rung if rung == "worst" else f"({rung})", *(common[key] for key in ("accuracy", "low", "high"))]
        for rung, common in ((each["rung"], each["common"]) for each in every)
    ]
    legend = "; ".join(f"{each['rung']}: {each['title']}" for each in every)
    text = f"On {every[-1]['n']} images, with 95 % intervals. {legend}."
    return bars(title, "rung", "accuracy", {"accuracy": points}, text)
