"""The lean attack: what the gradient attacks of AutoAttack find, in few of its passes."""

from __future__ import annotations

import dataclasses

from pydantic import Field

from unfool.attacks.base import ATTACKS, Attack
from unfool.attacks.engines.apgd import AutoProjectedGradient
from unfool.attacks.ensemble import FINISH, Part
from unfool.attacks.lean.cosine_steps import CosineSteps
from unfool.attacks.problem import Engine
from unfool.core.config import configured

NEAR, EDGE = 0.1, 0.03
"""A near miss lacks at most this share of the rise in margin that the parts before reached; one on the edge this."""
MOST_TARGETS, RESTARTS = 9, 2
"""Near misses are attacked towards all likely classes, from two random points each."""
EDGE_TIMES, EDGE_TARGETS = 5, 3
"""How many times as many steps images on the edge are worth, towards so many classes: they are few."""
L1_TIMES = 4
"""How many times as many steps the targeted runs take in l1, where sparse steps cross the ball slowly."""


@ATTACKS.add("lean")
@configured
class Lean(Attack):
    """Two short attacks without a target, a few targets for what stands, and many for what nearly fell.

    Five parts, each on the images that stand: ``short`` lowers the label's logit and then raises the margin; ``ce``
    climbs the cross-entropy, where lowering that logit first leads astray; ``targets`` does as ``short`` towards the
    classes with the nearest linearised boundaries; ``near`` takes up images that lack less than a tenth of the rise in
    margin that they reached, towards all likely classes, from two starts; ``edge`` those that lack 3 %, with five times
    as many steps. In l1, where twenty steps do not suffice, ``targets`` are runs of `APGD`, four times as long.

    In an evaluation (`evaluate`, `craft`, and ``unfool evaluate`` and ``unfool attack``) AutoAttack's other parts,
    FAB-T and Square, follow on a random ``share`` of the images that still stand, and on all of them as soon as one
    falls. Where a check of the model gives reason for doubt, AutoAttack itself follows.

    Args:
        steps: Steps of each run.
        targets: Target classes of each image that the first run did not fool.
        share: Share of the images that stand which FAB-T and Square attack in an evaluation.
        fewest: How many images these attack at least.
        queries: Queries of Square for each image.

    Example:
        >>> import torch
        >>> from unfool import Linf, attacks
        >>> model = torch.nn.Flatten()  # four pixels are four logits
        >>> images = torch.tensor([[[[0.6, 0.5], [0.4, 0.3]]]])
        >>> attack = attacks.Lean(Linf(0.1))
        >>> attack.part_names
        ['short', 'ce', 'targets', 'near', 'edge', 'finish']
        >>> attack(model, images, torch.tensor([0])).fooled
        tensor([True])
    """

    steps: int = Field(default=20, ge=1)
    targets: int = Field(default=3, ge=1)
    share: float = Field(default=0.05, ge=0, le=1)
    fewest: int = Field(default=4, ge=0)
    queries: int = Field(default=5000, ge=1)

    @property
    def parts(self) -> tuple[Part, ...]:
        targeted: Engine = CosineSteps(threat=self.threat, steps=self.steps, targets=self.targets)
        if self.threat.norm_name == "l1":
            targeted = AutoProjectedGradient(
                threat=self.threat, steps=L1_TIMES * self.steps, targets=self.targets, wide=True
            )
        near = CosineSteps(
            threat=self.threat, steps=self.steps, targets=MOST_TARGETS, restarts=RESTARTS, random_start=True, near=NEAR
        )
        edge = dataclasses.replace(near, steps=EDGE_TIMES * self.steps, targets=EDGE_TARGETS, near=EDGE)
        return (
            Part(name="short", engine=CosineSteps(threat=self.threat, steps=self.steps), loss="margin"),
            Part(name="ce", engine=CosineSteps(threat=self.threat, steps=self.steps, fall=0.0), loss="ce"),
            Part(name="targets", engine=targeted, loss="difference"),
            Part(name="near", engine=near, loss="difference", from_best=True),
            Part(name="edge", engine=edge, loss="difference", from_best=True),
        )

    @property
    def finisher(self) -> Part | None:
        return Part(name=FINISH, engine=CosineSteps(threat=self.threat, steps=self.steps), loss="margin")
