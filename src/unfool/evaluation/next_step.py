"""What to do after an evaluation: harden what is weak, attack what is doubted harder, attack a defense as a whole.

A classifier is weak where its accuracy under attack is less than `GOOD_SHARE` of its accuracy on clean images. Nothing
is said of a black box, which cannot be trained here, nor where the reliability report doubts how the classifier was
opened (its accuracy is at chance, its normalisation is missing): that comes first, and the report says what to do.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from unfool.evaluation.records import CLEAN, SCORE_BASED
from unfool.evaluation.results.rows import SCORES_MARK, Row

GOOD_SHARE = 0.5
"""Share of the clean accuracy that a classifier keeps under attack from which on it is not weak."""

SPARSE = ("sigma-zero", "square")
"""The attacks to run in l0, where AutoAttack and the binarization test have no form."""

Action = Literal["harden", "autoattack", "sparse-attacks", "binarization-test", "ladder"]
_MISTAKEN = frozenset({"chance", "missing-normalisation", "probabilities"})
"""Checks whose doubt is about how the classifier was opened: that comes first."""
_CALLS = {
    "autoattack": 'unfool.evaluate(model, test_images, "autoattack", settings=unfool.EvaluationSettings(threat="{}"))',
    "sparse-attacks": f"unfool.evaluate(model, test_images, {[*SPARSE]}, settings=unfool.EvaluationSettings("
    'threat="{}"))',
    "binarization-test": 'unfool.evaluate(model, test_images, "autoattack", settings=unfool.EvaluationSettings('
    'threat="{}", binarization_test=True))',
    "ladder": 'unfool.ladder(defense, test_images, settings=unfool.LadderSettings(threat="{}"))',
    "harden": 'unfool.harden(model, training_images, test_images, "hardened", settings=unfool.HardenSettings('
    'threat="{}"))',
}


@dataclass(frozen=True, kw_only=True)
class NextStep:
    """The one call that an evaluation suggests; as text the call itself.

    Args:
        action: What it does: ``harden``, evaluate with ``autoattack``, in l0 with ``sparse-attacks``, or with the
            ``binarization-test``, or attack a defense by the adaptive ``ladder``.
        threat: The threat model, as text.

    Example:
        >>> from unfool import EvaluationSettings, evaluate
        >>> model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> images = torch.full((4, 3, 4, 4), 0.5)
        >>> settings = EvaluationSettings(threat="linf:2/255", reliability=False)
        >>> evaluate(model, (images, [0, 0, 0, 0]), "fgsm", settings=settings).next_step
        NextStep(action='harden', threat='linf:2/255')
    """

    action: Action
    threat: str

    def __str__(self) -> str:
        return _CALLS[self.action].format(self.threat)


def strongest_attacks(threat: str) -> tuple[str, ...]:
    """Names of the attacks by which a threat model, as text, is judged last."""
    return SPARSE if threat.startswith("l0:") else ("autoattack",)


def is_weak(clean: float, attacked: float) -> bool:
    """Whether an accuracy under attack is too small a share of that on clean images."""
    return attacked < GOOD_SHARE * clean


def step_after(
    rows: Sequence[Row], *, doubted: Collection[str] = (), tested: bool = False, defended: bool = False
) -> NextStep | None:
    """What to do after an evaluation with these rows.

    ``doubted`` names the checks that raised doubt; ``tested`` and ``defended`` say whether there was a binarization
    test, and whether a defense stands before the classifier. None where nothing was attacked, all is well, or the
    classifier cannot be trained.
    """
    clean = next((row for row in rows if row.protocol == CLEAN and row.attack == "none"), None)
    attacked = [row for row in rows if row.protocol != CLEAN]
    if clean is None or not attacked or _MISTAKEN & set(doubted) or any(map(_of_black_box, attacked)):
        return None
    worst = min([row for row in attacked if row.threat == clean.threat] or attacked, key=lambda row: row.accuracy)
    threat = worst.threat or ""
    if is_weak(clean.accuracy, worst.accuracy):
        return NextStep(action="harden", threat=threat)
    if defended:
        return NextStep(action="ladder", threat=threat)
    if not doubted:
        return None
    needed = strongest_attacks(threat)
    if not all(any(row.attack.startswith(name) for row in attacked) for name in needed):
        return NextStep(action="sparse-attacks" if needed == SPARSE else "autoattack", threat=threat)
    if needed == SPARSE:
        return None
    return None if tested else NextStep(action="binarization-test", threat=threat)


def _of_black_box(row: Row) -> bool:
    return row.protocol == SCORE_BASED or (row.judged_on or "").endswith(SCORES_MARK)
