"""The lean attack on a table: its own runs, checks, and as much of AutoAttack as these call for."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from unfool.attacks import Attack, AutoAttack, CustomAttack, SurrogateSettings
from unfool.attacks.lean.attack import Lean
from unfool.core.progress import Progress
from unfool.core.streams import Streams
from unfool.data.table import Table
from unfool.evaluation.classify import classify
from unfool.evaluation.crafting.adversarial_set import AdversarialSet
from unfool.evaluation.crafting.batches import device_of
from unfool.evaluation.crafting.surrogates import straight_through
from unfool.evaluation.lean.outcome import Outcome, Step
from unfool.evaluation.lean.reasons import checks, reasons
from unfool.evaluation.lean.replay import replayed
from unfool.evaluation.records import REMARK
from unfool.evaluation.reliability.blocked_gradients import MOST_IMAGES, probed
from unfool.evaluation.reliability.flags import too_many

SHORT = "short"
"""The folder of the runs that all images get."""
SKIPPED_PARTS = ("fab-t", "square")
"""AutoAttack's parts that attack a sample first."""


class CraftOn(Protocol):
    """Crafts the examples of one attack on a table, in a folder of its own."""

    def __call__(
        self, table: Table, attack: Attack, folder: Path | None, search: SurrogateSettings | None = None, /
    ) -> AdversarialSet: ...


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
    """Attack a table leanly, and with AutoAttack where there is reason to.

    The gradient runs attack all images. Where a check of the model raises a flag, AutoAttack attacks all images that
    stand; else FAB-T and Square attack a random sample of them, and all as soon as one falls; AutoAttack's other parts
    follow if too many do. The set's settings say what was left out, under `REMARK`. Raises as `craft`.
    """
    run = _Escalation(table, attack, craft_on, folder)
    short = run.step(SHORT, table, attack)
    correct = torch.tensor(classify(model, short).correct)
    standing = (correct & (short.fooled_by_part < 0)).nonzero().squeeze(1)
    run.model_images += len(table)
    outcome = Outcome(images=len(table), standing=len(standing))
    if len(standing):
        report = checks(model, table, attack, column, short, seed, folder, progress)
        run.spent(report.cost.cpu_seconds, report.cost.model_images)
        why, flags = tuple(reasons(report, short, len(standing))), {flag.name for flag in report.flags}
        if why:
            if "blocked-gradients" in flags:
                few = table.subset(standing[:MOST_IMAGES]).batch(device=device_of(model)).images
                search = straight_through(probed(model, few, attack.threat, Streams(seed).named("blocked")))
                if search is not None:
                    standing, outcome = run.through(standing, outcome, search)
            outcome = run.autoattack(standing, outcome, why, random="randomised-output" in flags)
        else:
            outcome = run.sample(standing, Streams(seed).named("lean"), outcome)
    return run.result(outcome)


