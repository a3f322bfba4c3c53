"""A defense that moves an image down a pretext loss, inside a ball, before its network classifies it.

Legend: B images, D descents of each.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from unfool.attacks.engines.projected_gradient import ProjectedGradient
from unfool.attacks.problem import Goal, Problem
from unfool.core.batch import spans_of_mates
from unfool.core.errors import SpecError
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.defenses.base import Defense, Purified, checked_ids
from unfool.defenses.pretext import PretextLoss, PretextObjective
from unfool.defenses.reversal.unroll import unrolled
from unfool.defenses.reverse_settings import Keep, Start


class PretextDescent(Defense):
    """x ← project(x - step_size · steepest(∇ loss(x))), then classify; a subclass defines ``pretext``, the loss.

    Args:
        network: The classifier.
        threat: The ball in which an image is moved.
        steps: Gradient steps.
        step_size: The length of a step in the ball's norm, in pixel units.
        start: ``"random"``, a uniform draw in the ball, or ``"image"``, the image itself.
        keep: The ``"last"`` iterate, or the ``"best"``: that of lowest loss, for one pass more.
        draws: Descents of each image; their logits are averaged.
        seed: The seed of all draws.
    """

    exact_gradient = True
    purpose: ClassVar[str]
    """What names the draws of a seed."""

    def __init__(
        self,
        network: nn.Module,
        *,
        threat: ThreatModel,
        steps: int,
        step_size: float,
        start: Start,
        keep: Keep = "last",
        draws: int = 1,
        seed: int = 0,
    ):
        super().__init__()
        self.network = network
        self._threat = threat
        self.steps = steps
        self.step_size = step_size
        self.start: Start = start
        self.keep: Keep = keep
        self.draws = draws
        self.seed = seed
        # In l2 each step is checkpointed, and its images go through the network once more on the way back.
        self.recomputes = threat.norm_name == "l2"

    @property
    def classifier(self) -> nn.Module:
        return self.network

    @property
    def threat(self) -> ThreatModel:
        """The ball in which an image is moved."""
        return self._threat

    @property
    def descended(self) -> PretextLoss:
        """The pretext loss; SpecError for a subclass that defines none."""
        if self.pretext is None:
            raise SpecError(f"defense {type(self).__name__} has no pretext loss to descend; define pretext")
        return self.pretext

    @property
    def images_per_prediction(self) -> int:
        """Exact: the views of every step, of the last look if the best is kept, and the classification."""
        looks = self.steps + (self.keep == "best")
        return self.draws * (looks * self.descended.images_per_loss + 1)

    def purify(self, images: Tensor, ids: Tensor | None = None, streams: Streams | None = None) -> Purified:
        """Move images (B, C, H, W) in [0,1], and keep the losses on the way; raises ImagesError for others."""
        return self._moved(images, ids, streams, "best" if self.keep == "best" else "last")

    def purified_images(
        self,
        images: Tensor,
        ids: Tensor | None = None,
        streams: Streams | None = None,
        differentiable: bool = False,
    ) -> Tensor:
        """The moved images, (D·B, C, H, W)."""
        if not differentiable:
            return self._moved(images, ids, streams, "best" if self.keep == "best" else "last_unchecked").images
        ids, engine = checked_ids(images, ids), self._engine("last")
        points = [
            unrolled(engine, *self._draw(ids[rows], streams, draw), images[rows], ids[rows], self.keep)
            for draw in range(self.draws)
            for rows in self._batches(images)
        ]
        return torch.cat(points)

    def _batches(self, images: Tensor) -> list[slice]:
        """The rows that are moved together: all of them, or the batches that in-batch negatives belong to."""
        return spans_of_mates(len(images), self.own_batch_size or max(1, len(images)))

    def _draw(self, ids: Tensor, streams: Streams | None, draw: int) -> tuple[PretextObjective, Streams]:
        """The objective of one descent, and the streams of its start."""
        streams = (Streams(self.seed).named(self.purpose) if streams is None else streams).at(draw)
        return self.objective(ids, streams), streams

    def _engine(self, goal: Goal) -> ProjectedGradient:
        return ProjectedGradient(
            threat=self.threat,
            steps=self.steps,
            step_size=self.step_size,
            random_start=self.start == "random",
            uphill=False,
            goal=goal,
        )

    def _moved(self, images: Tensor, ids: Tensor | None, streams: Streams | None, goal: Goal) -> Purified:
        """One run of the engine for each draw and batch; ``last_unchecked`` spares the loss of the last iterate."""
        ids, engine = checked_ids(images, ids), self._engine(goal)
        points, paths, count = list[Tensor](), list[Tensor](), 0
        with torch.inference_mode(False), torch.no_grad():
            origins = images.detach().clone() if images.is_inference() else images.detach()
            for draw in range(self.draws):
                for rows in self._batches(origins):
                    objective, start = self._draw(ids[rows], streams, draw)
                    result = engine.run(
                        Problem(objective=objective, images=origins[rows], ids=ids[rows], streams=start)
                    )
                    points.append(result.images)
                    steps = objective.path
                    paths.append(torch.stack(steps) if steps else origins.new_zeros(0, len(result.images)))
                    count += result.model_images
        return Purified(images=torch.cat(points), losses=torch.cat(paths, 1), model_images=count)
