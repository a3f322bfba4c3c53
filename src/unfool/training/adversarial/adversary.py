"""Adversarial training: views moved uphill before a stage learns from them, and what it learns from them.

Batch norm. Examples are crafted in eval mode, on the running statistics, which crafting leaves alone (TRADES' and
MART's authors do so too; Fast AT's craft in train mode). Learning passes are in train mode: a plain stage shows the
moved views alone; TRADES, MART and the dual stream show the clean views in one pass and the moved ones in the next,
each normalised by the statistics of its own batch, and both move the running ones, in this order, as in the authors'
code. With separate statistics clean views go through batch norms of their own (`clean_norms`), also while examples are
crafted.

What moves of several views: all (plain; of contrast, the adversarial-to-adversarial form of ACL, Jiang et al., "Robust
Pre-Training by Adversarial Contrastive Learning", NeurIPS 2020), the first one (one-view, its adversarial-to-standard
form), or all in one stream beside a clean one (its dual stream, which it keeps).

Legend: B images, V views of each (N = V·B, view-major), M of them moved.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from unfool.attacks import make_attack
from unfool.attacks.objective import ObjectiveValue
from unfool.attacks.problem import Problem
from unfool.attacks.projected_gradient import ProjectedGradient
from unfool.core.batch import Views
from unfool.core.errors import SpecError, UnfoolWarning
from unfool.core.streams import Streams
from unfool.tasks import Task
from unfool.tasks.robust import Classifies, PairedLoss, divergence, mart, trades
from unfool.training.stage_config import StageConfig

START = 1e-3
"""Deviation, in pixel units, of TRADES' Gaussian start: at the image itself its divergence has no gradient."""

_ROUNDING = 1e-6
"""A sum of steps this little short of eps, as a share of it, reaches it."""

_LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor, float], Tensor]] = {"trades": trades, "mart": mart}

_PAIRED = (*_LOSSES, "dual-stream")

REWEIGHTING = 2 / 3
"""DynACL's λ (Luo et al., ICLR 2023): by how much of its own weight the clean loss gives way as augmentation decays."""


class Outputs(Protocol):
    """One trunk pass: images (N, C, H, W) → features by trunk stage; ``clean`` ones perhaps through own batch norms."""

    def __call__(self, images: Tensor, stages: Set[str], *, clean: bool = False) -> dict[str, Tensor]: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewPair:
    """One set of views by task name, as the tasks made them and as they were moved (the very same if they were not)."""

    clean: dict[str, Views]
    moved: dict[str, Views]


