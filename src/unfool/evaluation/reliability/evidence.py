"""What attacks on one model have shown, image by image: which attacks were tried on it, and which fooled it.

An image that no gradient attack fools and another attack does says that the gradients mislead (Athalye et al.,
"Obfuscated Gradients", ICML 2018; Carlini et al. 2019).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unfool.attacks.ensemble import LearnsFrom
from unfool.core.threat import ThreatModel
from unfool.data.table import Table
from unfool.evaluation.classify import classify
from unfool.evaluation.crafting.adversarial_set import AdversarialSet
from unfool.evaluation.identity import identity
from unfool.evaluation.records import NO_ATTACK, TRANSFER, Records
from unfool.evaluation.reliability.origins import misfit, rows_of
from unfool.evaluation.statistics.union import UNION

GRADIENT, BLACK_BOX, NOISE = "gradient", "black-box", "noise"
"""What an attack on the model itself learns from: its gradients, its outputs, nothing; `TRANSFER` is from elsewhere."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """An adversarial ``image`` (C, H, W) that an attack of the checks ended with, and what that attack learns from."""

    image: Tensor
    attack: str
    learns_from: LearnsFrom


class Evidence:
    """Ids of the images that each kind of attack was tried on, and of those that it fooled, by the attack's name."""

    def __init__(self) -> None:
        self.tried: dict[str, set[int]] = {}
        self.fooled: dict[str, dict[str, set[int]]] = {}
        self.wrong_before: set[int] = set()
        """Images that no attack had to fool."""
        self.examples: dict[int, Example] = {}
        """By image id, the first example that an attack of the checks ended with."""
        self.none_is_right = False
        """Whether an attack on the model itself left no image of all right."""

    def add(self, kind: str, name: str, tried: Iterable[int], fooled: Iterable[int]) -> None:
        """Add the outcome of one attack on the images ``tried``."""
        self.tried.setdefault(kind, set()).update(tried)
        self.fooled.setdefault(kind, {}).setdefault(name, set()).update(fooled)

    def keep(self, attack: str, learns_from: LearnsFrom, ids: Tensor, images: Tensor) -> None:
        """Keep the examples (n, C, H, W) of an attack of the checks, by their ids (n,)."""
        for number, image in zip(ids.tolist(), images.cpu(), strict=True):
            self.examples.setdefault(number, Example(image=image, attack=attack, learns_from=learns_from))

    def fooled_by(self, kind: str) -> set[int]:
        """All images that a kind of attack fooled."""
        return set().union(*self.fooled.get(kind, {}).values())

    def compared(self, kind: str) -> int:
        """How many images both gradient attacks and this kind were tried on."""
        return len(self.tried.get(kind, set()) & self.tried.get(GRADIENT, set()))

    def missed_by_gradients(self, kind: str) -> dict[str, list[int]]:
        """The images that each attack of a kind fooled and no gradient attack did, though one was tried."""
        standing = self.tried.get(GRADIENT, set()) - self.fooled_by(GRADIENT) - self.wrong_before
        missed = {name: sorted(fooled & standing) for name, fooled in self.fooled.get(kind, {}).items()}
        return {name: ids for name, ids in missed.items() if ids}

    @property
    def against_gradients(self) -> set[int]:
        """All images that speak against the gradients."""
        missed = (self.missed_by_gradients(kind).values() for kind in self.fooled)
        return {number for kind in missed for ids in kind for number in ids}

    def add_records(self, records: Records, of: set[int]) -> None:
        """Add records under attack on images of some ids.

        Records of an ensemble of several kinds do not say which of them succeeded.
        """
        fooled = {number for number, correct in zip(records.ids, records.correct, strict=True) if not correct}
        if records.protocol == TRANSFER:
            self.add(TRANSFER, f"{records.attack} from {records.crafted_on}", of.intersection(records.ids), fooled & of)
            return
        self.none_is_right |= of <= set(records.ids) and not any(records.correct)
        if records.follows_gradients is not None:
            self.add(_kind(records.follows_gradients), records.attack, of.intersection(records.ids), fooled & of)

    def add_set(self, examples: AdversarialSet, of: set[int]) -> None:
        """Add an attack on the model itself, part by part, on images of some ids."""
        tried = of.intersection(examples.ids.tolist())
        for index, (part, follows) in enumerate(zip(examples.parts, examples.follows_gradients, strict=True)):
            fooled = of.intersection(examples.ids[examples.fooled_by_part == index].tolist())
            self.add(_kind(follows), part, tried, fooled)


def _kind(follows_gradients: bool) -> str:
    return GRADIENT if follows_gradients else BLACK_BOX


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """The ``evidence`` of earlier evaluations, ids (N,) of images without any gradient, and images judged for it."""

    evidence: Evidence
    zero_gradient: Tensor
    model_images: int


def gather(
    model: nn.Module,
    table: Table,
    threat: ThreatModel,
    records: Iterable[Records],
    sets: Iterable[AdversarialSet],
    column: str | None = None,
) -> Gathered:
    """Collect what earlier evaluations say about the model on these images.

    Sets from elsewhere are judged here, as transfer, and so are the clean images that would speak against the
    gradients: clean records name no system. Records of another system, and all that is of another threat model, data
    set, split or label, say nothing about this model on these images and are left out; so are sets whose examples do
    not lie as far from the table's images as they say.
    """
    own, labels, ids = identity(model), table.labels(column), set(table.ids.tolist())
    evidence, zero_gradient, judged = Evidence(), [], 0
    for each in records:
        if each.judged_on == own and _fits(each, table, threat) and _labels_fit(each, table, labels):
            evidence.add_records(each, ids)
    for examples in sets:
        if not _fits(examples, table, threat) or misfit(examples, table, rows_of(table, examples.ids), labels):
            continue
        if examples.crafted_on == own:
            evidence.add_set(examples, ids)
            zero_gradient.append(examples.ids[examples.zero_gradient & torch.isin(examples.ids, table.ids)])
        else:
            evidence.add_records(classify(model, examples), ids)
            judged += len(examples)
    rows = rows_of(table, torch.tensor(sorted(evidence.against_gradients), dtype=torch.int64))
    if len(rows):
        before = classify(model, table.subset(rows), column=column)
        evidence.wrong_before = {number for number, right in zip(before.ids, before.correct, strict=True) if not right}
        judged += len(rows)
    flat = torch.cat(zero_gradient) if zero_gradient else torch.empty(0, dtype=torch.int64)
    return Gathered(evidence=evidence, zero_gradient=flat, model_images=judged)


def _fits(source: Records | AdversarialSet, table: Table, threat: ThreatModel) -> bool:
    if (source.data, source.split) != (table.name, table.split) or source.attack in (UNION, NO_ATTACK):
        return False
    return ThreatModel.parse(source.threat) == threat


def _labels_fit(records: Records, table: Table, labels: Tensor) -> bool:
    """Whether the labels of records, where they hold any, are those of the table's images."""
    known = dict(zip(table.ids.tolist(), labels.tolist(), strict=True))
    return all(known.get(number, label) == label for number, label in zip(records.ids, records.labels, strict=False))
