"""The steps of a lean attack, each a set of examples, and the one set that they come to."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from unfool.attacks import Attack, AutoAttack, CustomAttack
from unfool.attacks.lean.attack import Lean
from unfool.attacks.proxy import SurrogateSettings
from unfool.core.streams import Streams
from unfool.data.table import Table
from unfool.evaluation.crafting.adversarial_set import AdversarialSet
from unfool.evaluation.lean.outcome import Outcome, Step
from unfool.evaluation.lean.replay import replayed
from unfool.evaluation.records import REMARK
from unfool.evaluation.reliability.flags import too_many
from unfool.evaluation.statistics.over_draws import DRAWS, OverDraws, over_draws

SKIPPED_PARTS = ("fab-t", "square")
"""AutoAttack's parts that attack a sample first."""


class CraftOn(Protocol):
    """Crafts the examples of one attack on a table, in a folder of its own."""

    def __call__(
        self, table: Table, attack: Attack, folder: Path | None, search: SurrogateSettings | None = None, /
    ) -> AdversarialSet: ...


class Steps:
    """The steps of one lean attack, each a set of examples in a folder of its own."""

    def __init__(
        self, model: nn.Module, table: Table, attack: Lean, craft_on: CraftOn, column: str | None, folder: Path | None
    ):
        self.model = model
        self.column = column
        self.random = False
        """Whether the model is random: an image then falls when it is wrong in every draw."""
        self.table = table
        self.attack = attack
        self.craft_on = craft_on
        self.folder = folder
        self.sets: list[AdversarialSet] = []
        self._judgements: list[tuple[AdversarialSet, OverDraws]] = []
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
        return self.fell_in(self.step(name, self.table.subset(rows), attack, search))

    def fell_in(self, examples: AdversarialSet) -> Tensor:
        """The mask (n,) of the images that fell in a set; of a random model those that are wrong in every draw."""
        return self._judged(examples).right == 0 if self.random else examples.fooled_by_part >= 0

    def _judged(self, examples: AdversarialSet) -> OverDraws:
        """The examples of a set judged over ten draws, once."""
        for known, judged in self._judgements:
            if known is examples:
                return judged
        started = time.process_time()
        judged = over_draws(self.model, examples)
        self.spent(time.process_time() - started, judged.draws * len(examples))
        self._judgements.append((examples, judged))
        return judged

    def _chosen(self) -> list[Tensor]:
        """For each set the ids of the images that come from it: those that it fools in most draws."""
        judged = [self._judged(examples) for examples in self.sets]
        right = torch.full((len(self.sets), len(self.table)), DRAWS + 1)
        order = self.table.ids.argsort()
        for row, each in zip(right, judged, strict=True):
            row[order[torch.searchsorted(self.table.ids[order], each.ids)]] = each.right
        best = right.argmin(0)
        # An image that nothing fools in any draw stays as it was attacked first.
        return [self.table.ids[(best == index) & (right[index] < DRAWS)] for index in range(len(self.sets))]

    def autoattack(
        self,
        standing: Tensor,
        outcome: Outcome,
        why: tuple[str, ...],
        search: SurrogateSettings | None = None,
    ) -> Outcome:
        """All of AutoAttack on the images that stand; on a random model the version for those first, which may follow a
        surrogate's gradients."""
        if not len(standing):
            return replace(outcome, complete=True)
        draws, queries = self.attack.eot_draws, self.attack.queries
        fell = torch.zeros(len(standing), dtype=torch.bool)
        if self.random:
            fell = self.fallen("rand", standing, AutoAttack(self.attack.threat, version="rand"), search)
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

    def noted(self, attack: str, fell: Tensor, why: tuple[str, ...], outcome: Outcome) -> Outcome:
        """The outcome after one more step, in which those of a mask (n,) fell."""
        step = Step(attack=attack, attacked=len(fell), fell=int(fell.sum()), reasons=why, random=self.random)
        return replace(outcome, fell=outcome.fell + step.fell, steps=(*outcome.steps, step))

    def sample(self, standing: Tensor, streams: Streams, outcome: Outcome) -> Outcome:
        """FAB-T and Square on a sample of the images that stand, and on the others if one of it falls."""
        count = min(len(standing), max(self.attack.fewest, math.ceil(self.attack.share * len(standing))))
        order = streams.named("sample").uniform(self.table.ids[standing]).argsort(stable=True)
        first, others = standing[order[:count].sort().values], standing[order[count:].sort().values]
        rest = self._skipped_parts
        fell = int(self.fallen("sample", first, rest).sum()) if count else 0
        before = outcome.fell
        outcome = replace(outcome, sampled=count, fell_in_sample=fell, fell=before + fell)
        if not fell:
            return outcome
        fell += int(self.fallen("rest", others, rest).sum())
        outcome = replace(outcome, fell=before + fell)
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
        whole, remark = short, outcome.sentence()
        if outcome.fell or self.random:
            name, threat = self.attack.name, self.attack.threat
            started = time.process_time()
            chosen = self._chosen() if self.random else None
            replay = replayed(name, threat, self.sets, dict(self.attack.settings), chosen)
            whole = self.craft_on(self.table, replay, None if self.folder is None else self.folder / "whole")
            self.spent(time.process_time() - started, whole.model_images)
        if self.random:
            remark = f"{remark}; {self._judged(whole).sentence()}"
        settings: Mapping[str, Any] = {**short.settings, REMARK: remark}
        return replace(whole, settings=settings, cpu_seconds=self.cpu_seconds, model_images=self.model_images)
