"""The source's own claims of system D: its table as it measured it, and its three arguments on inpainting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unfool.studies.auxiliary_measures import CLEAN, Judged
from unfool.studies.auxiliary_networks import Trained, who
from unfool.studies.auxiliary_scales import (
    ADVERSARIAL_ALONE,
    INPAINTING,
    L2_ALONE,
    MASKS,
    SEVERAL,
    SOURCE,
    SOURCE_DATA,
)
from unfool.studies.claims import ABOVE_ZERO, Gain, above, claim, gain, seed_error
from unfool.studies.recipes import NORMAL
from unfool.training.regimes import CLASSIFIER_FIRST, JOINT

Fillings = Mapping[Trained, Mapping[str, Sequence[Mapping[str, float]]]]
"""What was measured of the fillings of each network, as trained and with each variant of the loss, part by part."""


def of_the_source(judged: Sequence[Judged]) -> list[dict[str, Any]]:
    """The source's table, as it measured it: what its reversal costs and gains, and which regime is more robust."""
    found, bare = [], {}
    for one in judged:
        network, reversal = one.network, one.reversal
        if (network.part.data, network.base) != (SOURCE_DATA, NORMAL) or network.task not in ("", INPAINTING):
            continue
        if reversal is None:
            bare[network.regime] = one
        elif reversal.task == INPAINTING and not reversal.variant:
            for attack, change in _changes(one, bare[network.regime]).items():
                found.append(_as_the_source(network, attack, change))
    if len(bare) == 2:
        first, joint = (bare[regime].records["fgsm"] for regime in (CLASSIFIER_FIRST, JOINT))
        claimed = (SOURCE[CLASSIFIER_FIRST]["fgsm"][0] - SOURCE[JOINT]["fgsm"][0]) / 100
        text = "A classifier that was trained first is more robust than one that learnt inpainting jointly (FGSM)"
        found.append(claim(text, gain([first], [joint]), claimed, "classifier first minus joint"))
    return found


def _changes(ours: Judged, theirs: Judged) -> dict[str, Gain]:
    """What a system gains over another by each attack of the source, none of them first."""
    return {name: gain([ours.records[name]], [theirs.records[name]]) for name in SOURCE[JOINT]}


def _as_the_source(network: Trained, attack: str, found: Gain) -> dict[str, Any]:
    """What the reversal does as the source measured it, on examples of the bare network."""
    where = "on clean images" if attack == CLEAN else f"under {attack}, replayed"
    told = SOURCE[network.regime].get(attack)
    words = f"Reversing down inpainting ({who(network)}) {{}} the accuracy {where}"
    if told is None:
        return {
            "text": f"{words.format('raises')}: the row that the source leaves out",
            "verdict": found.above(),
            "evidence": f"With the reversal minus without: {found.words(_SAME)}. {ABOVE_ZERO}",
        }
    claimed = (told[1] - told[0]) / 100
    text = f"{words.format('raises' if claimed > 0 else 'lowers')} (source: {100 * claimed:+.2f} points)"
    if claimed > 0:
        return claim(text, found, claimed, "With the reversal minus without", _SAME)
    turned = Gain(mean=-found.mean, low=-found.high, high=-found.low, seeds=found.seeds)
    return claim(text, turned, -claimed, "Loss, without the reversal minus with it", _SAME)


_SAME = "on the same network"


def arguments(judged: Sequence[Judged], fillings: Fillings) -> list[dict[str, Any]]:
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
        found.append(_masks(reversed_[""], reversed_[SEVERAL]))
    return found


def _masks(one: Judged, several: Judged) -> dict[str, Any]:
    """The source has one mask, and says that several would do worse."""
    changes = _changes(one, several)
    weak, strong = changes["fgsm"], changes["pgd-2"]
    cosines = [judged.audit["cosine"][0] for judged in (one, several) if judged.audit is not None]
    told = "Cosine of the gradients {:+.3f} with one, {:+.3f} with several. ".format(*cosines) if cosines[1:] else ""
    return {
        "text": "One mask reverses better than several (pgd-2, replayed)",
        "verdict": strong.above(),
        "evidence": f"One centred mask minus {MASKS} drawn ones, so that places change too: {strong.words(_SAME)}; "
        f"under fgsm {weak.words(_SAME)}. {told}{ABOVE_ZERO}",
    }


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
    return {
        "text": text,
        "verdict": above(mean - error, mean + error),
        "evidence": f"{what.capitalize()}: {np.mean(ours):.3f} with both losses, {np.mean(theirs):.3f} with the one "
        f"alone, difference {mean:+.3f} [{mean - error:+.3f}, {mean + error:+.3f}] over {len(ours)} parts of the test "
        f"split, between these two decoders on one frozen trunk (one training seed). {ABOVE_ZERO}",
    }
