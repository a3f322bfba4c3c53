"""The lean attack on a table: its own runs, checks, and as much more as these call for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from unfool.attacks.lean.attack import Lean
from unfool.attacks.proxy import ProxySettings, SurrogateSettings
from unfool.core.progress import Progress
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.data.table import Table
from unfool.evaluation.crafting.adversarial_set import AdversarialSet
from unfool.evaluation.crafting.batches import BATCH_SIZE, device_of
from unfool.evaluation.crafting.surrogates import bare, pinned, straight_through
from unfool.evaluation.lean.checks import checks
from unfool.evaluation.lean.judged import JudgedSet, judged
from unfool.evaluation.lean.outcome import Outcome
from unfool.evaluation.lean.reasons import MASKING, reasons
from unfool.evaluation.lean.run import CraftOn, LeanRun, Reached
from unfool.evaluation.lean.steps import autoattack, checked, joint, sample, through
from unfool.evaluation.lean.whole import whole_set
from unfool.evaluation.reliability.blocked_gradients import MOST_IMAGES, probed
from unfool.evaluation.reliability.flags import too_many
from unfool.evaluation.results.reliability import Reliability
from unfool.models.surrogates.inner import inner_classifiers
from unfool.models.surrogates.pinned import draws_at_random, draws_stay_fixed

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
    proxy: ProxySettings | None = None,
    batch_size: int = BATCH_SIZE,
    folder: Path | None = None,
    progress: Progress,
) -> AdversarialSet:
    """Attack a table leanly, and with more where there is reason to.

    The gradient runs attack all images. What stands is attacked through a surrogate where the model calls for one: the
    classifier inside it, a gradient passed straight through what masks it, or draws that are pinned; as whole batches,
    where predictions depend on batch-mates. Where a check of the model raises a flag, AutoAttack attacks all that
    stands then; else FAB-T and Square attack a random sample of it, and all as soon as one falls, be it to the checks;
    AutoAttack's other parts follow if too many do. The set's settings say what was done and left out, under `REMARK`.
    The checks search on the faster copy that ``proxy`` makes; ``batch_size`` is that of whoever classifies the set.
    Raises as `craft`.
    """
    run = LeanRun(model=model, table=table, attack=attack, craft_on=craft_on, folder=folder, batch_size=batch_size)
    short = run.crafted(SHORT, table, attack)
    correct = run.right(short)
    reached = _after_short(judged(model, short, random=False), correct)
    # A random model is fooled by the luck of one draw, and right in the next.
    lucky = bool((correct & (short.fooled_by_part >= 0)).any())
    if not attack.threat.eps:
        reached = replace(reached, outcome=replace(reached.outcome, harmless=True))
    if not attack.threat.eps or not (len(reached.standing) or lucky):
        return whole_set(run, reached, model_images=len(table))
    report, examples = checks(model, table, attack, column, short, seed, proxy, folder, progress)
    cpu_seconds, model_images = report.cost.cpu_seconds or 0.0, len(table) + (report.cost.model_images or 0)
    why = tuple(reasons(report, short, len(reached.standing)))
    few = table.batch(torch.arange(min(MOST_IMAGES, len(table))), device_of(model)).images
    flags = {flag.name for flag in report.flags}
    random = "randomised-output" in flags
    if not random and draws_at_random(model, few):
        random, why = True, (*why, "the model draws random numbers, though its outputs hide them")
    if random:
        run = replace(run, random=True)
        reached = _after_short(judged(model, short, random=True))
    elif "batch-dependence" in flags:
        # Images left the runs one by one, so that what fooled there may be right among the mates that it has now.
        run = replace(run, dependent=True)
        reached = replace(
            reached,
            standing=correct.nonzero().squeeze(1),
            outcome=replace(reached.outcome, standing=int(correct.sum())),
            origin=torch.zeros(len(table), dtype=torch.int64),
        )
        reached = joint(run, reached, (MASKING["batch-dependence"],))
    reached = checked(run, reached, examples)
    fell = reached.outcome.fell_to_checks
    if too_many(fell, report.images):
        why = (*why, f"attacks of the checks fooled {fell} images that its own runs left standing")
    if len(reached.standing):
        masks = _masks(model, few, attack.threat, report, seed, random=random)
        for search in masks.searches:
            reached = through(run, reached, search)
        outcome = reached.outcome
        if not why and too_many(outcome.fell, outcome.standing):
            why = (f"the steps before fooled {outcome.fell} images that its own runs left standing",)
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
    searches = (
        None if inner is None else bare(inner),
        pinned(seed, blocked, fixed=draws_stay_fixed(model, few)) if random else straight,
    )
    return _Masks(searches=tuple(search for search in searches if search is not None), straight=straight)
