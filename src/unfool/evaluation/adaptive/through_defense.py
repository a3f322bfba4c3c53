"""Rungs that follow a gradient through the defense: straight through it or its parts, over its draws, or exact.

Legend: B images of the batch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import nn

from unfool.attacks import Attack, CustomAttack
from unfool.attacks.engines.apgd import AutoProjectedGradient
from unfool.attacks.ensemble import Part
from unfool.attacks.objective import LabelLoss
from unfool.attacks.problem import Engine, Perturbed, Problem
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.defenses import Defense, WholeModel
from unfool.defenses.backward import AfterPurification, Bpda, Unrolled
from unfool.evaluation.adaptive.defense_attack import DefenseLabelLoss
from unfool.evaluation.adaptive.ladder_run import LadderRun, WarmStarts
from unfool.evaluation.adaptive.rung import RUNGS, AdaptiveRung, RungContext
from unfool.evaluation.adaptive.settings import LadderSettings
from unfool.models.surrogates.pinned import Pinned

NOT_RANDOM = "the model is not random"


@dataclass(frozen=True, kw_only=True)
class Passes:
    """Forward passes of one defense whose gradients are averaged; the values of the first are the defense's own.

    ``images`` is how many images all of them send through a network for each image of a call.
    """

    models: Sequence[nn.Module]
    images: int


@dataclass(frozen=True, kw_only=True)
class ThroughDefense:
    """APGD on the gradient of some passes through the defense; the defense itself confirms what it claims.

    ``starts`` None draws in the ball.
    """

    engine: AutoProjectedGradient
    passes: Callable[[Streams], Passes]
    starts: WarmStarts | None = None

    @property
    def threat(self) -> ThreatModel:
        """That of APGD."""
        return self.engine.threat

    def run(self, problem: Problem[LabelLoss]) -> Perturbed:
        """Perturb the problem's images; the model of its objective is the defense."""
        objective, starts = problem.objective, problem.starts
        if self.starts is not None:
            starts = self.starts.of(problem.ids, problem.images)
        passes = self.passes(problem.streams.named("redrawn"))
        proxy = DefenseLabelLoss(passes.models, objective.labels, images_per_prediction=passes.images)
        proxy = proxy.with_loss(objective.loss, objective.targets)
        return self.engine.run(replace(problem, starts=starts, proxy_objective=proxy, exact_share=0.0))


def started_twice(
    engine: Engine, starts: WarmStarts, settings: LadderSettings, losses: tuple[str, str], prefix: str = ""
) -> list[Part]:
    """Parts of an attack that start from the static examples and from random points.

    The first loss is climbed from the examples, the second from random points.
    """
    warm: Any = engine
    first = Part(name=f"{prefix}from (a)", engine=replace(warm, starts=starts), loss=losses[0])
    others = [
        Part(name=f"{prefix}random start {restart + 1}", engine=engine, loss=losses[1])
        for restart in range(settings.restarts)
    ]
    return [first, *others]


class GradientRung(AdaptiveRung):
    """APGD through the defense, from the static examples and from random points; a subclass gives the passes."""

    losses: ClassVar[tuple[str, str]] = ("margin", "ce")
    """What is climbed from the static examples, and from random points: the margin does not saturate, the
    cross-entropy minds every class."""

    @abstractmethod
    def passes(self, defense: Defense, streams: Streams, settings: LadderSettings) -> Passes:
        """The passes through the defense that give the gradient; ``streams`` are for fresh draws."""

    def passes_in(self, context: RungContext, streams: Streams) -> Passes:
        """The same, where they follow from a look at the system; by default what `passes` gives."""
        return self.passes(context.defense, streams, context.settings)

    def steps(self, settings: LadderSettings) -> int:
        """Gradient steps of each part."""
        return settings.steps

    def targets(self, settings: LadderSettings) -> int:
        """How many classes are aimed at, one by one, the likeliest first; 0 for an untargeted loss."""
        return 0

    def more_settings(self, settings: LadderSettings) -> dict[str, int]:
        """What the attack's settings hold beside steps, restarts and starts."""
        return {}

    def attack(self, context: RungContext) -> Attack:
        settings = context.settings
        steps = self.steps(settings)
        engine = ThroughDefense(
            engine=AutoProjectedGradient(threat=context.threat, steps=steps, targets=self.targets(settings)),
            passes=lambda streams: self.passes_in(context, streams),
        )
        parts = started_twice(engine, context.starts, settings, self.losses)
        values = {"steps": steps, "restarts": settings.restarts, "starts": context.starts.checksum}
        details = values | self.more_settings(settings)
        return CustomAttack(context.threat, label=self.name, components=tuple(parts), details=details)


