"""The estimate from an adaptive ladder, as its JSON holds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unfool.evaluation.records import TRANSFER
from unfool.evaluation.statistics.estimate import Estimate
from unfool.evaluation.statistics.inference import StatedInference


def worst_case(ladder: Mapping[str, Any]) -> Estimate:
    """The worst of all rungs minus the bare network.

    Between -1 and 1 where the two were not compared: no adaptive rung was run, or the model wraps no classifier that
    could be the bare network.
    """
    rungs = {rung["rung"]: rung["common"] for rung in ladder["rungs"]}
    static, replayed, worst = (percent(rungs[key]) for key in ("a", "b", "worst"))
    protocol = next(rung["protocol"] for rung in ladder["rungs"] if rung["rung"] == "worst")
    alone = "no adaptive rung was run" if protocol == TRANSFER else "the model wraps no classifier to compare it with"
    change = ladder["difference"] or {"difference": 0, "low": -1, "high": 1, "p_value": 1}
    return Estimate(
        mean=change["difference"],
        low=change["low"],
        high=change["high"],
        inference=StatedInference(change["p_value"]),
        detail=f"On {rungs['worst']['n']} attacked images the accuracy of the bare network is {static}, that of the "
        f"defense {replayed} on the same examples and {worst} under the worst of all rungs. Worst case minus the bare "
        "network",
        over=f"on {rungs['worst']['n']} images" if ladder["difference"] else f"({alone})",
    )


def percent(share: Mapping[str, float]) -> str:
    """An accuracy with its interval, as JSON holds them."""
    return f"{100 * share['accuracy']:.1f} % [{100 * share['low']:.1f}, {100 * share['high']:.1f}]"
