"""The lean attack on a table: its own runs, checks, and as much more as these call for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from unfool.attacks.lean.attack import Lean
from unfool.attacks.proxy import SurrogateSettings
from unfool.core.progress import Progress
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.data.table import Table
from unfool.evaluation.classify import classify
from unfool.evaluation.crafting.adversarial_set import AdversarialSet
from unfool.evaluation.crafting.batches import device_of
from unfool.evaluation.crafting.surrogates import bare, pinned, straight_through
from unfool.evaluation.lean.judged import JudgedSet, judged
from unfool.evaluation.lean.outcome import Outcome
from unfool.evaluation.lean.reasons import checks, reasons
from unfool.evaluation.lean.run import CraftOn, LeanRun, Reached
from unfool.evaluation.lean.steps import autoattack, sample, through
from unfool.evaluation.lean.whole import whole_set
from unfool.evaluation.reliability.blocked_gradients import MOST_IMAGES, probed
from unfool.evaluation.reliability.flags import too_many
from unfool.evaluation.results.reliability import Reliability
from unfool.models.surrogates.inner import inner_classifiers
from unfool.models.surrogates.pinned import draws_at_random

SHORT = "short"
"""The folder of the runs that all images get."""


def craft_lean(
    model: nn.Module,
    table: Table,
    attack: Lean,
    craft_on: CraftOn,
    *,
    column: str | None = None,
    seed: int = 0,
    folder: Path | None = None,
    progress: Progress,
) -> AdversarialSet:
    """Attack a table leanly, and with more where there is reason to.

    The gradient runs attack all images. What stands is attacked through a surrogate where the model calls for one: the
    classifier inside it, a gradient passed straight through what masks it, or draws that are pinned. Where a check of
    the model raises a flag, AutoAttack attacks all that stands then; else FAB-T and Square attack a random sample of
    it, and all as soon as one falls; AutoAttack's other parts follow if too many do. The set's settings say what was
    done and left out, under `REMARK`. Raises as `craft`.
    """
    run = LeanRun(model=model, table=table, attack=attack, craft_on=craft_on, folder=folder)
    short = run.crafted(SHORT, table, attack)
    correct = torch.tensor(classify(model, short).correct)
    reached = _after_short(judged(model, short, random=False), correct)
    # A random model is fooled by the luck of one draw, and right in the next.
    lucky = bool((correct & (short.fooled_by_part >= 0)).any())
    if not attack.threat.eps:
        reached = replace(reached, outcome=replace(reached.outcome, harmless=True))
    if not attack.threat.eps or not (len(reached.standing) or lucky):
        return whole_set(run, reached, model_images=len(table))
    report = checks(model, table, attack, column, short, seed, folder, progress)
    cpu_seconds, model_images = report.cost.cpu_seconds or 0.0, len(table) + (report.cost.model_images or 0)
    why = tuple(reasons(report, short, len(reached.standing)))
    few = table.batch(torch.arange(min(MOST_IMAGES, len(table))), device_of(model)).images
    random = any(flag.name == "randomised-output" for flag in report.flags)
    if not random and draws_at_random(model, few):
        random, why = True, (*why, "the model draws random numbers, though its outputs hide them")
    if random:
        run = replace(run, random=True)
        reached = _after_short(judged(model, short, random=True))
    if len(reached.standing):
        masks = _masks(model, few, attack.threat, report, seed, random=random)
        for search in masks.searches:
            reached = through(run, reached, search)
        outcome = reached.outcome
        if not why and too_many(outcome.fell, outcome.standing):
            why = (f"the steps before fooled {outcome.fell} images that the model's own gradients left standing",)
        if why:
            reached = autoattack(run, reached, why, masks.straight)
        else:
            reached = sample(run, reached, Streams(seed).named("lean"))
    return whole_set(run, reached, cpu_seconds, model_images)


def _after_short(short: JudgedSet, correct: Tensor | None = None) -> Reached:
    """Where the gradient runs led: what they did not fool stands, of the images that are ``correct`` as they are."""
    stands = ~short.fell if correct is None else correct & ~short.fell
    standing = stands.nonzero().squeeze(1)
    outcome = Outcome(images=len(short.examples), standing=len(standing))
    return Reached(sets=(short,), standing=standing, outcome=outcome)


@dataclass(frozen=True, kw_only=True)
class _Masks:
    """What a model hides its gradients by: surrogates to search on, and the one that is straight-through."""

    searches: tuple[SurrogateSettings, ...]
    straight: SurrogateSettings | None


def _masks(
    model: nn.Module,
    few: Tensor,
    threat: ThreatModel,
    report: Reliability,
    seed: int,
    *,
    random: bool,
) -> _Masks:
    """What the flags of a model, and a look at what it is made of, call for."""
    flags = {flag.name for flag in report.flags}
    # The report cannot say where too few images are classified correctly; this look takes any.
    look = "blocked-gradients" in flags or "blocked-gradients" not in report.checked
    blocked = probed(model, few, threat, Streams(seed).named("blocked")) if look else None
    inner, straight = inner_classifiers(model, few), None if blocked is None else straight_through(blocked)
    searches = (None if inner is None else bare(inner), pinned(seed, blocked) if random else straight)
    return _Masks(searches=tuple(search for search in searches if search is not None), straight=straight)
