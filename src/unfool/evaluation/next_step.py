"""What to do after an evaluation: harden what is weak, attack what is doubted harder, attack a defense as a whole.

A classifier is weak where its accuracy under attack is less than `GOOD_SHARE` of its accuracy on clean images. Where it
was not attacked itself, and examples of other systems do not show it to be weak, the step is to attack. A doubted
accuracy is attacked harder before anything else, with the attack that the reasons for doubt name. Nothing is said of a
black box, which cannot be trained here, nor where the reliability report doubts how the classifier was opened (its
accuracy is at chance, its normalisation is missing): that comes first, and the report says what to do.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from unfool.evaluation.records import CLEAN, OWN, SCORE_BASED
from unfool.evaluation.results.rows import SCORES_MARK, Row

GOOD_SHARE = 0.5
"""Share of the clean accuracy that a classifier keeps under attack from which on it is not weak."""

SPARSE = ("sigma-zero", "square")
"""The attacks to run in l0, where AutoAttack and the binarization test have no form."""

RANDOM = "autoattack:version=rand"
"""The attack on a model that is random."""

Action = Literal["harden", "autoattack", "random-autoattack", "lean", "sparse-attacks", "binarization-test", "ladder"]
_ATTACKS: Mapping[str, tuple[str, ...]] = {
    "autoattack": ("autoattack",),
    "random-autoattack": (RANDOM,),
    "lean": ("lean",),
    "sparse-attacks": SPARSE,
    "binarization-test": ("autoattack",),
}
"""The attacks of each action that attacks."""
_BLOCKED = frozenset({"blocked-gradients", "wrong-gradients"})
"""Checks whose doubt `lean` answers: it passes the gradient straight through what blocks it."""
_MISTAKEN = frozenset({"chance", "missing-normalisation", "probabilities"})
"""Checks whose doubt is about how the classifier was opened: that comes first."""
_EVALUATE = 'unfool.evaluate(model, test_images, "{}", settings=unfool.EvaluationSettings(threat="{{}}"))'
_CALLS = {
    "autoattack": _EVALUATE.format("autoattack"),
    "random-autoattack": _EVALUATE.format(RANDOM),
    "lean": _EVALUATE.format("lean"),
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
        action: What it does: ``harden``, evaluate with ``autoattack``, in l0 with ``sparse-attacks``, a random model
            with ``random-autoattack``, one that blocks gradients with ``lean``, with the ``binarization-test``, or
            attack a defense by the adaptive ``ladder``.
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

    @property
    def attacks(self) -> tuple[str, ...]:
        """Names of the attacks to run, as the command line takes them; none for hardening and for the ladder."""
        return _ATTACKS.get(self.action, ())

    def __str__(self) -> str:
        return _CALLS[self.action].format(self.threat)


def strongest_attacks(threat: str) -> tuple[str, ...]:
    """Names of the attacks by which a threat model, as text, is judged last."""
    return SPARSE if threat.startswith("l0:") else ("autoattack",)


def is_weak(clean: float, attacked: float) -> bool:
    """Whether an accuracy under attack is too small a share of that on clean images."""
    return attacked < GOOD_SHARE * clean


def step_after(
    rows: Sequence[Row],
    *,
    doubted: Collection[str] = (),
    tested: bool = False,
    defended: bool = False,
    black_box: bool = False,
) -> NextStep | None:
    """What to do after an evaluation with these rows.

    ``doubted`` names the checks that raised doubt; ``tested`` and ``defended`` say whether there was a binarization
    test, and whether a defense stands before the classifier; ``black_box`` that it gives no gradient. None where all is
    well, where the classifier cannot be trained, or where nothing was evaluated on clean images.
    """
    clean = next((row for row in rows if row.protocol == CLEAN and row.attack == "none"), None)
    attacked = [row for row in rows if row.protocol != CLEAN]
    if clean is None or _MISTAKEN & set(doubted) or black_box or any(map(_of_black_box, attacked)):
        return None
    worst = min([row for row in attacked if row.threat == clean.threat] or attacked or [clean], key=_accuracy)
    threat = worst.threat or ""
    weak = bool(attacked) and is_weak(clean.accuracy, worst.accuracy)
    if "dynamic-inference" in doubted or (defended and (doubted or not weak)):
        return NextStep(action="ladder", threat=threat)
    harder = _harder(threat, doubted)
    own = [row for row in attacked if row.protocol in OWN]
    if (doubted or not (own or weak)) and not _was_run(harder, own):
        return NextStep(action=harder, threat=threat)
    if weak:
        return NextStep(action="harden", threat=threat)
    untested = bool(doubted) and harder == "autoattack" and not tested
    return NextStep(action="binarization-test", threat=threat) if untested else None


def _harder(threat: str, doubted: Collection[str]) -> Action:
    """The attack that answers the doubts, as the flags of the reliability report name it."""
    if strongest_attacks(threat) == SPARSE:
        return "sparse-attacks"
    if "randomised-output" in doubted:
        return "random-autoattack"
    return "lean" if _BLOCKED & set(doubted) else "autoattack"


def _was_run(action: Action, attacked: Sequence[Row]) -> bool:
    """Whether the attacks of an action are among those of the rows."""
    if action == "random-autoattack":
        averaged = [row for row in attacked if row.settings.get("version") == "rand" or "eot_draws" in row.settings]
        return any(row.attack.startswith("autoattack") for row in averaged)
    return all(any(row.attack.startswith(name) for row in attacked) for name in _ATTACKS[action])


def _accuracy(row: Row) -> float:
    return row.accuracy


def _of_black_box(row: Row) -> bool:
    return row.protocol == SCORE_BASED or (row.judged_on or "").endswith(SCORES_MARK)