class Adversary:
    """Moves a stage's views, and gives the losses that are learnt; ``engine`` is None for a stage without ``perturb``.

    Raises SpecError for a ``perturb`` that follows no gradient, and for perturbed tasks other than labels where
    predictions are compared. Warns of one that starts at the image itself and cannot reach the threat model's edge.
    """

    def __init__(self, config: StageConfig, tasks: Mapping[str, Task], weights: Mapping[str, float]):
        self.tasks = tasks
        self.weights = weights
        self.engine = _engine(config)
        self.climbed: PairedLoss | None = None
        self.learnt: PairedLoss | None = None
        self.one_view = config.adversarial == "one-view"
        self.separate = config.statistics == "separate"
        # The clean views are learnt from too, all of them.
        self.paired = config.adversarial in _PAIRED
        if config.adversarial in _LOSSES:
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

        TRADES climbs the divergence from the clean views' predictions, which are computed once, as the features of
        views that do not move are. The caller has put the network into eval mode and frozen it.
        """
        first, stages = _common(group)
        each = 1 if self.one_view else first.count
        images, still = first.images.detach().split([len(ids) * each, len(ids) * (first.count - each)])
        # Views of one image draw apart: V views of id i are ids i·V .. i·V + V-1.
        ids = (ids[None, :] * first.count + torch.arange(each, device=ids.device)[:, None]).reshape(-1)
        draws = streams.named("perturb").named(" + ".join(group))
        clean: dict[str, Tensor] | None = None
        calm: dict[str, Tensor] | None = None
        starts: Tensor | None = None
        with torch.no_grad():
            if self.climbed is not None:
                clean = outputs(images, stages, clean=True)
            if len(still):
                calm = outputs(still, stages, clean=True)
        if self.climbed is not None:
            noise = draws.named("start").normal(ids, tuple(images.shape[1:]))
            starts = engine.threat.project(images + START * noise, images)

        def objective(images: Tensor, rows: Tensor) -> ObjectiveValue:
            every = torch.cat([images, still])
            there = {name: views.with_images(every) for name, views in group.items()}
            found = _joined(outputs(images, stages), calm)
            parts = [
                self.weights[name] * self._losses(self.climbed, name, clean, found, views)
                for name, views in there.items()
            ]
            # Each moved view carries its share of the image's loss, so that the sum over them is the image's.
            return ObjectiveValue(losses=torch.stack(parts).sum(0).repeat(each) / each)

        problem = Problem(objective=objective, images=images, ids=ids, streams=draws, starts=starts)
        points = torch.cat([engine.run(problem).images, still])
        return {name: views.with_images(points) for name, views in group.items()}

    def features(self, group: ViewPair, outputs: Outputs) -> tuple[dict[str, Tensor] | None, dict[str, Tensor]]:
        """What is learnt from: features of all clean views where the loss looks at them, and of the moved ones.

        Of one-view the latter hold the other views too, which are clean; one pass for each set of statistics.
        """
        moved, stages = _common(group.moved)
        if group.moved is group.clean:
            # Its head will be asked behind the network's own norms, whichever those of other tasks' clean views are.
            return None, outputs(moved.images, stages)
        if self.paired:
            return outputs(_common(group.clean)[0].images, stages, clean=True), outputs(moved.images, stages)
        if not self.separate or moved.count == 1:
            return None, outputs(moved.images, stages)
        one, others = moved.images.tensor_split([len(moved.images) // moved.count])
        calm = outputs(others, stages, clean=True)
        return None, _joined(outputs(one, stages), calm)

    def losses(
        self, name: str, clean: Mapping[str, Tensor] | None, moved: Mapping[str, Tensor], views: Views
    ) -> Tensor:
        """A task's losses (B,) from what `features` gave.

        Those of the dual stream are the mean over its streams. Where the task's augmentation has decayed to a strength
        s, they are weighted as in DynACL: 1 - w and 1 + w with w = `REWEIGHTING` · (1 - s).
        """
        if clean is None or self.learnt is not None:
            return self._losses(self.learnt, name, clean, moved, views)
        task = self.tasks[name]
        shift = REWEIGHTING * (1.0 - task.strength)
        # The moved views come last: they are what a task that remembers its last losses should remember.
        before, after = (task.losses(found[views.stage], views) for found in (clean, moved))
        return ((1.0 - shift) * before + (1.0 + shift) * after) / 2

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


def _common(group: Mapping[str, Views]) -> tuple[Views, Set[str]]:
    """Views that stand for the group's common images and count, and every trunk stage that the group reads."""
    return next(iter(group.values())), {views.stage for views in group.values()}


def _joined(first: dict[str, Tensor], rest: dict[str, Tensor] | None) -> dict[str, Tensor]:
    """Features of the first views and of the others, by trunk stage, as those of all."""
    return first if rest is None else {stage: torch.cat([found, rest[stage]]) for stage, found in first.items()}


def _check_tasks(config: StageConfig, tasks: Mapping[str, Task]) -> None:
    for name, task in tasks.items():
        if config.tasks[name].perturbed and not isinstance(task, Classifies):
            raise SpecError(
                f"adversarial {config.adversarial!r} compares predictions of classes, and task {name!r} makes none; "
                "give labels tasks only, perturbed=false for that one, or adversarial='plain'"
            )


def _engine(config: StageConfig) -> ProjectedGradient | None:
    """The stage's perturbation: an attack's engine whose last iterate is taken without a further look."""
    if config.perturb is None:
        return None
    engine = make_attack(config.perturb, config.threat).engine
    if not isinstance(engine, ProjectedGradient):
        raise SpecError(f"a stage cannot be perturbed by {config.perturb!r}; choose fgsm or pgd")
    reach, eps = engine.steps * engine.step_size, engine.threat.eps
    if not engine.random_start and reach < eps * (1 - _ROUNDING):
        warnings.warn(
            f"perturb {config.perturb!r} starts at the image itself, and {engine.steps} steps of {engine.step_size:g} "
            f"go {reach:g} at most, where {config.threat} allows {eps:g}; take more or longer steps, or a random start",
            UnfoolWarning,
            stacklevel=2,
        )
    return dataclasses.replace(engine, goal="last_unchecked")
