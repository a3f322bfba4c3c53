"""N-FGSM: one step from noise larger than the ball, for training; the image may lie outside the ball."""

from __future__ import annotations

import dataclasses

from pydantic import Field

from unfool.attacks.base import ATTACKS, Attack, Settings
from unfool.attacks.engines.projected_gradient import ProjectedGradient
from unfool.attacks.ensemble import Part
from unfool.attacks.pgd import StepSize, filled_step
from unfool.core.config import configured
from unfool.core.threat import ThreatModel


@ATTACKS.add("n-fgsm")
@configured
class NFGSM(Attack):
    """Noisy fast gradient sign method: strong noise, one step from there, and no way back into the ball.

    x' = box(x + η + step_size · sign(∇ loss(x + η))), η uniform in [-noise · eps, noise · eps] (de Jorge et al., "Make
    some noise: reliable and efficient single-step adversarial training", NeurIPS 2022, algorithm 1, with its noise of 2
    and its step of eps; both x + η and x' are clipped to the box [0,1] alone).

    This is what a training stage learns from (``perturb="n-fgsm"``), and why single steps do not overfit
    catastrophically. Departures from the paper: called as an attack it projects x' into the threat model, since nothing
    else would be an adversarial example of it; and in l2 and l1 the sign is that norm's steepest step, the noise a draw
    in its ball.

    Args:
        step_size: Length of the step in pixel units; default: eps.
        noise: Radius of the noise, in eps.

    Example:
        >>> import torch
        >>> from unfool import Linf, attacks
        >>> model = torch.nn.Flatten()  # four pixels are four logits
        >>> images = torch.tensor([[[[0.6, 0.5], [0.4, 0.3]]]])
        >>> bool(attacks.NFGSM(Linf(0.1))(model, images, torch.tensor([0])).distances <= 0.1 + 1e-6)
        True
        >>> attacks.NFGSM(Linf(8/255)).training_engine.start_ball
        Linf(16/255)
    """

    step_size: StepSize | None = None
    noise: float = Field(default=2.0, ge=0, allow_inf_nan=False)

    @property
    def own_settings(self) -> Settings:
        return {**super().own_settings, "step_size": self._step, "steps": 1}

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part(name=self.name, engine=self._engine),)

    @property
    def training_engine(self) -> ProjectedGradient:
        """The paper's: in a ball so wide that noise and step stay inside."""
        return dataclasses.replace(self._engine, threat=self._ball(self.noise * self.threat.eps + self._step))

    @property
    def _engine(self) -> ProjectedGradient:
        return ProjectedGradient(
            threat=self.threat,
            steps=1,
            step_size=self._step,
            random_start=True,
            start_ball=self._ball(self.noise * self.threat.eps),
            goal="last",
        )

    @property
    def _step(self) -> float:
        return filled_step(self.step_size, self.threat, 1.0)

    def _ball(self, eps: float) -> ThreatModel:
        """A ball of the threat model's norm; a linf ball of 1 already holds every image."""
        return ThreatModel(self.threat.norm_name, min(eps, 1.0) if self.threat.norm_name == "linf" else eps)
