"""The graphs of system B: those that its source left as TODO, and those that an audit needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unfool.evaluation import Records
from unfool.studies.chart import chart, histogram, point
from unfool.studies.recipes import ROBUST
from unfool.studies.reverse_measures import REVERSE, Measured
from unfool.studies.reverse_scales import BASES, Scale


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
        title = f"What the contrastive loss sees, {base}"
        found.append(histogram(title, "contrastive loss", audits[base]))
    return found


def _rungs(title: str, found: Mapping[str, Any]) -> dict[str, Any]:
    rungs = found["ladder"]["rungs"]
    points = [
        [item["rung"] if item["rung"] == "worst" else f"({item['rung']})"]
        + [item["common"][key] for key in ("accuracy", "low", "high")]
        for item in rungs
    ]
    legend = "; ".join(f"{item['rung']}: {item['title']}" for item in rungs)
    return chart(
        title,
        "rung",
        "accuracy",
        "bars",
        {"accuracy": points},
        f"On {rungs[-1]['n']} images, with 95 % intervals. {legend}.",
    )


def _loss(robust: Sequence[Measured], threat: str) -> dict[str, Any]:
    bare = _bare(robust)
    points = [["no reversal", *point("", bare)[1:]]]
    points += [point(item.settings["loss"], item.records) for item in robust if "loss" in item.settings]
    return chart(
        "Loss functions of the reversal",
        "loss",
        "accuracy",
        "bars",
        {"accuracy": points},
        f"The {ROBUST} classifier on {bare.attack} examples at {threat}, crafted on it alone (transfer).",
    )


def _negatives(robust: Sequence[Measured], threat: str) -> dict[str, Any]:
    bare = _bare(robust)
    points = [point(item.settings["drawn"], item.records) for item in robust if "drawn" in item.settings]
    level = [[one[0], *point(0, bare)[1:]] for one in points]
    return chart(
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
            point(str(one.settings["corruption"]).replace("_", " "), one) for one in records
        ]
        for defense, records in found.items()
    }
    text = f"{settings.corrupted} images under each corruption, severity {settings.severity}, with 95 % intervals."
    return chart(f"Common corruptions, {base}", "corruption", "accuracy", "bars", series, text)
