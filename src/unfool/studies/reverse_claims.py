"""The claims of system B: as its authors judged them, and against an attacker who knows the defense."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unfool.evaluation import Records
from unfool.evaluation.adaptive.audit_result import DEFENSE, NOISE, VIEWS
from unfool.studies.claims import ABOVE_ZERO, FAILS, HOLDS, UNDECIDED, Gain, above, at_least, claim, gain
from unfool.studies.recipes import ROBUST
from unfool.studies.reverse_measures import REVERSE, Measured
from unfool.studies.reverse_scales import BASES, REVERSAL_STEPS, SOURCE_STEPS, STEPS


def judge_claims(
    measured: Sequence[Measured],
    corrupted: Mapping[str, Mapping[str, Sequence[Records]]],
    audits: Mapping[str, Mapping[str, Any]],
    plain: Mapping[str, Any],
    gated: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Claims with verdicts and evidence, the ladder's last word first."""
    found = [_climbed("The reversal", plain), _climbed("The gated reversal", gated)]
    found += [_brought_back(measured, steps) for steps in STEPS]
    found += [_corrupted(base, corrupted[base]) for base in BASES]
    found += [_sees(base, audits[base]) for base in BASES]
    found += [_beats(base, audits[base]) for base in BASES]
    return found


def gate_claim(found: Mapping[str, Any]) -> dict[str, Any]:
    """Whether a gate keeps its word on clean images."""
    holds = found["mean"] <= found["rate"] and found["kept"] >= LEAST_KEPT
    return {
        "text": f"A gate with a stated false-trigger rate of {found['rate']:.0%} keeps it on fresh clean images",
        "verdict": HOLDS if holds else FAILS,
        "evidence": f"Threshold set on {found['calibrated_on']} clean test images, judged on the other "
        f"{found['judged_on']}: mean rate {found['mean']:.2%} over {found['resamples']} resamples, of which "
        f"{found['kept']:.1%} are at most the stated one; the gate of the ladder has {found['deployed']:.2%}. "
        f"Rule: holds if the mean is at most the stated rate, and so are {LEAST_KEPT:.0%} of the resamples.",
    }


def _climbed(words: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """The ladder's own claim, in the study's words."""
    rung = next(row for row in found["rows"] if row.get("rung") == "a")
    text = (
        f"{words} makes the {ROBUST} classifier more robust than it is by itself ({rung['attack']}, {rung['threat']})"
    )
    return {**found["claims"][0], "text": text}


def _brought_back(measured: Sequence[Measured], steps: int) -> dict[str, Any]:
    """The source's own table: replayed examples, with five steps of reversal minus without."""
    base = [item for item in measured if item.base == ROBUST and item.records.attack == f"pgd-{steps}"]
    base = [item for item in base if item.records.threat.startswith("linf")]
    bare = next(item.records for item in base if item.defense == "none" and item.records.protocol == "white-box")
    ours = next(
        item.records
        for item in base
        if item.defense == REVERSE and item.settings.get("reversal_steps") == REVERSAL_STEPS
    )
    without, with_reversal = SOURCE_STEPS[steps]
    claimed = (with_reversal - without) / 100
    text = (
        f"{REVERSAL_STEPS} steps of reversal change the accuracy under {steps} Linf steps by {100 * claimed:+.1f} "
        "points (as the source measured it: examples of the bare classifier, replayed)"
    )
    detail = f"{ROBUST}, with the reversal minus without"
    if claimed > 0:
        return claim(text, gain([ours], [bare]), claimed, detail, _SAME)
    found = gain([ours], [bare])
    verdict = HOLDS if found.high < 0 else FAILS if found.low > 0 else UNDECIDED
    rule = "Rule: holds if the whole 95 % interval is below 0, fails if all of it is above."
    return {"text": text, "verdict": verdict, "evidence": f"{detail}: {found.words(_SAME)}. {rule}"}


def _corrupted(base: str, found: Mapping[str, Sequence[Records]]) -> dict[str, Any]:
    """The source's stated aim: corrupted images at inference time."""
    means = [np.mean([one.correct for one in found[defense]], axis=0) for defense in (REVERSE, "none")]
    differences = means[0] - means[1]
    mean = float(differences.mean())
    error = 1.96 * float(differences.std(ddof=1)) / math.sqrt(len(differences)) if len(differences) > 1 else 1.0
    change = Gain(mean=mean, low=max(-1.0, mean - error), high=min(1.0, mean + error), seeds=1)
    return {
        "text": f"The reversal makes the {base} classifier more accurate on corrupted images",
        "verdict": change.above(),
        "evidence": f"Mean over {len(found['none'])} corruptions of {len(differences)} images, with the reversal minus "
        f"without: {change.words(_SAME)}. {ABOVE_ZERO}",
    }


_SAME = "on the same network"

LEAST_KEPT = 0.92
"""Share of resamples that must stay within the stated rate: 95 % is what the Beta law gives for the true one."""


def _sees(base: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Whether an attack raises the pretext loss; AUROC with the interval of Hanley & McNeil (Radiology 1982)."""
    area, count = found["auroc"], found["n"]
    first, second = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (count - 1) * (first + second - 2 * area**2)
    error = 1.96 * math.sqrt(max(spread, 0.0)) / count
    return {
        "text": f"An attack on the {base} classifier raises the contrastive loss",
        "verdict": above(area - error - 0.5, area + error - 0.5),
        "evidence": f"An attacked image has a higher loss than a clean one with probability {area:.3f} "
        f"[{max(0.0, area - error):.3f}, {min(1.0, area + error):.3f}], {count} of each. "
        "Rule: holds if the whole 95 % interval is above 0.5, fails if none of it is.",
    }


def _beats(base: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Whether the contrastive loss matters, or any change of the same cost would do."""
    ours, others = found["gains"][DEFENSE], {name: found["gains"][name] for name in (NOISE, VIEWS)}
    best = max(others, key=lambda name: others[name]["accuracy"])
    change = Gain(
        mean=ours["accuracy"] - others[best]["accuracy"],
        low=ours["least"] - others[best]["most"],
        high=ours["most"] - others[best]["least"],
        seeds=1,
    )
    verdict = at_least(change, 0.0) if change.low != change.high else UNDECIDED
    return {
        "text": f"On attacked images of the {base} classifier the reversal does better than noise or test-time "
        "augmentation of the same cost",
        "verdict": verdict,
        "evidence": f"Reversal minus {best}: {100 * change.mean:+.1f} points, at most [{100 * change.low:+.1f}, "
        f"{100 * change.high:+.1f}] (the ends of the two intervals over the bare network). {ABOVE_ZERO}",
    }
