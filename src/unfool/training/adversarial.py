"""Adversarial training: views moved uphill before a stage learns from them, and what it learns from them.

Batch norm. Examples are crafted in eval mode, on the running statistics, which crafting leaves alone (TRADES' and
MART's authors do so too; Fast AT's craft in train mode). Learning passes are in train mode: a plain stage shows the
moved views alone; TRADES and MART show the clean views in one pass and the moved ones in the next, each normalised by
the statistics of its own batch, and both move the running ones, in this order, as in the authors' code.

Legend: B images, V views of each (N = V·B, view-major).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from unfool.attacks import make_attack
from unfool.attacks.objective import Reading
from unfool.attacks.projected_gradient import ProjectedGradient
from unfool.core.batch import Views
from unfool.core.errors import SpecError
from unfool.core.streams import Streams
from unfool.tasks import Task
from unfool.tasks.robust import Classifies, PairedLoss, divergence, mart, trades
from unfool.training.config import StageConfig

START = 1e-3
"""Deviation, in pixel units, of TRADES' Gaussian start: at the image itself its divergence has no gradient."""

_LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor, float], Tensor]] = {"trades": trades, "mart": mart}

Outputs = Callable[[Mapping[str, Views]], dict[str, Tensor]]
"""One trunk pass over the common images of some tasks' views → features by trunk stage."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """One set of views by task name, as the tasks made them and as they were moved (the same if they were not)."""

    clean: dict[str, Views]
    moved: dict[str, Views]


class Adversary:
    """Moves a stage's views, and gives the losses that are learnt; ``engine`` is None for a stage without ``perturb``.

    ``paired`` tells that the clean views are learnt from too (TRADES, MART). Raises SpecError for a ``perturb`` that
    follows no gradient, and for tasks other than labels where predictions are compared.
    """

    def __init__(self, config: StageConfig, tasks: Mapping[str, Task], weights: Mapping[str, float]):
        self.tasks = tasks
        self.weights = weights
        self.engine = _engine(config)
        self.climbed: PairedLoss | None = None
        self.learnt: PairedLoss | None = None
        self.paired = config.adversarial in _LOSSES
        if self.paired:
            _check_tasks(config, tasks)
            loss, beta = _LOSSES[config.adversarial], config.beta
            self.learnt = lambda clean, moved, targets: loss(clean, moved, targets, beta)
        if config.adversarial == "trades":
            self.climbed = lambda clean, moved, targets: divergence(clean, moved)
            if self.engine is not None and self.engine.restarts > 1:
                raise SpecError(f"trades starts from one point, and {config.perturb!r} has restarts; leave them out")

    def moved(
        self, engine: ProjectedGradient, group: dict[str, Views], outputs: Outputs, ids: Tensor, streams: Streams
    ) -> dict[str, Views]:
        """The group's views, which share their images, moved uphill on its own weighted loss; ids (B,).

        TRADES climbs the divergence from the clean views' predictions, which are computed once. The caller has put the
        network into eval mode and frozen it.
        """
        first = next(iter(group.values()))
        images, count = first.images.detach(), first.count
        # Views of one image draw apart: V views of id i are ids i·V .. i·V + V-1.
        ids = (ids[None, :] * count + torch.arange(count, device=ids.device)[:, None]).reshape(-1)
        draws = streams.named("perturb").named(" + ".join(group))
        clean: dict[str, Tensor] | None = None
        starts: Tensor | None = None
        if self.climbed is not None:
            with torch.no_grad():
                clean = outputs(group)
            noise = draws.named("start").normal(ids, tuple(images.shape[1:]))
            starts = engine.threat.project(images + START * noise, images)

        def objective(images: Tensor, rows: Tensor) -> Reading:
            there = {name: views.with_images(images) for name, views in group.items()}
            found = outputs(there)
            parts = [
                self.weights[name] * self._losses(self.climbed, name, clean, found, views)
                for name, views in there.items()
            ]
            # Each view carries its share of the image's loss, so that the sum over views is the image's.
            return Reading(losses=torch.stack(parts).sum(0).repeat(count) / count)

        points = engine.run(objective, images, ids, draws, starts=starts).images
        return {name: views.with_images(points) for name, views in group.items()}

    def losses(
        self, name: str, clean: Mapping[str, Tensor] | None, moved: Mapping[str, Tensor], views: Views
    ) -> Tensor:
        """A task's losses (B,) from the features of its moved views and, if ``paired``, of the clean ones."""
        return self._losses(self.learnt, name, clean, moved, views)

    def _losses(
        self,
        loss: PairedLoss | None,
        name: str,
        clean: Mapping[str, Tensor] | None,
        moved: Mapping[str, Tensor],
        views: Views,
    ) -> Tensor:
        task = self.tasks[name]
        if loss is None or clean is None or not isinstance(task, Classifies):
            return task.losses(moved[views.stage], views)
        return task.paired_losses(loss, clean[views.stage], moved[views.stage], views)


def _check_tasks(config: StageConfig, tasks: Mapping[str, Task]) -> None:
    for name, task in tasks.items():
        if not isinstance(task, Classifies):
            raise SpecError(
                f"adversarial {config.adversarial!r} compares predictions of classes, and task {name!r} makes none; "
                "give labels tasks only, or adversarial='plain'"
            )


def _engine(config: StageConfig) -> ProjectedGradient | None:
    """The stage's perturbation: an attack's engine whose last iterate is taken without a further look."""
    if config.perturb is None:
        return None
    engine = make_attack(config.perturb, config.threat).engine
    if not isinstance(engine, ProjectedGradient):
        raise SpecError(f"a stage cannot be perturbed by {config.perturb!r}; choose fgsm or pgd")
    return dataclasses.replace(engine, goal="unjudged")
