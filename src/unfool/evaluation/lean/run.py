"""A lean attack underway: what its steps share, and what each of them is given and returns.

Legend: n images that stand.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from unfool.attacks import Attack, Part
from unfool.attacks.lean.attack import Lean
from unfool.attacks.proxy import SurrogateSettings
from unfool.data.table import Table
from unfool.evaluation.classify import classify_or_read
from unfool.evaluation.crafting.adversarial_set import AdversarialSet
from unfool.evaluation.crafting.batches import BATCH_SIZE
from unfool.evaluation.lean.judged import JudgedSet, judged
from unfool.evaluation.lean.outcome import Outcome, Step
from unfool.evaluation.lean.replay import OneOfEach, OnModelAlone, matching


class CraftOn(Protocol):
    """Crafts the examples of one attack on a table, in a folder of its own."""

    def __call__(
        self, table: Table, attack: Attack, folder: Path | None, search: SurrogateSettings | None = None, /
    ) -> AdversarialSet: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class LeanRun:
    """What the steps of one lean attack share.

    Args:
        model: The model that is attacked.
        table: Its images.
        attack: The lean attack.
        craft_on: Crafts the examples of any attack on some of them.
        folder: Where each step has a folder of its own; None keeps nothing.
        batch_size: Images at a time where the whole set is classified, as whoever uses it will.
        random: Whether the model is random: an image then falls when it is wrong in every draw.
        dependent: Whether predictions depend on batch-mates: an image then falls when it is wrong in the whole set.
    """

    model: nn.Module
    table: Table
    attack: Lean
    craft_on: CraftOn
    folder: Path | None
    batch_size: int = BATCH_SIZE
    random: bool = False
    dependent: bool = False

    def crafted(
        self, name: str, table: Table, attack: Attack, search: SurrogateSettings | None = None
    ) -> AdversarialSet:
        """The examples of an attack on a table, in the folder of that name."""
        return self.craft_on(table, attack, None if self.folder is None else self.folder / name, search)

    def attacked(self, name: str, rows: Tensor, attack: Attack, search: SurrogateSettings | None = None) -> JudgedSet:
        """The examples of an attack on the images ``rows`` (n,) of the table, judged."""
        return judged(self.model, self.crafted(name, self.table.subset(rows), attack, search), random=self.random)

    def right(self, source: AdversarialSet | Table) -> Tensor:
        """Which images (N,) the model classifies correctly."""
        return torch.tensor(classify_or_read(self.model, source, batch_size=self.batch_size).correct)

    def after(
        self, reached: Reached, name: str, rows: Tensor, attack: Attack, search: SurrogateSettings | None = None
    ) -> Reached:
        """How far the steps have come once an attack was made on the images ``rows`` (n,), which stand so far."""
        examples = self.attacked(name, rows, attack, search)
        if not self.dependent:
            return reached.after(examples, rows)
        return self._after_together(reached, name, examples, rows[examples.fell])

    def after_joint(self, reached: Reached, name: str, attack: Attack) -> Reached:
        """The same once an attack was made on all images of each batch together, whose examples need each other."""
        every = torch.arange(len(self.table))
        return self._after_together(reached, name, self.attacked(name, every, attack), every)

    def _after_together(self, reached: Reached, name: str, examples: JudgedSet, rows: Tensor) -> Reached:
        """The same with the new examples of the images ``rows`` (n,) among the others, if more are wrong then."""
        if not len(rows):
            return replace(reached, sets=(*reached.sets, examples))
        origin = reached.origin.clone()
        origin[rows] = len(reached.sets)
        started = time.process_time()
        whole, right = self.together(f"{name}-together", (*reached.sets, examples), origin)
        examples = replace(
            examples,
            cpu_seconds=examples.cpu_seconds + time.process_time() - started,
            model_images=examples.model_images + whole.model_images,
        )
        sets, standing = (*reached.sets, examples), right.nonzero().squeeze(1)
        fell = len(reached.standing) - len(standing)
        if fell <= 0:
            return replace(reached, sets=sets)
        outcome = replace(reached.outcome, fell=reached.outcome.fell + fell)
        return Reached(sets=sets, standing=standing, outcome=outcome, origin=origin)

    def together(self, name: str, sets: Sequence[JudgedSet], origin: Tensor) -> tuple[AdversarialSet, Tensor]:
        """The example of each image from the set that ``origin`` (N,) numbers, and which are right among these (N,)."""
        ids, parts = self.table.ids, list(dict.fromkeys(part for each in sets for part in each.examples.parts))
        follows, part_of = dict[str, bool](), torch.zeros(len(ids), dtype=torch.int64)
        flat = torch.zeros(len(ids), dtype=torch.bool)
        for number, each in enumerate(sets):
            examples = each.examples
            follows |= zip(examples.parts, examples.follows_gradients, strict=True)
            rows, places = matching(ids, examples.ids)
            taken = origin[rows] == number
            numbers = torch.tensor([parts.index(part) for part in examples.parts])
            flat[rows[taken]] = examples.zero_gradient[places[taken]]
            part_of[rows[taken]] = numbers[examples.fooled_by_part[places[taken]].clamp(min=0)]
        chosen = tuple((each.examples, ids[origin == number]) for number, each in enumerate(sets))
        threat = self.attack.threat
        engine = OneOfEach(threat=threat, sets=chosen)
        attack = OnModelAlone(
            threat, label=self.attack.name, components=(Part(name=name, engine=engine),), details=self.attack.settings
        )
        whole = self.crafted(name, self.table, attack)
        right = self.right(whole)
        fooled = (whole.fooled_by_part >= 0) & ~right
        whole = replace(
            whole,
            parts=parts,
            follows_gradients=[follows[part] for part in parts],
            zero_gradient=flat & ~fooled,
            fooled_by_part=torch.where(fooled, part_of, -1),
            model_images=whole.model_images + len(whole),
        )
        return whole, right


@dataclass(frozen=True, kw_only=True, eq=False)
class Reached:
    """How far the steps have come.

    Args:
        sets: What they crafted, the gradient runs on all images first.
        standing: Rows (n,) of the table whose images nothing has fooled.
        outcome: What is said of it.
        origin: For each image of the table (N,) the number of the set that its example comes from, where predictions
            depend on batch-mates; empty elsewhere.
    """

    sets: tuple[JudgedSet, ...]
    standing: Tensor
    outcome: Outcome
    origin: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))

    def after(self, examples: JudgedSet, rows: Tensor) -> Reached:
        """The same after one more set, which attacked some ``rows`` of those that stood."""
        fell = rows[examples.fell]
        return replace(
            self,
            sets=(*self.sets, examples),
            standing=self.standing[~torch.isin(self.standing, fell)],
            outcome=replace(self.outcome, fell=self.outcome.fell + len(fell)),
        )

    def noted(self, attack: str, before: Reached, why: Sequence[str], *, random: bool) -> Reached:
        """The same with a step in words: what led here from ``before``, and why it was done."""
        attacked = len(before.standing)
        fell = attacked - len(self.standing)
        step = Step(attack=attack, attacked=attacked, fell=fell, reasons=tuple(why), random=random)
        return replace(self, outcome=replace(self.outcome, steps=(*self.outcome.steps, step)))
