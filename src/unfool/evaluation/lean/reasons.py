"""Whether a lean attack may be believed: the flags of a model that call for AutoAttack."""

from __future__ import annotations

from unfool.evaluation.crafting.adversarial_set import AdversarialSet
from unfool.evaluation.results.reliability import ATTACK_CHECKS, Reliability

MASKING = {
    "randomised-output": "the model is random",
    "batch-dependence": "its predictions depend on batch-mates",
    "dynamic-inference": "it computes gradients as it predicts",
    "probabilities": "it gives probabilities, whose gradients vanish",
    **dict.fromkeys(ATTACK_CHECKS, ""),
}
"""The flags that call for AutoAttack, in few words where their sentence is advice; others are no sign of masking."""


def reasons(report: Reliability, examples: AdversarialSet, standing: int) -> list[str]:
    """Why AutoAttack must follow, one phrase each; none where the checks found nothing."""
    phrases: list[str] = []
    for flag in report.flags:
        if flag.name in MASKING:
            share = f" on {len(flag.images)} images" if flag.images else ""
            phrases.append(MASKING[flag.name] or f"{flag.name}{share}")
    if "black-box-wins" not in report.checked:
        phrases.append("too few images are classified correctly for the checks")
    flat = int(examples.zero_gradient.sum())
    if flat and not any(flag.name == "vanishing-gradients" for flag in report.flags):
        phrases.append(f"{flat} of the {standing} images that stood have no gradient")
    return phrases
