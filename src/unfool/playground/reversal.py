"""Move an attacked image down a pretext loss, and hear what the gate says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unfool.core.errors import SpecError
from unfool.core.spec import unknown
from unfool.core.streams import Streams
from unfool.defenses import Defense, Gate, make_defense
from unfool.evaluation.adaptive.purification import purification
from unfool.models.network import Network
from unfool.playground.attack import AttackOutcome
from unfool.playground.systems import PlaygroundSystem, Seen

STEPS = 20
_EPS, _EPS_OF_DIGITS = 16 / 255, 48 / 255
RATE = 0.05
"""How often the gate may stop a clean image."""
_CALIBRATED_ON = 1200


@dataclass(frozen=True, kw_only=True)
class GateWord:
    """What a gate says of two images: their pretext losses, and the threshold above which it acts."""

    clean: float
    attacked: float
    threshold: float

    @property
    def stops_attacked(self) -> bool:
        """Whether it acts on the attacked image."""
        return self.attacked > self.threshold

    @property
    def stops_clean(self) -> bool:
        """Whether it acts on the clean image."""
        return self.clean > self.threshold


@dataclass(frozen=True, kw_only=True, eq=False)
class ReversalOutcome:
    """What a reversal made of an attacked image.

    Args:
        task: The pretext task whose loss it went down.
        reversed: The image, and what the network sees in it.
        losses: The pretext loss before each step and after the last, on the same views.
        gate: What the gate says; None where there are no images to set its threshold on.
    """

    task: str
    reversed: Seen
    losses: Sequence[float]
    gate: GateWord | None


def reversal_of(system: PlaygroundSystem, head: str) -> Defense:
    """The reversal along a head's task, behind a gate where there are images to set its threshold on.

    Raises SpecError for a network without that head, DataError where the task needs images and there are none.
    """
    if not isinstance(system.network, Network) or head not in system.pretext_heads:
        raise unknown(f"pretext head of {system.name}", head, system.pretext_heads)
    eps = _EPS_OF_DIGITS if system.sees_digits else _EPS
    # The same views at every step: the loss that falls is one and the same.
    table, settings = system.calibration, {"task": head, "steps": STEPS, "eps": eps, "redraw": False}
    if table is None:
        return make_defense("reverse", system.network, settings=settings)
    few = table.sample(min(len(table), _CALIBRATED_ON), Streams(0).named("playground"))
    classes = {column: len(names) for column, names in table.classes.items()}
    return make_defense("gate", system.network, classes, data=few, settings={**settings, "rate": RATE})


def reverse_outcomes(defense: Defense, task: str, outcomes: Sequence[AttackOutcome]) -> list[ReversalOutcome]:
    """Reverse the attacked images, and ask the gate about them and about the clean ones."""
    attacked = torch.stack([outcome.attacked.image for outcome in outcomes])
    purified = purification(defense.purifier, attacked)
    if purified.path is None:
        raise SpecError(f"the reversal along {task} keeps no losses; take another task")
    words = _words(defense, torch.stack([outcome.clean.image for outcome in outcomes]), attacked)
    return [
        ReversalOutcome(
            task=task,
            reversed=Seen(image=purified.images[row], probabilities=purified.after[row]),
            losses=purified.path[:, row].tolist(),
            gate=words[row],
        )
        for row in range(len(outcomes))
    ]


def _words(defense: Defense, clean: Tensor, attacked: Tensor) -> list[GateWord] | list[None]:
    if not isinstance(defense, Gate):
        return [None] * len(clean)
    device = next(defense.classifier.parameters()).device
    with torch.no_grad():
        losses = [defense.losses(images.to(device)).tolist() for images in (clean, attacked)]
    return [
        GateWord(clean=each[0], attacked=each[1], threshold=defense.threshold) for each in zip(*losses, strict=True)
    ]
