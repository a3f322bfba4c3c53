# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Adversarial training: views perturbed before a stage learns from them, and what it learns from them.

The method says which views are perturbed, what is climbed and what is learnt (`training.adversarial.methods`); by which
statistics each pass normalises stands in `training.norm_policy`.

Legend: B images, V views of each (N = V·B, view-major), M of them perturbed.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from unfool.attacks import make_attack
from unfool.attacks.engines.projected_gradient import ProjectedGradient
from unfool.attacks.objective import ObjectiveValue
from unfool.attacks.problem import Problem
from unfool.core.batch import Views
from unfool.core.errors import SpecError, UnfoolWarning
from unfool.core.streams import Streams
from unfool.core.threat import ThreatLike
from unfool.tasks import Task
from unfool.tasks.paired_losses import Classifies, PairedLoss
from unfool.training.adversarial.methods import ADVERSARIAL_METHODS, LossOfLogits
from unfool.training.norm_policy import Pass

_ROUNDING = 1e-6
"""A sum of steps this little short of eps, as a share of it, reaches it."""

Features = Mapping[str, Tensor]
"""Features of some views by trunk stage."""


class TrunkPass(Protocol):
    """One pass through the trunk, for a purpose: images (N, C, H, W) → features by trunk stage."""

    def __call__(self, images: Tensor, stages: Set[str], purpose: Pass) -> dict[str, Tensor]: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewPair:
    """One set of views by task name, as the tasks gave them and perturbed (the very same if they are not perturbed).

    ``beside_images``: they are tiles, and another task of the stage shows whole images.
    """

    clean: dict[str, Views]
    perturbed: dict[str, Views]
    beside_images: bool = False


