"""The steps that may follow lean's gradient runs. Each is a function of the run and of how far it has come.

Legend: n images that stand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch

from unfool.attacks import CWPGD, Attack, AutoAttack, CustomAttack
from unfool.attacks.ensemble import Part
from unfool.attacks.lean.attack import Lean
from unfool.attacks.proxy import SurrogateSettings
from unfool.core.streams import Streams
from unfool.evaluation.lean.checks import shown
from unfool.evaluation.lean.replay import OnModelAlone
from unfool.evaluation.lean.run import LeanRun, Reached
from unfool.evaluation.reliability.evidence import Example
from unfool.evaluation.reliability.flags import too_many
from unfool.evaluation.reliability.over_draws import DRAWS

SKIPPED_PARTS = ("fab-t", "square")
"""AutoAttack's parts that attack a sample first."""
JOINT_STEPS = 100
"""Steps of the attack on whole batches."""


def checked(run: LeanRun, reached: Reached, examples: Mapping[int, Example]) -> Reached:
    """The examples that the checks ended with, of the images that stand."""
    ids = run.table.ids[reached.standing]
    rows = reached.standing[torch.isin(ids, torch.tensor(list(examples), dtype=torch.int64))]
    if not len(rows):
        return reached
    after = run.after(reached, "checks", rows, with_success_passes(run, shown(run.attack, examples)))
    fell = len(reached.standing) - len(after.standing)
    return replace(after, outcome=replace(after.outcome, fell_to_checks=fell))


def joint(run: LeanRun, reached: Reached, why: Sequence[str]) -> Reached:
    """One attack on whole batches of a model whose predictions depend on batch-mates: who is fooled is still a mate."""
    threat = run.attack.threat
    steps = CWPGD(threat, steps=JOINT_STEPS, step_size=threat.eps / 10, random_start=False, goal="last")
    attack = OnModelAlone(threat, label="joint", components=steps.parts, details=steps.settings)
    after = run.after_joint(reached, "joint", attack)
    return after.noted("one attack on whole batches, which no image leaves", reached, why, random=False)


def through(run: LeanRun, reached: Reached, search: SurrogateSettings) -> Reached:
    """Lean's own parts and AutoAttack's gradient attacks, with restarts, on a surrogate's gradients, on what stands."""
    attack, rows = run.attack, reached.standing
    whole = AutoAttack(attack.threat, version="plus")
    following = CustomAttack(
        attack.threat,
        label=f"{whole.name}-{search.name}",
        components=(*attack.parts, *(part for part in whole.parts if _searches(part))),
        details={"search": search.name},
        eot_draws=attack.eot_draws,
    )
    after = run.after(reached, search.name, rows, with_success_passes(run, following), search) if len(rows) else reached
    return after.noted(search.words, reached, (search.why,), random=run.random)


def autoattack(run: LeanRun, reached: Reached, why: Sequence[str], search: SurrogateSettings | None = None) -> Reached:
    """All of AutoAttack on the images that stand; on a random model the version for those first, which may follow a
    surrogate's gradients."""
    threat, queries, draws = run.attack.threat, run.attack.queries, run.attack.eot_draws
    after = replace(reached, outcome=replace(reached.outcome, complete=True))
    if not len(reached.standing):
        return after
    if run.random:
        rows = after.standing
        averaged = with_success_passes(run, AutoAttack(threat, version="rand"))
        after = run.after(after, "rand", rows, averaged, search)
    if len(after.standing):
        rows, whole = after.standing, AutoAttack(threat, queries=queries, eot_draws=draws)
        after = run.after(after, "autoattack", rows, with_success_passes(run, whole))
    return after.noted("AutoAttack", reached, why, random=run.random)


def sample(run: LeanRun, reached: Reached, streams: Streams) -> Reached:
    """FAB-T and Square on a sample of the images that stand, and on the others if one of it falls; on all of them if
    one fell to a step before, which lean's own runs had left standing."""
    attack, standing = run.attack, reached.standing
    share = 1.0 if reached.outcome.fell else attack.share
    count = min(len(standing), max(attack.fewest, math.ceil(share * len(standing))))
    order = streams.named("sample").uniform(run.table.ids[standing]).argsort(stable=True)
    first, others = standing[order[:count].sort().values], standing[order[count:].sort().values]
    after = replace(reached, outcome=replace(reached.outcome, sampled=count))
    if not count:
        return after
    after = run.after(after, "sample", first, with_success_passes(run, _skipped(attack)))
    fell = len(standing) - len(after.standing)
    after = replace(after, outcome=replace(after.outcome, fell_in_sample=fell))
    if not fell:
        return after
    if len(others):
        after = run.after(after, "rest", others, with_success_passes(run, _skipped(attack)))
    fell = len(standing) - len(after.standing)
    if not too_many(fell, after.outcome.standing):
        return after
    reason = f"FAB-T and Square fooled {fell} of {after.outcome.standing} images that gradients left standing"
    return autoattack(run, after, (reason,))


def with_success_passes(run: LeanRun, attack: Attack) -> Attack:
    """The attack; a random model is fooled only where as many passes in a row are wrong as it is judged over."""
    return confirmed_over_draws(attack) if run.random else attack


def confirmed_over_draws(attack: Attack) -> Attack:
    """The attack, which takes an image for fooled only where as many passes in a row are wrong as a random model is
    judged over."""
    # What asks the model alone goes on to do so.
    kind = OnModelAlone if isinstance(attack, OnModelAlone) else CustomAttack
    return kind(
        attack.threat,
        label=attack.name,
        components=attack.parts,
        details={**attack.settings, "success_passes": DRAWS},
        eot_draws=attack.averaged_passes,
        success_passes=DRAWS,
    )


def _searches(part: Part) -> bool:
    """Whether a part follows a surrogate's gradients; FAB without a target costs most and adds least to FAB-T."""
    return part.follows_gradients and part.name != "fab"


def _skipped(attack: Lean) -> Attack:
    """AutoAttack's parts beside those that follow gradients as lean does."""
    whole = AutoAttack(attack.threat, queries=attack.queries)
    return CustomAttack(
        attack.threat,
        label=f"{attack.name}-sample",
        components=tuple(part for part in whole.parts if part.name in SKIPPED_PARTS),
        details={"queries": attack.queries},
        eot_draws=attack.eot_draws,
    )
