"""An evaluation at work: its parts, each of which adds records and rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from unfool.attacks import ProxySettings
from unfool.core.borders.reading import is_file
from unfool.core.processes import rank_and_world_size
from unfool.core.progress import Progress, renamed
from unfool.core.threat import ThreatModel
from unfool.data.corruptions import CORRUPTIONS
from unfool.data.table import Table
from unfool.evaluation.classify import classify, classify_or_read
from unfool.evaluation.corruptions import classify_corrupted
from unfool.evaluation.crafting.adversarial_set import AdversarialSet
from unfool.evaluation.crafting.batches import BATCH_SIZE, own_batch_size
from unfool.evaluation.crafting.chosen_attacks import ChosenAttack
from unfool.evaluation.crafting.craft import craft
from unfool.evaluation.crafting.evaluation_folder import (
    attack_folder,
    checks_folder,
    clean_folder,
    corrupted_folder,
    judged_folder,
)
from unfool.evaluation.crafting.pictures import AttackPictures, pictures_of
from unfool.evaluation.crafting.proxy import proxy_for
from unfool.evaluation.crafting.stored_set import ONE_FILE
from unfool.evaluation.curves import CurvePoints, curve, row_settings
from unfool.evaluation.identity import identity
from unfool.evaluation.records import Records
from unfool.evaluation.reliability.binarization_test import binarization_test
from unfool.evaluation.reliability.over_draws import OverDraws, least_over_draws, over_draws
from unfool.evaluation.reliability.report import reliability
from unfool.evaluation.results.details import ClassAccuracy
from unfool.evaluation.results.reliability import BinarizationResult, Reliability
from unfool.evaluation.results.rows import Row
from unfool.evaluation.settings import EvaluationSettings
from unfool.evaluation.statistics.comparison import by_class, worst_case
from unfool.evaluation.statistics.sequential import AccuracyClaim
from unfool.evaluation.statistics.settling import LOOK, SequentialResult, evaluate_claim
from unfool.evaluation.statistics.union import union_of


class EvaluationRun:
    """One evaluation: each method computes one part, and adds its records and rows."""

    def __init__(
        self,
        model: nn.Module,
        name: str,
        column: str | None,
        settings: EvaluationSettings,
        threat: ThreatModel,
        folder: Path | None,
        progress: Progress,
    ):
        self.model = model
        self.name = name
        self.column = column
        self.settings = settings
        self.threat = threat
        self.folder = folder
        self.progress = progress
        self.proxy: ProxySettings | None = proxy_for(model, settings.precision)
        self.size = own_batch_size(model) or settings.batch_size or BATCH_SIZE
        self.rows: list[Row] = []
        self.records: list[Records] = []
        self.sets: list[AdversarialSet] = []
        self.row_sources: dict[int, AdversarialSet | Table] = {}
        """The images of rows by their number, which a random model is judged on again."""
        self.row_parts: dict[int, list[int]] = {}
        """The rows that a worst case is of, by its own number."""
        self.pictures: dict[str, AttackPictures] = {}
        self.classes: dict[str, list[ClassAccuracy]] = {}
        self.corrupted: list[Records] = []
        self.binarization_tests: dict[str, BinarizationResult] = {}
        self.settled_claim: SequentialResult | None = None
        self.reliability: Reliability | None = None
        self.right_again: dict[str, int] = {}
        self.attacked: list[Records] = []
        """Records of attacks on the images of the table, this model's own first."""

    def add(self, records: Records, settings: Mapping[str, Any] | None = None) -> None:
        """Add records and their row."""
        self.records.append(records)
        # Successes by part are worth a line for an ensemble; an attack of one part has nothing to tell apart.
        parts = dict(records.fooled_by) if len(records.fooled_by) > 1 else None
        row = records.row(self.name, settings=settings)
        self.rows.append(replace(row, zero_gradient=records.zero_gradient, fooled_by=parts))

    def clean(self, table: Table) -> None:
        """Clean accuracy."""
        stored = None
        if self.folder is not None:
            stored = clean_folder(self.folder, table, self.column, identity(self.model), self.size)
        self.add(
            classify_or_read(
                self.model, table, column=self.column, threat=self.threat, batch_size=self.size, stored=stored
            )
        )
        self.row_sources[0] = table

    def attack(self, table: Table, attacks: Sequence[ChosenAttack]) -> None:
        """Accuracy under each attack."""
        for chosen in attacks:
            home = attack_folder(self.folder, chosen.title, chosen.attack) if self.folder is not None else None
            examples = craft(
                self.model,
                table,
                chosen.attack,
                column=self.column,
                seed=self.settings.seed,
                proxy=self.proxy,
                batch_size=self.settings.batch_size,
                folder=home,
                right=self.records[0].correct,
                in_memory=ONE_FILE // len(attacks),
                progress=renamed(self.progress, chosen.title),
            )
            self.sets.append(examples)
            self.pictures[chosen.title] = pictures_of(examples, table, column=self.column)
            judged = judged_folder(home, self.size) if home is not None else None
            self.attacked.append(classify_or_read(self.model, examples, batch_size=self.size, stored=judged))
            self.add(self.attacked[-1], chosen.settings)
            self.row_sources[len(self.rows) - 1] = examples
            right_again = (examples.fooled_by_part >= 0) & torch.tensor(self.attacked[-1].correct)
            self.right_again[chosen.title] = int(right_again.sum())

    def claim(self, table: Table, chosen: ChosenAttack, claim: AccuracyClaim) -> None:
        """Attack until the claim about robust accuracy is settled."""
        result = evaluate_claim(
            self.model,
            table,
            chosen.attack,
            claim,
            alpha=self.settings.alpha,
            column=self.column,
            seed=self.settings.seed,
            proxy=self.proxy,
            batch_size=min(LOOK, self.settings.batch_size or BATCH_SIZE),
            right=self.records[0].correct,
            progress=self.progress,
        )
        self.records.append(result.records)
        row = result.row(self.name, settings=chosen.settings)
        self.rows.append(replace(row, zero_gradient=result.records.zero_gradient))
        self.settled_claim = result

    def stored(self, sets: Mapping[str, AdversarialSet]) -> None:
        """Accuracy on stored sets, by name."""
        for name, examples in sets.items():
            records = classify(self.model, examples, batch_size=self.size)
            self.add(records, {"on": name})
            self.row_sources[len(self.rows) - 1] = examples
            same = ("judged_on", "threat", "data", "split", "ids", "labels")
            if any(all(getattr(records, key) == getattr(own, key) for key in same) for own in self.attacked):
                self.attacked.append(records)

    def worst(self) -> None:
        """Accuracy in the worst case of all attacks on each image: in each threat model, and in the union of them."""
        own, right = list(self.attacked), self.records[0].correct
        for threat in dict.fromkeys(records.threat for records in own):
            same = [records for records in own if records.threat == threat]
            if len(same) > 1:
                self.attacked.append(worst_case(same, right=right))
                self._add_worst(same)
        if self.settings.union is not None and own:
            self.attacked.append(union_of(own, self.settings.union, right=right))
            self._add_worst(own)

    def _add_worst(self, parts: Sequence[Records]) -> None:
        """Add the worst case that was appended last, which is that of some records."""
        self.add(self.attacked[-1])
        numbers = {id(records): number for number, records in enumerate(self.records)}
        self.row_parts[len(self.rows) - 1] = [numbers[id(records)] for records in parts]

    def by_class(self, table: Table) -> None:
        """Accuracies by class, on clean images and in the worst case."""
        names = table.classes[self.column or table.label_column or ""]
        for records in (self.records[0], *self.attacked[-1:]):
            self.classes[records.attack] = by_class(records, names)

    def curve(self, table: Table, chosen: ChosenAttack, points: CurvePoints) -> None:
        """Accuracy at every point of a curve."""
        records = curve(
            self.model,
            table,
            chosen.attack,
            points,
            column=self.column,
            seed=self.settings.seed,
            proxy=self.proxy,
            batch_size=self.settings.batch_size,
            progress=self.progress,
        )
        for point in records:
            self.add(point, {**row_settings(chosen.attack, points), **chosen.settings})

    def corruptions(self, table: Table) -> None:
        """Accuracy under common corruptions."""
        severities = sorted(set(self.settings.severities))
        stored = None
        if self.folder is not None:
            own, seed = identity(self.model), self.settings.seed
            stored = corrupted_folder(self.folder, table, self.column, own, self.size, seed)
        if stored is not None:
            files = [stored / f"{name}-{severity}.json" for name in CORRUPTIONS for severity in severities]
            if all(is_file(file) for file in files):
                self.corrupted = [Records.load(file) for file in files]
                return
        self.corrupted = classify_corrupted(
            self.model,
            table,
            severities=severities,
            column=self.column,
            seed=self.settings.seed,
            batch_size=self.size,
            progress=self.progress,
        )

    def binarization(self, table: Table, attacks: Sequence[ChosenAttack]) -> None:
        """Whether each attack finds examples that are known to exist."""
        seed = self.settings.seed
        self.binarization_tests = {
            chosen.title: binarization_test(self.model, table, chosen.attack, seed=seed, progress=self.progress)
            for chosen in attacks
        }

    def check_reliability(self, table: Table, attacks: Sequence[ChosenAttack]) -> None:
        """Whether the figures can be believed."""
        runs, seed = None, self.settings.seed
        if self.folder is not None and rank_and_world_size()[1] == 1:
            used, own = [chosen.attack for chosen in attacks], identity(self.model)
            runs = checks_folder(self.folder, table, self.column, own, seed, used, str(self.threat))
        self.reliability = reliability(
            self.model,
            table,
            threat=self.threat,
            column=self.column,
            attacks=[chosen.attack for chosen in attacks if chosen.attack.threat == self.threat],
            records=self.records,
            sets=self.sets,
            seed=seed,
            proxy=self.proxy,
            runs=runs,
            progress=self.progress,
        )
        if any(flag.name == "randomised-output" for flag in self.reliability.flags):
            self._judge_over_draws()

    def _judge_over_draws(self) -> None:
        """Give the rows of a random model the mean over several draws, and how many images are right in every draw."""
        judged: dict[int, OverDraws] = {}
        for number, source in self.row_sources.items():
            column = self.column if isinstance(source, Table) else None
            if self.rows[number].remark is None:
                draws = over_draws(self.model, source, column=column, seed=self.settings.seed, batch_size=self.size)
            else:
                # Lean's remark ends with what its own draws gave; these are the same.
                draws = over_draws(self.model, source, column=column)
            judged[number] = draws
        for number, parts in self.row_parts.items():
            judged[number] = least_over_draws([judged[part] for part in parts])
        self.rows = [judged[number].in_row(row) if number in judged else row for number, row in enumerate(self.rows)]
