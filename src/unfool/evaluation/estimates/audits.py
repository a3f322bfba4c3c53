"""Estimates from audits of reversals, as their JSON holds them, and from ladders beside them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from unfool.core.errors import SpecError
from unfool.evaluation.adaptive.audit_result import DEFENSE, NOISE, VIEWS
from unfool.evaluation.intervals import auroc_interval, spearman_interval
from unfool.evaluation.statistics.estimate import Estimate
from unfool.evaluation.statistics.gains import SAME_NETWORK, of_values
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
    estimate = of_values([_ahead(audit, best)])
    return replace(estimate, pair=SAME_NETWORK, detail=f"Reversal minus {best}")


def over_augmentation(*audits: Mapping[str, Any]) -> Estimate:
    """What reversals gain over averaging crops and flips at the same cost, in the mean over these systems.

    The error is that of the images, which all systems share; how far the systems differ is told beside it. Raises
    SpecError for audits of other images.
    """
    if any(audit["ids"] != audits[0]["ids"] for audit in audits):
        raise SpecError("audits of different images have no common mean; audit all systems on the same images")
    gains = [audit["gains"] for audit in audits]
    ends = (min, max) if len(gains) > 1 else (min,)
    sides = ([each[way]["difference"] for each in gains] for way in (DEFENSE, VIEWS, NOISE))
    ranges = [" to ".join(f"{100 * end(each):+.1f}" for end in ends) for each in sides]
    detail = "Over the bare network reversals gain {} points, crops and flips {}, noise {}; the first minus the second"
    estimate = of_values([np.mean([_ahead(audit, VIEWS) for audit in audits], axis=0)])
    over = f"in the mean of these {len(audits)} systems, on the same images" if len(audits) > 1 else ""
    return replace(estimate, pair=SAME_NETWORK, detail=detail.format(*ranges), over=over)


def _ahead(audit: Mapping[str, Any], way: str) -> np.ndarray:
    """By image 1 where the defense is right and that way is not, -1 where only that way is, else 0."""
    ours, theirs = (np.asarray(audit["correct"][each], dtype=float) for each in (DEFENSE, way))
    return ours - theirs


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
