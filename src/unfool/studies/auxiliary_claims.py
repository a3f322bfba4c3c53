"""The claims of system D: the source's own, its arguments, and what strong attacks make of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from unfool.evaluation.adaptive.audit_result import DEFENSE, NOISE, VIEWS
from unfool.studies.auxiliary_foresight import foreseen
from unfool.studies.auxiliary_measures import AUDITED, BLOCK, CLEAN, OFF_THE_GRID, ON_THE_GRID, Judged
from unfool.studies.auxiliary_networks import UNCHANGED, Reversal, Trained, config_of, who
from unfool.studies.auxiliary_scales import JIGSAW
from unfool.studies.auxiliary_source import Fillings, arguments, of_the_source
from unfool.studies.claims import ABOVE_ZERO, FAILS, HOLDS, UNDECIDED, gain, seed_error
from unfool.training.regimes import CLASSIFIER_FIRST, JOINT

TIMES_CHANCE = 5
"""How far above chance a jigsaw is that trains."""
LEAST_L2 = 0.7
"""Share of the error of filling with the mean colour that a working inpainter stays below."""

Learnt = Mapping[Trained, Mapping[str, Mapping[str, Any]]]


def judge_claims(judged: Sequence[Judged], learnt: Learnt, fillings: Fillings) -> list[dict[str, Any]]:
    """Claims with verdicts and evidence: the source's own, then those on tasks, auxiliaries, audits and reversals."""
    found = [*of_the_source(judged), *arguments(judged, fillings)]
    found += [_fills(network, told[""]) for network, told in fillings.items()]
    for network, told in learnt.items():
        if JIGSAW in told and network.regime != UNCHANGED:
            found.append(_jigsaw(network, told[JIGSAW]))
        if OFF_THE_GRID in told:
            found.append(_grid(network, *(told[name] for name in (JIGSAW, OFF_THE_GRID, ON_THE_GRID))))
    found += [_helps(judged, one) for one in judged if one.reversal is None and one.network.regime == JOINT]
    found += _controlled(judged)
    found += foreseen(judged)
    found += [
        _climbed(one, one.reversal, one.ladder) for one in judged if one.reversal is not None and one.ladder is not None
    ]
    return found


def _climbed(one: Judged, reversal: Reversal, found: Mapping[str, Any]) -> dict[str, Any]:
    """The ladder's own verdict, in few words."""
    rungs = {rung["rung"]: rung for rung in found["ladder"]["rungs"]}
    static, replayed, worst = (rungs[letter]["common"] for letter in ("a", "b", "worst"))
    kind = "The gated reversal" if reversal.gate else "The reversal"
    change = found["ladder"]["difference"]
    told = "no adaptive rung was run"
    if change is not None:
        told = (
            f"worst case minus the bare network {100 * change['difference']:+.1f} points "
            f"[{100 * change['low']:+.1f}, {100 * change['high']:+.1f}] (McNemar p = {change['p_value']:.2g})"
        )
    return {
        "text": f"{kind} down {reversal.task} ({who(one.network)}) makes the classifier more robust than it is by "
        f"itself ({rungs['a']['attack']}, {found['ladder']['threat']})",
        "verdict": found["claims"][0]["verdict"],
        "evidence": f"The bare network keeps {_percent(static)} of {worst['n']} images; its examples replayed leave "
        f"the reversal {_percent(replayed)}, the worst of all rungs {_percent(worst)}: {told}.",
    }


def _percent(found: Mapping[str, Any]) -> str:
    return f"{100 * found['accuracy']:.1f} % [{100 * found['low']:.1f}, {100 * found['high']:.1f}]"


def _helps(judged: Sequence[Judged], one: Judged) -> dict[str, Any]:
    """Does the auxiliary make the bare classifier more robust than labels alone do?"""
    ours, alone = one.network, _bare(judged, one.network, CLASSIFIER_FIRST)
    attack = list(one.records)[-1]
    found = gain([one.records[attack]], [alone.records[attack]])
    clean = gain([one.records[CLEAN]], [alone.records[CLEAN]])
    return {
        "text": f"{ours.task.capitalize()} beside the labels ({who(ours)}) makes the classifier more robust than "
        f"labels alone do ({attack}, {one.records[attack].threat})",
        "verdict": found.above(),
        "evidence": f"{found.words()}; on clean images {clean.words()}. {ABOVE_ZERO}",
    }


