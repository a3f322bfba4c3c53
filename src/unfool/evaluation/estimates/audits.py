"""Estimates from audits of reversals, as their JSON holds them, and from ladders beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from unfool.evaluation.adaptive.audit_result import DEFENSE, NOISE, VIEWS
from unfool.evaluation.intervals import auroc_interval, spearman_interval
from unfool.evaluation.statistics.estimate import Estimate
from unfool.evaluation.statistics.gains import difference, mean_of
from unfool.evaluation.statistics.inference import AreaInference, RankInference

FEWEST = 6
"""Systems that a rank correlation needs to say anything."""


def raised_loss(audit: Mapping[str, Any]) -> Estimate:
    """How well the pretext loss tells attacked from clean images: the AUROC."""
    area, count = audit["auroc"], audit["n"]
    low, high = auroc_interval(area, count, count)
    detail = "Probability that an attacked image has a higher loss than a clean one"
    return Estimate(
        mean=area,
        low=low,
        high=high,
        points=False,
        detail=detail,
        over=f"on {count} of each",
        inference=AreaInference(area=area, n=count),
    )


def over_controls(audit: Mapping[str, Any]) -> Estimate:
    """What a reversal gains over the better of two changes of the same cost: noise, test-time augmentation."""
    gains = audit["gains"]
    best = max((NOISE, VIEWS), key=lambda name: gains[name]["accuracy"])
    return replace(_over(gains, best), detail=f"Reversal minus {best}")


def _over(gains: Mapping[str, Mapping[str, float]], control: str) -> Estimate:
    """What a reversal gains over a control, both over the bare network on the same images."""
    ours, theirs = (
        Estimate(mean=each["difference"], low=each["least"], high=each["most"])
        for each in (gains[DEFENSE], gains[control])
    )
    return replace(
        difference(ours, theirs), over="(the gains over the bare network, their errors taken as independent)"
    )


def over_augmentation(*audits: Mapping[str, Any]) -> Estimate:
    """What reversals gain over averaging crops and flips at the same cost, in the mean over systems.

    The interval is that over the systems; of a single one it is that over its images.
    """
    gains = [audit["gains"] for audit in audits]
    ends = (min, max) if len(gains) > 1 else (min,)
    ours, views, noise = ([each[way]["difference"] for each in gains] for way in (DEFENSE, VIEWS, NOISE))
    ranges = [" to ".join(f"{100 * end(each):+.1f}" for end in ends) for each in (ours, views, noise)]
    detail = "Over the bare network reversals gain {} points, crops and flips {}, noise {}; the first minus the second"
    if len(gains) == 1:
        return replace(_over(gains[0], VIEWS), detail=detail.format(*ranges))
    ahead = [a - b for a, b in zip(ours, views, strict=True)]
    over = f"in the mean of {len(ahead)} systems"
    return replace(mean_of(ahead), points=True, detail=detail.format(*ranges), over=over)


def audit_figures(audit: Mapping[str, Any], ladder: Mapping[str, Any]) -> dict[str, float]:
    """What an audit says (``auroc``, ``cosine``), and what the reversal gains: on ``replayed`` examples, and in the
    worst case against ``adaptive`` attacks, unless no such rung was run."""
    replayed, change = audit["gains"][DEFENSE]["difference"], ladder["difference"]
    worst = {} if change is None else {"adaptive": change["difference"]}
    return {"auroc": audit["auroc"], "cosine": audit["cosine"][0], "replayed": replayed, **worst}


def audit_predicts_gain(look: str, gain: str, *audits_and_ladders: Mapping[str, Any]) -> Estimate | None:
    """The rank correlation, over several systems, of a figure of their audits (``look``) and a gain (``gain``).

    Both are words of `audit_figures`. Each system gives its audit and the results of its ladder. None for too few
    systems, and where all audits or all gains are the same.
    """
    systems = zip(audits_and_ladders[::2], audits_and_ladders[1::2], strict=True)
    figures = [audit_figures(audit, ladder["ladder"]) for audit, ladder in systems]
    pairs = [(each[look], each[gain]) for each in figures if gain in each]
    looks, gains = zip(*pairs, strict=True) if len(pairs) >= FEWEST else ((), ())
    if len(set(looks)) < 2 or len(set(gains)) < 2:
        return None
    rank, low, high = spearman_interval(looks, gains)
    return Estimate(
        mean=rank,
        low=low,
        high=high,
        points=False,
        detail="Spearman's rank correlation",
        over=f"over {len(pairs)} systems, some of which share a network",
        more=f"{gains.count(0)} of the gains are 0. Audit and gains are of the same attacked images.",
        inference=RankInference(rank=rank, n=len(pairs)),
    )
