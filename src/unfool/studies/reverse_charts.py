"""The graphs of system B: those that its source left as TODO, and those that an audit needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unfool.evaluation import Records
from unfool.evaluation.ladder_outcome import TITLES
from unfool.studies.reverse_measures import REVERSE, Measured
from unfool.studies.reverse_scales import BASES, ROBUST, Scale


def charts(
    settings: Scale,
    measured: Sequence[Measured],
    corrupted: Mapping[str, Mapping[str, Sequence[Records]]],
    audits: Mapping[str, Mapping[str, Any]],
    plain: Mapping[str, Any],
    gated: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """All of them, as a results file carries them."""
    threat = settings.threats["linf"]
    robust = [item for item in measured if item.base == ROBUST and item.records.threat == threat]
    found = [
        _rungs("The ladder on the reversal", plain),
        _rungs("The ladder on the gated reversal", gated),
        _loss(robust, threat),
        _negatives(robust, threat),
    ]
    for base in BASES:
        found.append(_corruptions(base, corrupted[base], settings))
        found.append(_histogram(base, audits[base]))
    return found


def _point(place: Any, records: Records) -> list[Any]:
    low, high = records.interval()
    return [place, round(records.accuracy, 6), round(low, 6), round(high, 6)]


def _rungs(title: str, found: Mapping[str, Any]) -> dict[str, Any]:
    rungs = found["ladder"]["rungs"]
    points = [
        [item["rung"] if item["rung"] == "worst" else f"({item['rung']})"]
        + [item["common"][key] for key in ("accuracy", "low", "high")]
        for item in rungs
    ]
    legend = "; ".join(f"{item['rung']}: {TITLES[item['rung']]}" for item in rungs)
    return _chart(
        title,
        "rung",
        "accuracy",
        "bars",
        {"accuracy": points},
        f"On {rungs[-1]['n']} images, with 95 % intervals. {legend}.",
    )


def _loss(robust: Sequence[Measured], threat: str) -> dict[str, Any]:
    bare = _bare(robust)
    points = [["no reversal", *_point("", bare)[1:]]]
    points += [_point(item.settings["loss"], item.records) for item in robust if "loss" in item.settings]
    return _chart(
        "Loss functions of the reversal",
        "loss",
        "accuracy",
        "bars",
        {"accuracy": points},
        f"The {ROBUST} classifier on {bare.attack} examples at {threat}, crafted on it alone (transfer).",
    )


def _negatives(robust: Sequence[Measured], threat: str) -> dict[str, Any]:
    bare = _bare(robust)
    points = [_point(item.settings["drawn"], item.records) for item in robust if "drawn" in item.settings]
    level = [[point[0], *_point(0, bare)[1:]] for point in points]
    return _chart(
        "Number of negatives",
        "negatives that each image draws",
        "accuracy",
        "line",
        {"reversed": points, "no reversal": level},
        f"As above, NT-Xent over negatives from the bank; {bare.attack} at {threat}, transfer.",
    )


def _bare(robust: Sequence[Measured]) -> Records:
    attack = next(item.records.attack for item in robust if "loss" in item.settings)
    return next(item.records for item in robust if (item.defense, item.records.attack) == ("none", attack))


def _corruptions(base: str, found: Mapping[str, Sequence[Records]], settings: Scale) -> dict[str, Any]:
    series = {
        "reversed" if defense == REVERSE else "no reversal": [
            _point(str(one.settings["corruption"]).replace("_", " "), one) for one in records
        ]
        for defense, records in found.items()
    }
    text = f"{settings.corrupted} images under each corruption, severity {settings.severity}, with 95 % intervals."
    return _chart(f"Common corruptions, {base}", "corruption", "accuracy", "bars", series, text)


def _histogram(base: str, found: Mapping[str, Any]) -> dict[str, Any]:
    edges = found["histogram"]["edges"]
    series = {
        kind: [[edge, count] for edge, count in zip(edges, [*counts, 0], strict=True)]
        for kind, counts in found["histogram"]["counts"].items()
    }
    text = f"{found['n']} of each kind; an attacked image has the higher loss with probability {found['auroc']:.2f}."
    return _chart(f"What the contrastive loss sees, {base}", "contrastive loss", "images", "steps", series, text)


def _chart(title: str, x: str, y: str, kind: str, series: Mapping[str, Sequence[Any]], caption: str) -> dict[str, Any]:
    listed = [{"name": name, "points": [list(point) for point in points]} for name, points in series.items()]
    return {"title": title, "x": x, "y": y, "kind": kind, "series": listed, "caption": caption}
