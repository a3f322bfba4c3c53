"""A lean attack underway: what its steps share, and what each of them is given and returns.

Legend: n images that stand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from unfool.attacks import Attack
from unfool.attacks.lean.attack import Lean
from unfool.attacks.proxy import SurrogateSettings
from unfool.data.table import Table
from unfool.evaluation.crafting.adversarial_set import AdversarialSet
from unfool.evaluation.lean.judged import JudgedSet, judged
from unfool.evaluation.lean.outcome import Outcome, Step


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
        random: Whether the model is random: an image then falls when it is wrong in every draw.
    """

    model: nn.Module
    table: Table
    attack: Lean
    craft_on: CraftOn
    folder: Path | None
    random: bool = False

    def crafted(
        self, name: str, table: Table, attack: Attack, search: SurrogateSettings | None = None
    ) -> AdversarialSet:
        """The examples of an attack on a table, in the folder of that name."""
        return self.craft_on(table, attack, None if self.folder is None else self.folder / name, search)

    def attacked(self, name: str, rows: Tensor, attack: Attack, search: SurrogateSettings | None = None) -> JudgedSet:
        """The examples of an attack on the images ``rows`` (n,) of the table, judged."""
        return judged(self.model, self.crafted(name, self.table.subset(rows), attack, search), random=self.random)


@dataclass(frozen=True, kw_only=True, eq=False)
class Reached:
    """How far the steps have come.

    Args:
        sets: What they crafted, the gradient runs on all images first.
        standing: Rows (n,) of the table whose images nothing has fooled.
        outcome: What is said of it.
    """

    sets: tuple[JudgedSet, ...]
    standing: Tensor
    outcome: Outcome

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