class Adversary:
    """Perturbs a stage's views, and gives the losses that are learnt; ``engine`` is None without ``perturb``.

    ``perturbed`` names the tasks whose views are perturbed; the others are those of a `StageConfig`. Raises SpecError
    for a ``perturb`` that follows no gradient, and for perturbed tasks other than labels where predictions are
    compared. Warns of one that starts at the image itself and cannot reach the threat model's edge.
    """

    def __init__(
        self,
        tasks: Mapping[str, Task],
        weights: Mapping[str, float],
        *,
        perturbed: Set[str],
        perturb: str | None,
        threat: ThreatLike,
        adversarial: str,
        beta: float,
        separate: bool,
    ):
        self.tasks = tasks
        self.weights = weights
        self.engine = None if perturb is None else _engine(perturb, threat)
        self.method = ADVERSARIAL_METHODS[adversarial]
        self.separate = separate
        self.climbs = _with_beta(self.method.climbs, beta)
        self.learns = _with_beta(self.method.learns, beta)
        if self.method.labels_only:
            _check_tasks(adversarial, {name: task for name, task in tasks.items() if name in perturbed})

    def perturbed(
        self, engine: ProjectedGradient, group: dict[str, Views], trunk: TrunkPass, ids: Tensor, streams: Streams
    ) -> dict[str, Views]:
        """The group's views, which share their images, perturbed uphill on the loss that is climbed; ids (B,).

        Features of clean views, to compare with or beside the perturbed ones, are computed once. The caller has put the
        network into eval mode and frozen it.
        """
        first, stages = _common(group)
        count = 1 if self.method.perturbs == "first" else first.count
        images, others = first.images.detach().split([len(ids) * count, len(ids) * (first.count - count)])
        # Views of one image draw apart: V views of id i are ids i·V .. i·V + V-1.
        ids = (ids[None, :] * first.count + torch.arange(count, device=ids.device)[:, None]).reshape(-1)
        draws = streams.named("perturb").named(" + ".join(group))
        clean_features: Features | None = None
        other_features: Features | None = None
        starts: Tensor | None = None
        with torch.no_grad():
            if len(others):
                other_features = trunk(others, stages, Pass.CRAFTING_CLEAN)
            if self.climbs is not None:
                clean_features = _joined(trunk(images, stages, Pass.CRAFTING_CLEAN), other_features)
        if self.method.start_deviation:
            noise = draws.named("start").normal(ids, tuple(images.shape[1:]))
            starts = engine.threat.project(images + self.method.start_deviation * noise, images)

        def objective(images: Tensor, rows: Tensor) -> ObjectiveValue:
            every = torch.cat([images, others]) if len(others) else images
            features = _joined(trunk(images, stages, Pass.CRAFTING), other_features)
            parts = [
                self.weights[name] * self._losses(self.climbs, name, clean_features, features, views.with_images(every))
                for name, views in group.items()
            ]
            # Each perturbed view carries its share of the image's loss, so that the sum over them is the image's.
            return ObjectiveValue(losses=torch.stack(parts).sum(0).repeat(count) / count)

        problem = Problem(objective=objective, images=images, ids=ids, streams=draws, starts=starts)
        points = torch.cat([engine.run(problem).images, others])
        return {name: views.with_images(points) for name, views in group.items()}

    def features(self, pair: ViewPair, trunk: TrunkPass) -> tuple[Features | None, Features]:
        """What is learnt from: features of all clean views where the method keeps them, and of the perturbed ones.

        Where only first views are perturbed the latter hold the other views too, which are clean.
        """
        views, stages = _common(pair.perturbed)
        if pair.perturbed is pair.clean:
            return None, trunk(views.images, stages, Pass.TILES if pair.beside_images else Pass.OWN_VIEWS)
        purpose = Pass.TILES if pair.beside_images else Pass.PERTURBED_VIEWS
        clean_purpose = Pass.CLEAN_TILES if pair.beside_images else Pass.CLEAN_VIEWS
        if self.method.keeps_clean:
            clean_features = trunk(_common(pair.clean)[0].images, stages, clean_purpose)
            return clean_features, trunk(views.images, stages, purpose)
        if self.method.perturbs == "all" or not self.separate or views.count == 1:
            return None, trunk(views.images, stages, purpose)
        # Two banks need two passes.
        first, others = views.images.tensor_split([len(views.images) // views.count])
        other_features = trunk(others, stages, clean_purpose)
        return None, _joined(trunk(first, stages, purpose), other_features)

    def losses(self, name: str, clean: Features | None, perturbed: Features, views: Views) -> Tensor:
        """A task's losses (B,) from what `features` gave."""
        if clean is None or self.method.combines is None:
            return self._losses(self.learns, name, clean, perturbed, views)
        task = self.tasks[name]
        # The perturbed views come last: they are what a task that remembers its last losses should remember.
        clean_losses, perturbed_losses = (task.losses(outputs[views.stage], views) for outputs in (clean, perturbed))
        return self.method.combines(clean_losses, perturbed_losses, task.strength)

    def _losses(
        self, loss: PairedLoss | None, name: str, clean: Features | None, perturbed: Features, views: Views
    ) -> Tensor:
        task = self.tasks[name]
        if loss is None or clean is None or not isinstance(task, Classifies):
            return task.losses(perturbed[views.stage], views)
        return task.paired_losses(loss, clean[views.stage], perturbed[views.stage], views)


def _with_beta(loss: LossOfLogits | None, beta: float) -> PairedLoss | None:
    return None if loss is None else lambda clean, perturbed, labels: loss(clean, perturbed, labels, beta)


def _common(group: Mapping[str, Views]) -> tuple[Views, Set[str]]:
    """Views that stand for the group's common images and count, and every trunk stage that the group reads."""
    return next(iter(group.values())), {views.stage for views in group.values()}


def _joined(first: Features, rest: Features | None) -> Features:
    """Features of the first views and of the others, by trunk stage, as those of all."""
    return first if rest is None else {stage: torch.cat([values, rest[stage]]) for stage, values in first.items()}


def _check_tasks(adversarial: str, tasks: Mapping[str, Task]) -> None:
    """SpecError for a perturbed task that predicts no classes."""
    for name, task in tasks.items():
        if not isinstance(task, Classifies):
            raise SpecError(
                f"adversarial {adversarial!r} compares predictions of classes, and task {name!r} makes none; "
                "give labels tasks only, perturbed=false for that one, or adversarial='plain'"
            )


def _engine(perturb: str, threat: ThreatLike) -> ProjectedGradient:
    """The stage's perturbation: an attack's engine whose last iterate is taken without a further look."""
    attack = make_attack(perturb, threat)
    engine = attack.training_engine
    if not isinstance(engine, ProjectedGradient):
        raise SpecError(f"a stage cannot be perturbed by {perturb!r}; choose fgsm, n-fgsm or pgd")
    chosen = {name: value for name, value in attack.unusual_settings.items() if (name, value) != ("goal", "last")}
    unused = [name for name in ("restarts", "eot_draws", "goal") if name in chosen]
    if unused:
        raise SpecError(
            f"perturb {perturb!r} sets {unused[0]}, and training takes the last point of one run on one draw; leave it "
            "out"
        )
    reach, eps = engine.steps * engine.step_size, engine.threat.eps
    if not engine.random_start and reach < eps * (1 - _ROUNDING):
        warnings.warn(
            f"perturb {perturb!r} starts at the image itself, and {engine.steps} steps of {engine.step_size:g} "
            f"go {reach:g} at most, where {threat} allows {eps:g}; take more or longer steps, or a random start",
            UnfoolWarning,
            stacklevel=2,
        )
    return dataclasses.replace(engine, goal="last_unchecked")
