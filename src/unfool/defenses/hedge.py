"""Hedging: move an image to where its network is surer of some class, without a label, and classify what comes out.

Wu et al., "Attacking Adversarial Attacks as A Defense", 2021 (Hedge Defense): climb the sum over all classes of the
cross-entropy. It needs no head and no training, and is reported to gain nothing against attackers who know it (Croce et
al., ICML 2022). Departure: the draw of the start belongs to the defense's seed and to each image.

Legend: B images, K classes.
"""

from __future__ import annotations

from pydantic import Field
from torch import Tensor, nn

from unfool.core.config import configured
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.defenses.registry import DEFENSES, DefenseRequest
from unfool.defenses.reversal.descent import PretextDescent
from unfool.defenses.reverse_settings import Start, StepSize
from unfool.models.modes import frozen_eval
from unfool.tasks.base import at_least_fp32


class Doubt(nn.Module):
    """How unsure a network is of all classes together: the sum of their log-probabilities, highest where all are alike.

    It is minus the sum of the cross-entropies to each class. A pretext loss: (B, C, H, W) → (B,), without labels.
    """

    images_per_loss = 1

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor, ids: Tensor, streams: Streams) -> Tensor:
        """The losses; nothing is drawn."""
        with frozen_eval(self.network):
            return at_least_fp32(self.network(images)).log_softmax(1).sum(1)


class Hedge(PretextDescent):
    """Climb the cross-entropy to all classes at once inside a ball around the image, then classify (Wu et al., 2021).

    x ← project(x + step_size · steepest(∇ Σ_k CE(f(x), k))), from a random point of the ball. An attacked image is
    said to lie where that sum is steep, so that it moves further than a clean one. Any classifier will do: no pretext
    head is needed.

    Called as a module on images (B, C, H, W) in [0,1] it gives logits (B, K).

    Args:
        network: The classifier.
        threat: The ball in which an image is moved, such as ``Linf(8/255)``; also as text, ``"linf:8/255"``.
        steps: Gradient steps.
        step_size: The length of a step in the ball's norm, in pixel units. Default: a quarter of eps.
        start: ``"random"``, a uniform draw in the ball, or ``"image"``, the image itself.
        seed: The seed of the start.

    Raises:
        SpecError: For a setting that is not allowed.

    Example:
        >>> import torch
        >>> from unfool import Linf, defenses
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10))
        >>> defense = defenses.Hedge(network, threat=Linf(8/255), steps=2)
        >>> defense
        Hedge(Sequential, linf:8/255, steps=2)
        >>> defense(torch.full((2, 3, 8, 8), 0.5)).shape
        torch.Size([2, 10])
    """

    redraw = False
    purpose = "hedge"

    def __init__(
        self,
        network: nn.Module,
        *,
        threat: ThreatModel | str = "linf:8/255",
        steps: int = 20,
        step_size: float | None = None,
        start: Start = "random",
        seed: int = 0,
    ):
        ball = ThreatModel.parse(threat) if isinstance(threat, str) else threat
        checked = HedgeSettings(steps=steps, step_size=ball.eps / 4 if step_size is None else step_size, start=start)
        super().__init__(
            network,
            threat=ball,
            steps=checked.steps,
            step_size=checked.step_size or 0.0,
            start=checked.start,
            seed=seed,
        )

    @property
    def pretext(self) -> Doubt:
        """What it descends: how unsure the network is."""
        return Doubt(self.network)

    def __repr__(self) -> str:
        return f"Hedge({type(self.network).__name__}, {self.threat}, steps={self.steps})"


@configured
class HedgeSettings:
    """What `Hedge` takes, as text can say it; ``eps`` belongs to ``norm``."""

    norm: str = "linf"
    eps: str | float = "8/255"
    steps: int = Field(default=20, ge=0)
    step_size: StepSize | None = None
    start: Start = "random"


@DEFENSES.add("hedge")
def make_hedge(request: DefenseRequest) -> Hedge:
    """The network's own doubt, moved down before it classifies; any classifier will do."""
    settings = request.settings(HedgeSettings)
    return Hedge(
        request.network,
        threat=ThreatModel.parse(f"{settings.norm}:{settings.eps}"),
        steps=settings.steps,
        step_size=settings.step_size,
        start=settings.start,
        seed=request.streams.seed,
    )
