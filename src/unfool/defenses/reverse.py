"""The reverse attack: move an image down a self-supervised loss, and classify what comes out.

Mao et al., "Adversarial Attacks are Reversible with Natural Supervision", ICCV 2021, algorithm 1. Departures: negatives
come from a fixed bank unless in-batch ones are asked for (then a prediction depends on batch-mates), the draws belong
to the defense and, where the caller names the images, to each image, and one pass carries all views of all images.

Legend: B images, V views, D reversals of each.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unfool.attacks.best_so_far import Goal
from unfool.attacks.problem import Problem
from unfool.attacks.projected_gradient import ProjectedGradient
from unfool.core.errors import SpecError, UnfoolWarning
from unfool.core.spec import unknown
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.data.table import Table
from unfool.defenses.base import DEFENSES, Defense, checked_ids
from unfool.defenses.objective import DefenseAware, TaskObjective
from unfool.defenses.reverse_settings import Keep, Start, bound_task, split_settings, with_preset
from unfool.defenses.twin import twin_of
from unfool.defenses.unroll import unrolled
from unfool.models.fast import PRECISIONS
from unfool.tasks.base import Task


@dataclass(frozen=True, kw_only=True)
class Purified:
    """``images`` (D·B, C, H, W), draw-major; ``losses`` (steps + 1, D·B) of the task on the way, each on its step's
    views; ``model_images`` how many images went through the network for it."""

    images: Tensor
    losses: Tensor
    model_images: int


class Reverse(Defense):
    """Descend the task's loss inside ``threat``, then classify.

    ``start`` is a uniform draw in the ball or the image itself; ``keep`` the last iterate or the one of lowest loss,
    for one pass more; ``draws`` reversals are made and their logits averaged; ``redraw`` draws fresh views at every
    step. The descent runs on a folded copy, in ``precision`` fp32 or bf16; the logits are the network's own. The
    network gives ``features(images, stage)``; the task is bound to it and calibrated. Raises SpecError for a task with
    labels and for settings that are not allowed.
    """

    def __init__(
        self,
        network: nn.Module,
        task: Task,
        *,
        threat: ThreatModel | str = "linf:16/255",
        steps: int = 40,
        step_size: float = 2 / 255,
        start: Start = "random",
        keep: Keep = "last",
        draws: int = 1,
        redraw: bool = True,
        precision: str = "fp32",
        seed: int = 0,
    ):
        super().__init__()
        if task.needs:
            raise SpecError(
                f"task {type(task).__name__} needs the labels {', '.join(task.needs)}, which nobody has at test time; "
                "reverse a task without labels"
            )
        for word, given, allowed in (("start", start, ("random", "image")), ("keep", keep, ("last", "best"))):
            if given not in allowed:
                raise unknown(word, str(given), allowed)
        if precision not in PRECISIONS:
            raise unknown("precision", str(precision), PRECISIONS)
        if draws < 1:
            raise SpecError(f"{draws} draws of a reversal are not allowed; give 1 or more")
        self.network = network
        self.task = task
        self.threat = ThreatModel.parse(threat) if isinstance(threat, str) else threat
        self.steps = steps
        self.step_size = step_size
        self.start: Start = start
        self.keep: Keep = keep
        self.draws = draws
        self.redraw = redraw
        self.precision = precision
        self.seed = seed
        self._engine("last")
        if self.batch_dependent:
            warnings.warn(
                "this reversal takes its negatives from the batch, so its predictions depend on batch-mates; "
                "use negatives=bank for predictions that do not",
                UnfoolWarning,
                stacklevel=2,
            )

    @property
    def classifier(self) -> nn.Module:
        return self.network

    @property
    def batch_dependent(self) -> bool:
        return self.task.coupled

    @property
    def images_per_prediction(self) -> int:
        """Exact: the views of every step, of the last look if the best is kept, and the classification."""
        looks = self.steps + (self.keep == "best")
        return self.draws * (looks * getattr(self.task.settings, "views", 1) + 1)

    def objective(self, ids: Tensor, streams: Streams | None = None) -> TaskObjective:
        """The task's loss on the fast copy, for images with those ids (B,), on the defense's own draws by default."""
        pretext = twin_of(self, self.network, self.task, self.precision)
        return TaskObjective(pretext, ids, (streams or self._streams(0)).named("views"), redraw=self.redraw)

    def purify(self, images: Tensor, ids: Tensor | None = None, streams: Streams | None = None) -> Purified:
        """Reverse images (B, C, H, W) in [0,1], and tell the way; raises ImagesError for others."""
        return self._reversed(images, ids, streams, told=True)

    def shown(
        self, images: Tensor, ids: Tensor | None = None, streams: Streams | None = None, exact: bool = False
    ) -> Tensor:
        """The reversed images, (D·B, C, H, W)."""
        if not exact:
            return self._reversed(images, ids, streams, told=False).images
        ids, engine = checked_ids(images, ids), self._engine("last")
        objectives = (self._draw(ids, streams, draw) for draw in range(self.draws))
        return torch.cat([unrolled(engine, *drawn, images, ids, self.keep) for drawn in objectives])

    def aware(
        self,
        labels: Tensor,
        weight: float,
        loss: str = "ce",
        *,
        model: nn.Module | None = None,
        streams: Streams | None = None,
    ) -> DefenseAware:
        """The label loss less ``weight`` × the task's loss, on views drawn anew at every call."""
        objective = self.objective(torch.zeros_like(labels), streams)
        return DefenseAware(
            model or self.network, labels, lambda images, rows: objective(images, rows).losses, weight, loss
        )

    def _streams(self, draw: int) -> Streams:
        return Streams(self.seed).named("reverse").at(draw)

    def _draw(self, ids: Tensor, streams: Streams | None, draw: int) -> tuple[TaskObjective, Streams]:
        """The objective of one reversal, and the streams of its start."""
        streams = self._streams(draw) if streams is None else streams.at(draw)
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

    def _reversed(self, images: Tensor, ids: Tensor | None, streams: Streams | None, *, told: bool) -> Purified:
        """One run of the engine for each draw; only one that is told of looks at its last iterate."""
        ids = checked_ids(images, ids)
        engine = self._engine("best" if self.keep == "best" else "last" if told else "last_unchecked")
        points, paths, count = [], [], 0
        with torch.inference_mode(False), torch.no_grad():
            origins = images.detach().clone() if images.is_inference() else images.detach()
            for draw in range(self.draws):
                objective, start = self._draw(ids, streams, draw)
                reversal = engine.run(Problem(objective=objective, images=origins, ids=ids, streams=start))
                points.append(reversal.images)
                paths.append(torch.stack(objective.path) if objective.path else origins.new_zeros(0, len(origins)))
                count += reversal.model_images
        return Purified(images=torch.cat(points), losses=torch.cat(paths, 1), model_images=count)


def reverse(
    name: str,
    network: nn.Module,
    classes: Mapping[str, int],
    values: Mapping[str, Any],
    data: Table | None,
    streams: Streams,
) -> Reverse:
    """The reverse attack with a task whose head the network carries."""
    own, others = split_settings(f"defense {name!r}", with_preset(values, network))
    task = bound_task(own, others, network, classes, streams)
    if data is not None:
        task.calibrate(network, data, streams)  # type: ignore[arg-type]
    threat = own.threat
    return Reverse(
        network,
        task,
        threat=threat,
        steps=own.steps,
        step_size=threat.eps / 8 if own.step_size is None else own.step_size,
        start=own.start,
        keep=own.keep,
        draws=own.draws,
        redraw=own.redraw,
        precision=own.precision,
        seed=streams.seed,
    )


DEFENSES.add("reverse")(reverse)