@RUNGS.add("bpda")
class StraightThrough(GradientRung):
    """(c) The gradient passed straight through the purification (BPDA, Athalye et al., ICML 2018, section 4.1.2)."""

    key = "c"
    name = "bpda"
    title = "gradient passed straight through (BPDA)"
    without_gradient = "so BPDA is no attack on this defense"

    def unfit(self, defense: Defense) -> str | None:
        return "the model wraps no classifier" if isinstance(defense, WholeModel) and not defense.wraps else None

    def passes(self, defense: Defense, streams: Streams, settings: LadderSettings) -> Passes:
        return Passes(models=[Bpda(defense)], images=defense.images_per_prediction)


@RUNGS.add("bpda-eot")
class EotAttack(GradientRung):
    """(d) The same, averaged over the deployed draws and fresh ones at each step (EOT, Athalye et al., ICML 2018)."""

    key = "d"
    name = "bpda-eot"
    title = "BPDA over redrawn randomness (EOT)"

    def more_settings(self, settings: LadderSettings) -> dict[str, int]:
        return {"draws": settings.draws}

    def unfit_in(self, run: LadderRun) -> str | None:
        return NOT_RANDOM if isinstance(run.declared, WholeModel) and not run.random else None

    def passes(self, defense: Defense, streams: Streams, settings: LadderSettings) -> Passes:
        if isinstance(defense, WholeModel):
            return Passes(models=[defense.module] * settings.draws, images=settings.draws)
        fresh = Bpda(defense, redrawn=streams)
        models = [Bpda(defense), *[fresh] * (settings.draws - 1)]
        return Passes(models=models, images=settings.draws * defense.images_per_prediction)


@RUNGS.add("unrolled")
class UnrolledAttack(GradientRung):
    """(f) The exact gradient: through every step of a reversal, through anything else as autograd takes it."""

    key = "f"
    name = "unrolled"
    title = "exact gradient, unrolled"

    def note(self, defense: Defense) -> str | None:
        if defense.exact_gradient or isinstance(defense, WholeModel):
            return None
        return f"Rung ({self.key}) follows the gradient that autograd gives through the purification, if it gives any."

    def steps(self, settings: LadderSettings) -> int:
        return settings.steps // 2

    def passes(self, defense: Defense, streams: Streams, settings: LadderSettings) -> Passes:
        if isinstance(defense, WholeModel):
            return Passes(models=[defense.module], images=1)
        times = 2 if defense.recomputes else 1
        return Passes(models=[Unrolled(defense)], images=times * defense.images_per_prediction)


@RUNGS.add("straight-through")
class AutomaticBpda(GradientRung):
    """(j) The model's own gradient, passed straight through the parts that a probing found to block it.

    Athalye et al., ICML 2018, section 4.1.2, for a model that does not say which parts those are. Of a defense it
    passes the purification too, as (c) does, and looks for such parts behind it.
    """

    key = "j"
    name = "straight-through"
    title = "gradient passed straight through parts that block it"
    without_gradient = "so nothing leads past what blocks it"

    def unfit_in(self, run: LadderRun) -> str | None:
        if not run.blocked.masked:
            return "no part of the model blocks its gradient"
        return None if run.blocked.can_help else f"no gradient leads past {run.blocked.words}"

    def passes(self, defense: Defense, streams: Streams, settings: LadderSettings) -> Passes:
        return Passes(models=[Bpda(defense)], images=defense.images_per_prediction)

    def passes_in(self, context: RungContext, streams: Streams) -> Passes:
        if context.run is None:
            return self.passes(context.defense, streams, context.settings)
        return Passes(models=[past_what_blocks(context.run)], images=context.defense.images_per_prediction)


@RUNGS.add("fixed-draws")
class FixedDraws(GradientRung):
    """(k) The gradient of one draw of a random model, the same for an image at every step; parts that block it are
    passed straight through. The model confirms each success with draws of its own."""

    key = "k"
    name = "fixed-draws"
    title = "gradient with the draws of each image fixed"

    def unfit_in(self, run: LadderRun) -> str | None:
        return None if run.random else NOT_RANDOM

    def passes(self, defense: Defense, streams: Streams, settings: LadderSettings) -> Passes:
        return Passes(models=[Pinned(Bpda(defense), streams)], images=defense.images_per_prediction)

    def passes_in(self, context: RungContext, streams: Streams) -> Passes:
        if context.run is None:
            return self.passes(context.defense, streams, context.settings)
        model = past_what_blocks(context.run)
        return Passes(models=[Pinned(model, streams)], images=context.defense.images_per_prediction)


def past_what_blocks(run: LadderRun) -> nn.Module:
    """The deployed system with its gradient passed straight through a purification, and through parts that block it."""
    defense, blocked = run.declared, run.blocked
    if isinstance(defense, WholeModel):
        return blocked.surrogate(run.defense) if blocked.can_help else run.defense
    return Bpda(defense, after=blocked.surrogate(AfterPurification(defense)) if blocked.can_help else None)
