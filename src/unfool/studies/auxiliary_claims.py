"""The claims of system D: the source's own, its arguments, and what strong attacks make of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unfool.studies.auxiliary_foresight import foreseen
from unfool.studies.auxiliary_measures import AUDITED, BLOCK, CLEAN, SHIFTED, Judged
from unfool.studies.auxiliary_networks import Reversal, Trained, config_of
from unfool.studies.auxiliary_scales import (
    ADVERSARIAL_ALONE,
    INPAINTING,
    JIGSAW,
    L2_ALONE,
    NORMAL,
    ROBUST,
    SEVERAL,
    SOURCE,
    SOURCE_DATA,
)
from unfool.studies.claims import ABOVE_ZERO, FAILS, HOLDS, UNDECIDED, Gain, claim, gain, seed_error
from unfool.training.regimes import CLASSIFIER_FIRST, JOINT

TIMES_CHANCE = 5
"""How far above chance a jigsaw is that trains."""
LEAST_L2 = 0.7
"""Share of the error of filling with the mean colour that a working inpainter stays below."""

Fillings = Mapping[Trained, Mapping[str, Sequence[Mapping[str, float]]]]
Learnt = Mapping[Trained, Mapping[str, Mapping[str, Any]]]


def judge_claims(judged: Sequence[Judged], learnt: Learnt, fillings: Fillings) -> list[dict[str, Any]]:
    """Claims with verdicts and evidence: the source's own, then those on tasks, auxiliaries, audits and reversals."""
    found = [*_source(judged), *_arguments(judged, fillings)]
    found += [_fills(network, told[""]) for network, told in fillings.items()]
    for network, told in learnt.items():
        if SHIFTED in told:
            found.append(_grid(network, told[JIGSAW], told[SHIFTED]))
        elif JIGSAW in told:
            found.append(_jigsaw(network, told[JIGSAW]))
    found += [_helps(judged, one) for one in judged if one.reversal is None and one.network.regime == JOINT]
    found += foreseen(judged)
    found += [
        _climbed(one, one.reversal, one.ladder) for one in judged if one.reversal is not None and one.ladder is not None
    ]
    return found


def who(network: Trained) -> str:
    """A network in words."""
    words = {JOINT: "jointly with labels", CLASSIFIER_FIRST: "on the frozen classifier"}
    told = words.get(network.regime, f"{network.regime}, without a classifier")
    return f"{network.part.data}, {network.base}, {told}"


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


def _percent(found: Mapping[str, float]) -> str:
    return f"{100 * found['accuracy']:.1f} % [{100 * found['low']:.1f}, {100 * found['high']:.1f}]"


