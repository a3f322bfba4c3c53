"""APGD: projected gradient without a step size to choose, on one of three losses."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from unfool.attacks.base import ATTACKS, Attack, Settings
from unfool.attacks.engines.apgd import AutoProjectedGradient
from unfool.attacks.ensemble import Part
from unfool.core.config import configured
from unfool.core.errors import SpecError
from unfool.core.threat import ThreatModel

TARGETS = 9
"""Target classes of the targeted form by default, as published."""

_NAMES = {"ce": "apgd-ce", "dlr": "apgd-dlr", "dlr-targeted": "apgd-t"}


@ATTACKS.add("apgd-t")
@ATTACKS.add("apgd-dlr")
@ATTACKS.add("apgd-ce")
@configured
class APGD(Attack):
    """Auto-PGD: projected gradient with momentum that halves its own step sizes.

    Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks",
    ICML 2020, algorithm 1; in l1 the sparse steps of Croce & Hein, "Mind the box: l1-APGD for sparse adversarial
    attacks on image classifiers", ICML 2021, algorithm 1. The targeted form on the DLR loss is the strongest single
    attack of AutoAttack. As text: ``apgd-ce``, ``apgd-dlr``, ``apgd-t``.

    Departures from the published code: each image draws its start by its own id; an image that is fooled leaves the
    batch at once; a model with too few classes for a DLR loss is attacked on the loss without its denominator.

    Args:
        loss: The loss to climb: ``"ce"``, the cross-entropy; ``"dlr"``, the difference of logits ratio (equation 6);
            ``"dlr-targeted"``, the same towards one target class after another (equation 7).
        steps: Gradient steps in each run.
        restarts: Runs, each from a start of its own; with target classes, for each of them.
        targets: With the targeted loss, how many of the likeliest other classes are targets; default 9.
        wide: Spend the first 60 % of the steps in balls of 3 and 2 eps (2021, section 3.3); default: in l1 only.
        goal: ``"success"``: a fooled image leaves the batch. ``"best"``: go on for the highest loss.

    Raises:
        SpecError: A setting is not allowed, or there are ``targets`` without the targeted loss.

    Example:
        >>> import torch
        >>> from unfool import L2, attacks
        >>> model = torch.nn.Flatten()  # four pixels are four logits
        >>> images = torch.tensor([[[[0.6, 0.5], [0.4, 0.3]]]])
        >>> attack = attacks.APGD(L2(0.2), loss="dlr-targeted", steps=10, targets=2)
        >>> attack
        APGD(l2:0.2, loss='dlr-targeted', steps=10, targets=2)
        >>> attack(model, images, torch.tensor([0])).fooled
        tensor([True])
    """

    loss: Literal["ce", "dlr", "dlr-targeted"] = "ce"
    steps: int = Field(default=100, ge=1)
    restarts: int = Field(default=1, ge=1)
    wide: bool | None = None
    goal: Literal["success", "best"] = "success"
    targets: int | None = Field(default=None, ge=1)

    def __post_init__(self) -> None:
        if self.targets is not None and self.loss != "dlr-targeted":
            raise SpecError(f"targets {self.targets} have no meaning for the loss {self.loss}; use loss='dlr-targeted'")
        super().__post_init__()

    @classmethod
    def preset(cls, name: str, threat: ThreatModel) -> Settings:
        (loss,) = (loss for loss, known in _NAMES.items() if known == name)
        return {"loss": loss} if loss == "dlr-targeted" else {"loss": loss, "targets": None}

    @property
    def registered_name(self) -> str:
        return _NAMES[self.loss]

    @property
    def own_settings(self) -> Settings:
        settings = {"steps": self.steps, "restarts": self.restarts, "wide": self._wide, "goal": self.goal}
        return {**settings, "targets": self._targets} if self._targets else settings

    @property
    def parts(self) -> tuple[Part, ...]:
        engine = AutoProjectedGradient(
            threat=self.threat,
            steps=self.steps,
            restarts=self.restarts,
            targets=self._targets,
            wide=self._wide,
            goal=self.goal,
        )
        return (Part(name=self.name, engine=engine, loss=self.loss),)

    @property
    def _wide(self) -> bool:
        return self.threat.norm_name == "l1" if self.wide is None else self.wide

    @property
    def _targets(self) -> int:
        """How many target classes, 0 for an untargeted loss."""
        return (self.targets or TARGETS) if self.loss == "dlr-targeted" else 0
