"""Hedging: move an image to where its network is surer of some class, without a label, and classify what comes out.

Wu et al., "Attacking Adversarial Attacks as A Defense", 2021 (Hedge Defense): climb the sum over all classes of the
cross-entropy. It needs no head and no training, and is reported to gain nothing against attackers who know it (Croce et
al., ICML 2022). Departure: the draw of the start belongs to the defense's seed and to each image.

Legend: B images, K classes.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from unfool.attacks.engines.projected_gradient import ProjectedGradient
from unfool.attacks.problem import Goal, Problem
from unfool.core.config import configured
from unfool.core.errors import SpecError
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.defenses.base import Defense, Purified, checked_ids
from unfool.defenses.registry import DEFENSES, DefenseRequest
from unfool.defenses.reverse_settings import Start, StepSize
from unfool.defenses.unroll import unrolled
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


class Hedge(Defense):
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

    exact_gradient = True
    redraw = False

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
        super().__init__()
        self.network = network
        self._threat = ThreatModel.parse(threat) if isinstance(threat, str) else threat
        self.steps = steps
        self.step_size = self._threat.eps / 4 if step_size is None else step_size
        if start not in ("random", "image"):
            raise SpecError(f"start {start!r} is not known; give 'random' or 'image'")
        self.start = start
        self.seed = seed
        # In l2 each step is checkpointed, and its images go through the network once more on the way back.
        self.recomputes = self._threat.norm_name == "l2"
        self._engine("last")

    @property
    def classifier(self) -> nn.Module:
        return self.network

    @property
    def threat(self) -> ThreatModel:
        """The ball in which an image is moved."""
        return self._threat

    @property
    def images_per_prediction(self) -> int:
        """Exact: one image a step, and the classification."""
        return self.steps + 1

    @property
    def pretext(self) -> Doubt:
        """What it descends: how unsure the network is."""
        return Doubt(self.network)

    def purify(self, images: Tensor, ids: Tensor | None = None, streams: Streams | None = None) -> Purified:
        """Hedge images (B, C, H, W) in [0,1], and keep the losses on the way; raises ImagesError for others."""
        return self._hedged(images, checked_ids(images, ids), streams, "last")

    def purified_images(
        self,
        images: Tensor,
        ids: Tensor | None = None,
        streams: Streams | None = None,
        differentiable: bool = False,
    ) -> Tensor:
        """The hedged images, (B, C, H, W)."""
        ids = checked_ids(images, ids)
        if not differentiable:
            return self._hedged(images, ids, streams, "last_unchecked").images
        streams = self._streams(streams)
        return unrolled(self._engine("last"), self.objective(ids, streams), streams, images, ids, "last")

    def _hedged(self, images: Tensor, ids: Tensor, streams: Streams | None, goal: Goal) -> Purified:
        streams = self._streams(streams)
        with torch.inference_mode(False), torch.no_grad():
            origins = images.detach().clone() if images.is_inference() else images.detach()
            objective = self.objective(ids, streams)
            result = self._engine(goal).run(Problem(objective=objective, images=origins, ids=ids, streams=streams))
        losses = torch.stack(objective.path) if objective.path else origins.new_zeros(0, len(origins))
        return Purified(images=result.images, losses=losses, model_images=result.model_images)

    def _streams(self, streams: Streams | None) -> Streams:
        return Streams(self.seed).named("hedge") if streams is None else streams

    def _engine(self, goal: Goal) -> ProjectedGradient:
        return ProjectedGradient(
            threat=self.threat,
            steps=self.steps,
            step_size=self.step_size,
            random_start=self.start == "random",
            uphill=False,
            goal=goal,
        )

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