def _helps(judged: Sequence[Judged], one: Judged) -> dict[str, Any]:
    """Does the auxiliary make the bare classifier more robust than labels alone do?"""
    ours, alone = one.network, _bare(judged, one.network, CLASSIFIER_FIRST)
    strongest = list(one.records)[-1]
    attack = strongest if ours.base == ROBUST else AUDITED
    found = gain([one.records[attack]], [alone.records[attack]])
    clean = gain([one.records[CLEAN]], [alone.records[CLEAN]])
    return {
        "text": f"{ours.task.capitalize()} beside the labels ({who(ours)}) makes the classifier more robust than "
        f"labels alone do ({attack}, {one.records[attack].threat})",
        "verdict": _sign(found),
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


def _sign(found: Gain) -> str:
    return HOLDS if found.low > 0 else FAILS if found.high < 0 else UNDECIDED


def _source(judged: Sequence[Judged]) -> list[dict[str, Any]]:
    """The source's table, as it measured it: what its reversal costs and gains, and which regime is more robust."""
    found, bare = [], {}
    for one in judged:
        network, reversal = one.network, one.reversal
        if (network.part.data, network.base) != (SOURCE_DATA, NORMAL) or network.task not in ("", INPAINTING):
            continue
        if reversal is None:
            bare[network.regime] = one
        elif reversal.task == INPAINTING and not reversal.variant:
            for attack, (without, reversed_) in SOURCE[network.regime].items():
                where = "on clean images" if attack == CLEAN else f"under {attack}"
                text = (
                    f"Reversing down inpainting ({who(network)}) changes the accuracy {where} by "
                    f"{reversed_ - without:+.2f} points (as the source measured it: examples of the bare network)"
                )
                change = gain([one.records[attack]], [bare[network.regime].records[attack]])
                found.append(_about(text, change, (reversed_ - without) / 100))
    if len(bare) == 2:
        first, joint = (bare[regime].records["fgsm"] for regime in (CLASSIFIER_FIRST, JOINT))
        claimed = (SOURCE[CLASSIFIER_FIRST]["fgsm"][0] - SOURCE[JOINT]["fgsm"][0]) / 100
        text = "A classifier that was trained first is more robust than one that learnt inpainting jointly (FGSM)"
        found.append(claim(text, gain([first], [joint]), claimed, "classifier first minus joint"))
    return found


def _about(text: str, found: Gain, claimed: float) -> dict[str, Any]:
    """A claim of a change, up or down."""
    detail = "with the reversal minus without"
    if claimed > 0:
        return claim(text, found, claimed, detail, _SAME)
    turned = Gain(mean=-found.mean, low=-found.high, high=-found.low, seeds=found.seeds)
    return claim(text, turned, -claimed, "loss, without the reversal minus with it", _SAME)


_SAME = "on the same network"


def _arguments(judged: Sequence[Judged], fillings: Fillings) -> list[dict[str, Any]]:
    """The source's three arguments on inpainting."""
    found = []
    for told in fillings.values():
        if ADVERSARIAL_ALONE in told:
            found.append(
                _compared(
                    "The adversarial loss alone fills every image alike, more than with L2",
                    "variety of the fillings (their variance over images as a share of that of what was there)",
                    told[""],
                    told[ADVERSARIAL_ALONE],
                    "variety",
                )
            )
        if L2_ALONE in told:
            found.append(
                _compared(
                    "L2 alone fills with more blur than with the adversarial loss",
                    "sharpness of the fillings (squared differences of neighbouring pixels as a share of those there)",
                    told[""],
                    told[L2_ALONE],
                    "sharpness",
                )
            )
    reversed_ = {
        one.reversal.variant: one
        for one in judged
        if one.reversal is not None and (one.network.regime, one.network.base) == (CLASSIFIER_FIRST, NORMAL)
        if one.reversal.task == INPAINTING and not one.reversal.gate
    }
    if SEVERAL in reversed_:
        one, several = reversed_[""].records[AUDITED], reversed_[SEVERAL].records[AUDITED]
        change = gain([one], [several])
        found.append(
            {
                "text": f"One mask reverses better than several ({AUDITED}, replayed)",
                "verdict": _sign(change),
                "evidence": f"One centred mask minus several drawn ones: {change.words(_SAME)}. {ABOVE_ZERO}",
            }
        )
    return found


def _compared(
    text: str,
    what: str,
    canonical: Sequence[Mapping[str, float]],
    alone: Sequence[Mapping[str, float]],
    key: str,
) -> dict[str, Any]:
    """Canonical losses minus one alone, over the parts of the test split."""
    ours, theirs = ([one[key] for one in told] for told in (canonical, alone))
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    mean, error = float(np.mean(differences)), seed_error(differences)
    verdict = HOLDS if mean - error > 0 else FAILS if mean + error < 0 else UNDECIDED
    return {
        "text": text,
        "verdict": verdict,
        "evidence": f"{what.capitalize()}: {np.mean(ours):.3f} with both losses, {np.mean(theirs):.3f} with the one "
        f"alone, difference {mean:+.3f} [{mean - error:+.3f}, {mean + error:+.3f}] over {len(ours)} parts of the test "
        f"split, on the same frozen trunk. {ABOVE_ZERO}",
    }


def _jigsaw(network: Trained, told: Mapping[str, Any]) -> dict[str, Any]:
    """Whether the jigsaw trains."""
    count = config_of(network.part, JIGSAW).settings.get("count", 24)
    bound = TIMES_CHANCE / count
    return {
        "text": f"The jigsaw trains ({who(network)}): {TIMES_CHANCE} times chance on held-out images",
        "verdict": HOLDS if told["low"] >= bound else FAILS if told["high"] < bound else UNDECIDED,
        "evidence": f"{100 * told['accuracy']:.1f} % [{100 * told['low']:.1f}, {100 * told['high']:.1f}] of "
        f"{told['count']} test images, {told['accuracy'] * count:.1f} times the chance of one in {count} permutations. "
        "Rule: holds if the whole 95 % interval reaches it, fails if none of it does.",
    }


def _grid(network: Trained, still: Mapping[str, Any], moved: Mapping[str, Any]) -> dict[str, Any]:
    """Whether a jigsaw without augmentation reads the blocks of JPEG instead of what is in the image."""
    return {
        "text": f"Without augmentation the jigsaw ({network.part.data}) solves images, and not the grid of their JPEG "
        "blocks",
        "verdict": HOLDS if moved["high"] >= still["low"] else FAILS,
        "evidence": f"{100 * still['accuracy']:.1f} % of {still['count']} test images as they are, "
        f"{100 * moved['accuracy']:.1f} % [{100 * moved['low']:.1f}, {100 * moved['high']:.1f}] of the same moved by "
        f"{BLOCK // 2} pixels each way, half a block. Rule: holds if the two intervals meet, else fails.",
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