class _Escalation:
    """The steps of one lean attack, each a set of examples in a folder of its own."""

    def __init__(self, table: Table, attack: Lean, craft_on: CraftOn, folder: Path | None):
        self.table = table
        self.attack = attack
        self.craft_on = craft_on
        self.folder = folder
        self.sets: list[AdversarialSet] = []
        self.cpu_seconds = 0.0
        self.model_images = 0

    def spent(self, cpu_seconds: float | None, model_images: int | None) -> None:
        """Add a cost."""
        self.cpu_seconds += cpu_seconds or 0.0
        self.model_images += model_images or 0

    def step(self, name: str, table: Table, attack: Attack, search: SurrogateSettings | None = None) -> AdversarialSet:
        """Attack a table, and keep the set."""
        examples = self.craft_on(table, attack, None if self.folder is None else self.folder / name, search)
        self.spent(examples.cpu_seconds, examples.model_images)
        self.sets.append(examples)
        return examples

    def fallen(self, name: str, rows: Tensor, attack: Attack, search: SurrogateSettings | None = None) -> Tensor:
        """Attack the images ``rows`` (n,) of the table; return the mask (n,) of those that fell."""
        if not len(rows):
            return torch.zeros(0, dtype=torch.bool)
        return self.step(name, self.table.subset(rows), attack, search).fooled_by_part >= 0

    def autoattack(
        self,
        standing: Tensor,
        outcome: Outcome,
        why: tuple[str, ...],
        *,
        random: bool = False,
    ) -> Outcome:
        """All of AutoAttack on the images that stand; on a random model the version for those first."""
        if not len(standing):
            return replace(outcome, complete=True)
        draws, queries = self.attack.eot_draws, self.attack.queries
        fell = torch.zeros(len(standing), dtype=torch.bool)
        if random:
            fell = self.fallen("rand", standing, AutoAttack(self.attack.threat, version="rand"))
        whole = AutoAttack(self.attack.threat, queries=queries, eot_draws=draws)
        left = (~fell).nonzero().squeeze(1)
        fell[left] = self.fallen("autoattack", standing[left], whole)
        return self.noted("AutoAttack", fell, why, replace(outcome, complete=True))

    def through(self, standing: Tensor, outcome: Outcome, search: SurrogateSettings) -> tuple[Tensor, Outcome]:
        """AutoAttack's gradient attacks on a surrogate's gradients; return the images that still stand."""
        whole = AutoAttack(self.attack.threat, eot_draws=self.attack.eot_draws)
        following = CustomAttack(
            self.attack.threat,
            label=f"{whole.name}-{search.name}",
            components=tuple(part for part in whole.parts if part.follows_gradients),
            details={"search": search.name},
            eot_draws=self.attack.eot_draws,
        )
        fell = self.fallen(search.name, standing, following, search)
        return standing[~fell], self.noted(search.words, fell, (search.why,), outcome)

    @staticmethod
    def noted(attack: str, fell: Tensor, why: tuple[str, ...], outcome: Outcome) -> Outcome:
        """The outcome after one more step, in which those of a mask (n,) fell."""
        step = Step(attack=attack, attacked=len(fell), fell=int(fell.sum()), reasons=why)
        return replace(outcome, fell=outcome.fell + step.fell, steps=(*outcome.steps, step))

    def sample(self, standing: Tensor, streams: Streams, outcome: Outcome) -> Outcome:
        """FAB-T and Square on a sample of the images that stand, and on the others if one of it falls."""
        count = min(len(standing), max(self.attack.fewest, math.ceil(self.attack.share * len(standing))))
        order = streams.named("sample").uniform(self.table.ids[standing]).argsort(stable=True)
        first, others = standing[order[:count].sort().values], standing[order[count:].sort().values]
        rest = self._skipped_parts
        fell = int(self.fallen("sample", first, rest).sum()) if count else 0
        outcome = replace(outcome, sampled=count, fell_in_sample=fell, fell=fell)
        if not fell:
            return outcome
        fell += int(self.fallen("rest", others, rest).sum())
        outcome = replace(outcome, fell=fell)
        if not too_many(fell, outcome.standing):
            return outcome
        reason = f"FAB-T and Square fooled {fell} of {outcome.standing} images that gradients left standing"
        fooled = torch.cat([examples.ids[examples.fooled_by_part >= 0] for examples in self.sets[1:]])
        left = standing[~torch.isin(self.table.ids[standing], fooled)]
        return self.autoattack(left, outcome, (reason,))

    @property
    def _skipped_parts(self) -> Attack:
        attack = self.attack
        whole = AutoAttack(attack.threat, queries=attack.queries)
        parts = tuple(part for part in whole.parts if part.name in SKIPPED_PARTS)
        return CustomAttack(
            attack.threat,
            label=f"{attack.name}-sample",
            components=parts,
            details={"queries": attack.queries},
            eot_draws=attack.eot_draws,
        )

    def result(self, outcome: Outcome) -> AdversarialSet:
        """One set of all steps, with their cost together and what was left out."""
        short = self.sets[0]
        settings: Mapping[str, Any] = {**short.settings, REMARK: outcome.sentence()}
        whole = short
        if outcome.fell:
            name, threat = self.attack.name, self.attack.threat
            started = time.process_time()
            replay = replayed(name, threat, self.sets, dict(self.attack.settings))
            whole = self.craft_on(self.table, replay, None if self.folder is None else self.folder / "whole")
            self.spent(time.process_time() - started, whole.model_images)
        return replace(whole, settings=settings, cpu_seconds=self.cpu_seconds, model_images=self.model_images)
