"""AutoAttack: the ensemble that robust accuracies are compared by."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from unfool.attacks.base import ATTACKS, Attack, Settings
from unfool.attacks.engines.apgd import AutoProjectedGradient
from unfool.attacks.engines.fab import FastAdaptiveBoundary
from unfool.attacks.engines.square import SquareSearch
from unfool.attacks.ensemble import Part
from unfool.core.config import configured
from unfool.core.errors import SpecError

ATTACKS.alias("aa", "autoattack")


@ATTACKS.add("autoattack")
@configured
class AutoAttack(Attack):
    """AutoAttack: four to six attacks in order, each on the images that those before it did not fool.

    Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free attacks",
    ICML 2020, with its order, restarts and budgets; in l1 those of "Mind the box", ICML 2021. ``"standard"``: APGD on
    the cross-entropy, targeted APGD on the DLR loss, targeted FAB, Square. ``"plus"``: APGD on the cross-entropy and on
    the DLR loss and FAB, with five restarts each, Square, targeted APGD, targeted FAB. ``"rand"``, for models that are
    random: APGD on both losses, with gradients averaged over several passes.

    Departures from the published code: those of `APGD`, `FAB` and `Square`; and ``drop_hopeless``. A bf16 proxy serves
    FAB, Square and all but the likeliest target of targeted APGD, which rarely win; what they nearly fool they attack
    again in fp32.

    Args:
        version: Which ensemble: ``"standard"``, ``"plus"`` or ``"rand"``.
        steps: Steps of each run of a gradient attack.
        queries: Queries of Square for each image.
        draws: Passes that ``"rand"`` averages each loss and gradient over.
        drop_hopeless: Whether FAB and Square leave an image before their last step where, at twice their pace so far,
            they would still miss: FAB the ball, Square the margin that gradients reached. It saves
            time where many images stand, and is not the published attack any more.
        eot_draws: For a model that is random: passes that each loss and gradient is averaged over (expectation over
            transformation, Athalye et al., ICML 2018). With ``"rand"``, ``draws`` says it, and this stays 1.

    Raises:
        SpecError: A setting is not allowed, or ``eot_draws`` was given beside the draws of ``"rand"``.

    Example:
        >>> import torch
        >>> from unfool import Linf, attacks
        >>> model = torch.nn.Flatten()  # four pixels are four logits
        >>> images = torch.tensor([[[[0.6, 0.5], [0.4, 0.3]], [[0.9, 0.1], [0.1, 0.1]]]]).view(2, 1, 2, 2)
        >>> attack = attacks.AutoAttack(Linf(0.1), steps=5, queries=20)
        >>> attacked = attack(model, images, torch.tensor([0, 0]))
        >>> attacked.fooled
        tensor([ True, False])
        >>> [attack.part_names[part] for part in attacked.fooled_by_part if part >= 0]
        ['apgd-ce']
    """

    version: Literal["standard", "plus", "rand"] = "standard"
    steps: int = Field(default=100, ge=1)
    queries: int = Field(default=5000, ge=1)
    draws: int = Field(default=20, ge=1)
    drop_hopeless: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.version == "rand" and self.eot_draws > 1:
            raise SpecError(
                f"version rand averages each loss and gradient over draws={self.draws}, and eot_draws={self.eot_draws} "
                "was given too; set draws alone"
            )

    @property
    def default_name(self) -> str:
        return self.registered_name

    @property
    def averaged_passes(self) -> int:
        return self.draws if self.version == "rand" else self.eot_draws

    @property
    def own_settings(self) -> Settings:
        settings = super().own_settings
        # The published attack keeps the settings that its records have always had.
        return settings if self.drop_hopeless else {k: v for k, v in settings.items() if k != "drop_hopeless"}

    @property
    def parts(self) -> tuple[Part, ...]:
        sparse = self.threat.norm_name == "l1"
        search = SquareSearch(threat=self.threat, steps=self.queries, drop_hopeless=self.drop_hopeless)
        square = Part(name="square", engine=search, loss="margin", learns_from="scores")
        targets = 5 if sparse and self.version == "standard" else 9
        targeted = self._apgd("apgd-t", "dlr-targeted", targets=targets)
        if self.version == "standard":
            return (self._apgd("apgd-ce", "ce", restarts=5 if sparse else 1), targeted, self._fab("fab-t", 9), square)
        if self.version == "plus":
            return (
                self._apgd("apgd-ce", "ce", restarts=5),
                self._apgd("apgd-dlr", "dlr", restarts=5),
                self._fab("fab", 0, restarts=5),
                square,
                targeted,
                self._fab("fab-t", 9),
            )
        return (self._apgd("apgd-ce", "ce"), self._apgd("apgd-dlr", "dlr"))

    def _apgd(self, name: str, loss: str, restarts: int = 1, targets: int = 0) -> Part:
        wide = self.threat.norm_name == "l1"
        engine = AutoProjectedGradient(
            threat=self.threat, steps=self.steps, restarts=restarts, targets=targets, wide=wide
        )
        return Part(name=name, engine=engine, loss=loss, exact=not targets)

    def _fab(self, name: str, targets: int, restarts: int = 1) -> Part:
        engine = FastAdaptiveBoundary(
            threat=self.threat,
            steps=self.steps,
            targets=targets,
            restarts=restarts,
            drop_hopeless=self.drop_hopeless,
        )
        return Part(name=name, engine=engine, loss="difference" if targets else "margin")
