"""Does what an audit finds go with what the reversal gains?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

from unfool.evaluation.adaptive.audit_result import DEFENSE
from unfool.studies.auxiliary_measures import Judged
from unfool.studies.claims import ABOVE_ZERO, above

FEWEST = 6
"""Systems that a rank correlation needs to say anything."""


def replay_gain(one: Judged) -> float:
    """What a reversal gains on the audited examples, which were crafted on the bare network."""
    return math.nan if one.audit is None else one.audit["gains"][DEFENSE]["difference"]


def adaptive_gain(one: Judged) -> float:
    """The worst case of the ladder less the bare network under the yardstick."""
    difference = None if one.ladder is None else one.ladder["ladder"]["difference"]
    return math.nan if difference is None else difference["difference"]


def auroc(one: Judged) -> float:
    """How well the pretext loss tells attacked images from clean ones."""
    return math.nan if one.audit is None else one.audit["auroc"]


def cosine(one: Judged) -> float:
    """How far a step down the pretext loss is one down the class's."""
    return math.nan if one.audit is None else one.audit["cosine"][0]


def foreseen(judged: Sequence[Judged]) -> list[dict[str, Any]]:
    """Whether what an audit says goes with the gain that came, over all systems."""
    audited = [one for one in judged if one.audit is not None and one.ladder is not None]
    found = []
    for words, value in (("sees the attack (AUROC)", auroc), ("points back (cosine of the gradients)", cosine)):
        for came, of in (("replayed examples", replay_gain), ("the adaptive worst case", adaptive_gain)):
            pairs = np.array([(value(one), of(one)) for one in audited if math.isfinite(of(one))])
            if len(pairs) >= FEWEST and all(len(set(column)) > 1 for column in pairs.T):
                found.append(_correlated(f"How well a pretext loss {words} goes with the gain on {came}", pairs))
    return found


def _correlated(text: str, pairs: np.ndarray) -> dict[str, Any]:
    """Spearman's rank correlation with Fisher's interval (its standard error after Bonett & Wright 2000)."""
    rank = float(np.corrcoef(rankdata(pairs[:, 0]), rankdata(pairs[:, 1]))[0, 1])
    spread = 1.96 * math.sqrt((1 + rank**2 / 2) / (len(pairs) - 3))
    centre = math.atanh(min(max(rank, -0.999), 0.999))
    low, high = math.tanh(centre - spread), math.tanh(centre + spread)
    return {
        "text": text,
        "verdict": above(low, high),
        "evidence": f"Spearman's rank correlation {rank:+.2f} [{low:+.2f}, {high:+.2f}] over {len(pairs)} systems, "
        f"some of which share a network; {int((pairs[:, 1] == 0).sum())} of the gains are 0. Audit and gains are of "
        f"the same attacked images. {ABOVE_ZERO}",
    }
