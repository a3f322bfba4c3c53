"""Whether a lean attack may be believed: the checks of a model whose flags call for AutoAttack."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from unfool.attacks.lean.attack import Lean
from unfool.core.borders.json_text import read_object
from unfool.core.borders.reading import is_file
from unfool.core.files import write_json
from unfool.core.processes import rank_and_world_size
from unfool.core.progress import Progress
from unfool.data.table import Table
from unfool.evaluation.crafting.adversarial_set import AdversarialSet
from unfool.evaluation.reliability.report import reliability
from unfool.evaluation.results.reliability import ATTACK_CHECKS, Reliability

IMAGES = 32
"""Correctly classified images that are looked at: half of what the reliability report takes, at half of its cost."""
MASKING = {
    "randomised-output": "the model is random",
    "batch-dependence": "its predictions depend on batch-mates",
    "dynamic-inference": "it computes gradients as it predicts",
    "probabilities": "it gives probabilities, whose gradients vanish",
    **dict.fromkeys(ATTACK_CHECKS, ""),
}
"""The flags that call for AutoAttack, in few words where their sentence is advice; others are no sign of masking."""


def checks(
    model: nn.Module,
    table: Table,
    attack: Lean,
    column: str | None,
    examples: AdversarialSet,
    seed: int,
    folder: Path | None,
    progress: Progress,
) -> Reliability:
    """The reliability report on a few images, beside what the lean attack fooled; a folder keeps it."""
    path = folder / "checks.json" if folder is not None else None
    if path is not None and is_file(path):
        return Reliability.from_json(read_object(path, "remove the folder"))
    report = reliability(
        model,
        table,
        threat=attack.threat,
        column=column,
        attacks=(attack,),
        sets=(examples,),
        images=IMAGES,
        seed=seed,
        progress=progress,
    )
    if path is not None and rank_and_world_size()[0] == 0:
        write_json(path, report.to_json())
    return report


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