def _bare(judged: Sequence[Judged], like: Trained, regime: str) -> Judged:
    return next(
        one
        for one in judged
        if one.reversal is None
        and one.network.regime == regime
        and (one.network.part, one.network.base) == (like.part, like.base)
    )


def _controlled(judged: Sequence[Judged]) -> Iterator[dict[str, Any]]:
    """Does the pretext loss matter, or would any change of the same cost do?"""
    kinds: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for one in judged:
        if one.audit is not None and one.ladder is not None:
            kinds.setdefault((one.network.part.data, one.network.base), []).append(one.audit["gains"])
    for (data, base), gains in kinds.items():
        ours, views, noise = ([one[way]["difference"] for one in gains] for way in (DEFENSE, VIEWS, NOISE))
        ahead = sum(a > b for a, b in zip(ours, views, strict=True))
        behind = sum(a < b for a, b in zip(ours, views, strict=True))
        yield {
            "text": f"On replayed {AUDITED} examples reversals gain more than averaging as many crops and flips "
            f"({data}, {base})",
            "verdict": HOLDS if ahead == len(gains) else FAILS if behind == len(gains) else UNDECIDED,
            "evidence": f"Over the bare network reversals gain {_range(ours)} points, crops and flips {_range(views)}, "
            f"noise {_range(noise)}: the reversal is ahead of crops and flips in {ahead} of {len(gains)} systems, "
            f"behind in {behind}. Rule: holds if it is ahead in all, fails if behind in all.",
        }


def _range(gains: Sequence[float]) -> str:
    return f"{100 * min(gains):+.1f} to {100 * max(gains):+.1f}"


def _jigsaw(network: Trained, told: Mapping[str, Any]) -> dict[str, Any]:
    """Whether the jigsaw trains."""
    count = config_of(network.part, JIGSAW).settings.get("count", 24)
    bound = TIMES_CHANCE / count
    return {
        "text": f"The jigsaw trains ({who(network)}): {TIMES_CHANCE} times chance on held-out images",
        "verdict": HOLDS if told["low"] >= bound else FAILS if told["high"] < bound else UNDECIDED,
        "evidence": f"{_percent(told)} of {told['count']} test images, {told['accuracy'] * count:.1f} times the chance "
        f"of one in {count} permutations. Rule: holds if the whole 95 % interval reaches it, fails if none of it does.",
    }


def _grid(network: Trained, still: Mapping[str, Any], off: Mapping[str, Any], on: Mapping[str, Any]) -> dict[str, Any]:
    """Whether a jigsaw without augmentation reads the grid of JPEG instead of what is in the image."""
    return {
        "text": f"Without augmentation the jigsaw ({who(network)}) solves images, not the grid that JPEG left in them",
        "verdict": FAILS if off["high"] < on["low"] else HOLDS if off["high"] >= still["low"] else UNDECIDED,
        "evidence": f"{_percent(still)} of {still['count']} test images as they are, {_percent(off)} of the same moved "
        f"by {BLOCK // 2} pixels each way, and {_percent(on)} moved by {BLOCK}, to where blocks of {BLOCK} pixels, "
        "which JPEG codes together at half the size of colour, lie on their grid again. Rule: fails if it solves fewer "
        "off the grid than on it (their intervals apart), holds if moving off the grid changes nothing.",
    }


def _fills(network: Trained, told: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Whether the inpainter works."""
    ratios = [one["ratio"] for one in told]
    mean, error = float(np.mean(ratios)), seed_error(ratios)
    verdict = HOLDS if mean + error <= LEAST_L2 else FAILS if mean - error > LEAST_L2 else UNDECIDED
    return {
        "text": f"The inpainter ({who(network)}) has at most {LEAST_L2} of the error of the mean visible colour",
        "verdict": verdict,
        "evidence": f"Squared error of held-out regions over that of their image's mean visible colour: {mean:.3f} "
        f"[{mean - error:.3f}, {mean + error:.3f}] over {len(ratios)} parts of the test split; variety of the fillings "
        f"{np.mean([one['variety'] for one in told]):.2f} of that of the regions. Rule: holds if the whole 95 % "
        "interval is at most that, fails if none of it is.",
    }
