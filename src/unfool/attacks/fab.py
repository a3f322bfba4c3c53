"""FAB: the nearest adversarial example, rather than any inside the threat model."""

from __future__ import annotations

from pydantic import Field

from unfool.attacks.base import ATTACKS, Attack, Settings
from unfool.attacks.engines.fab import FastAdaptiveBoundary
from unfool.attacks.ensemble import Part
from unfool.core.config import configured
from unfool.core.threat import ThreatModel


@ATTACKS.add("fab-t")
@ATTACKS.add("fab")
@configured
class FAB(Attack):
    """Fast adaptive boundary attack: steps onto the linearised decision boundary, as near to the image as possible.

    Croce & Hein, "Minimally distorted adversarial examples with a fast adaptive boundary attack", ICML 2020,
    algorithm 1. As text ``fab``, with each step to the nearest of all boundaries, and ``fab-t``, towards one target
    class after another.

    Departures from the published code: an image leaves with its first success inside the threat model, as nothing else
    counts there; the point that a run ends with is brought into the ball and checked too; more restarts repeat all
    targets; in linf and l2 some points that can be no success are taken as across the boundary without a look, but not
    in a run that ends near success, which is repeated.

    Args:
        targets: How many target classes, the likeliest first; 0: no targets, but each step to the nearest boundary.
        steps: Steps in each run. Without targets each costs a backward pass for every other class.
        restarts: Runs; those after the first start at a random point half of eps away.

    Example:
        >>> import torch
        >>> from unfool import L2, attacks
        >>> model = torch.nn.Flatten()  # four pixels are four logits
        >>> images = torch.tensor([[[[0.6, 0.5], [0.4, 0.3]]]])
        >>> attack = attacks.FAB(L2(0.2), targets=0, steps=10)
        >>> attack
        FAB(l2:0.2, targets=0, steps=10)
        >>> attack(model, images, torch.tensor([0])).fooled
        tensor([True])
    """

    targets: int = Field(default=9, ge=0)
    steps: int = Field(default=100, ge=1)
    restarts: int = Field(default=1, ge=1)

    @classmethod
    def preset(cls, name: str, threat: ThreatModel) -> Settings:
        return {"targets": 0} if name == "fab" else {}

    @property
    def registered_name(self) -> str:
        return "fab-t" if self.targets else "fab"

    @property
    def own_settings(self) -> Settings:
        settings = {"steps": self.steps, "restarts": self.restarts}
        return {**settings, "targets": self.targets} if self.targets else settings

    @property
    def parts(self) -> tuple[Part, ...]:
        engine = FastAdaptiveBoundary(
            threat=self.threat, steps=self.steps, restarts=self.restarts, targets=self.targets
        )
        return (Part(name=self.name, engine=engine, loss="margin"),)
