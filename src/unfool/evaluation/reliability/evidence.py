"""What attacks on one model have shown, image by image: who was tried on it, and who fooled it.

An image that gradient attacks leave standing and anything else fools says that the gradients mislead (Athalye et al.,
"Obfuscated Gradients", ICML 2018; Carlini et al. 2019).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from unfool.core.threat import ThreatModel
from unfool.data.table import Table
from unfool.evaluation.crafting.adversarial_set import AdversarialSet
from unfool.evaluation.identity import identity
from unfool.evaluation.judge import judge
from unfool.evaluation.records import TRANSFER, Records
from unfool.evaluation.statistics.comparison import WORST_CASE

GRADIENT, SQUARE, NOISE = "gradient", "square", "noise"
"""What an attack on the model itself learns from: its gradients, its logits, nothing; `TRANSFER` is from elsewhere."""
ENSEMBLES = ("autoattack", WORST_CASE)
"""Attacks of several kinds at once, by the start of their names; only their sets say which of them won."""


def kind_of(attack: str) -> str:
    """What an attack of this name on the model itself learns from."""
    return SQUARE if attack.startswith("square") else GRADIENT


class Evidence:
    """Ids that each kind of attack was tried on, and those that it fooled, by the attack's name."""

    def __init__(self) -> None:
        self.tried: dict[str, set[int]] = {}
        self.fooled: dict[str, dict[str, set[int]]] = {}

    def add(self, kind: str, name: str, tried: Iterable[int], fooled: Iterable[int]) -> None:
        """Note one attack on the images ``tried``."""
        self.tried.setdefault(kind, set()).update(tried)
        self.fooled.setdefault(kind, {}).setdefault(name, set()).update(fooled)

    def told(self, kind: str) -> set[int]:
        """All images that a kind of attack fooled."""
        return set().union(*self.fooled.get(kind, {}).values())

    def compared(self, kind: str) -> int:
        """How many images both gradient attacks and this kind were tried on."""
        return len(self.tried.get(kind, set()) & self.tried.get(GRADIENT, set()))

    def wins(self, kind: str) -> dict[str, list[int]]:
        """Images that each attack of a kind fooled and no gradient attack did, though it was tried."""
        standing = self.tried.get(GRADIENT, set()) - self.told(GRADIENT)
        found = {name: sorted(fooled & standing) for name, fooled in self.fooled.get(kind, {}).items()}
        return {name: ids for name, ids in found.items() if ids}

    def note_records(self, records: Records) -> None:
        """Note what an evaluation under attack found; an ensemble's records do not say which of its parts did."""
        if records.protocol != TRANSFER and records.attack.startswith(ENSEMBLES):
            return
        kind = TRANSFER if records.protocol == TRANSFER else kind_of(records.attack)
        name = f"{records.attack} from {records.crafted_on}" if kind == TRANSFER else records.attack
        fooled = (number for number, correct in zip(records.ids, records.correct, strict=True) if not correct)
        self.add(kind, name, records.ids, fooled)

    def note_set(self, examples: AdversarialSet) -> None:
        """Note which part of an attack on the model itself fooled which image."""
        for index, part in enumerate(examples.parts):
            self.add(
                kind_of(part), part, examples.ids.tolist(), examples.ids[examples.fooled_by_part == index].tolist()
            )


def gather(
    model: nn.Module,
    table: Table,
    threat: ThreatModel,
    records: Iterable[Records],
    sets: Iterable[AdversarialSet],
) -> tuple[Evidence, Tensor, int]:
    """Evidence of what was evaluated before, ids of images without any gradient, and how many images were judged.

    Sets from elsewhere are judged here, as transfer. Records of another system, and all that is of another threat
    model, data set or split, say nothing about this model on these images and are left out.
    """
    own = identity(model)
    evidence, flat, judged = Evidence(), [], 0
    for one in records:
        if one.judged_on == own and _fits(one, table, threat):
            evidence.note_records(one)
    for examples in sets:
        if not _fits(examples, table, threat):
            continue
        if examples.crafted_on == own:
            evidence.note_set(examples)
            flat.append(examples.ids[examples.zero_gradient])
        else:
            evidence.note_records(judge(model, examples))
            judged += len(examples)
    return evidence, torch.cat(flat) if flat else torch.empty(0, dtype=torch.int64), judged


def _fits(one: Records | AdversarialSet, table: Table, threat: ThreatModel) -> bool:
    return (one.data, one.split) == (table.name, table.split) and ThreatModel.parse(one.threat) == threat
