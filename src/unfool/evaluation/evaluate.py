"""One call that judges a classifier: clean, attacked, on stored examples, and whether the figures can be believed."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from torch import nn

from unfool.attacks import Attack, ProxySettings, make_attack
from unfool.core.config import build, configured, parse_settings
from unfool.core.errors import SpecError, UnfoolWarning
from unfool.core.spec import parse_number
from unfool.core.threat import ThreatModel
from unfool.data.corruptions import SEVERITIES
from unfool.data.table import Table
from unfool.evaluation.corruptions import judge_corrupted
from unfool.evaluation.crafting.adversarial_set import AdversarialSet
from unfool.evaluation.crafting.batches import BATCH_SIZE
from unfool.evaluation.crafting.craft import craft
from unfool.evaluation.crafting.evaluation_folder import attack_folder
from unfool.evaluation.curves import curve_over_eps, curve_over_steps
from unfool.evaluation.evaluation import Evaluation
from unfool.evaluation.judge import judge
from unfool.evaluation.records import Records
from unfool.evaluation.reliability.binarization_test import Strength, strength
from unfool.evaluation.reliability.report import Reliability, reliability
from unfool.evaluation.rows import Row
from unfool.evaluation.statistics.comparison import by_class, worst_case
from unfool.evaluation.statistics.sequential import LOOK, Claim, SequentialResult, evaluate_claim

Report = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and how much there is."""


@configured
class EvaluationSettings:
    """How a classifier is judged.

    ``precision`` is that of the attacks' search, ``batch_size`` by default what memory allows. ``claim`` (``>=0.45``)
    stops the one attack as soon as it is settled with error rate ``alpha``. ``curve`` is ``eps=2/255,4/255`` or
    ``steps=1,10,100``. ``corruptions`` adds the fifteen common ones at these ``severities``, ``strength`` tests the
    attacks on planted examples, and ``reliability`` asks whether all this can be believed.
    """

    threat: str = "linf:8/255"
    seed: int = Field(default=0, ge=0)
    precision: Literal["fp32", "bf16"] = "fp32"
    batch_size: int | None = Field(default=None, ge=1)
    claim: str | None = None
    alpha: float = Field(default=0.05, gt=0, lt=1)
    curve: str | None = None
    corruptions: bool = False
    severities: tuple[Annotated[int, Field(ge=1, le=len(SEVERITIES))], ...] = SEVERITIES
    strength: bool = False
    reliability: bool = True


def check_evaluation(
    attacks: Sequence[str], settings: Mapping[str, Any]
) -> tuple[EvaluationSettings, dict[str, Attack]]:
    """The settings and attacks of an evaluation, checked before a model or an image is touched; raises SpecError."""
    chosen = build(EvaluationSettings, settings, "the evaluation")
    made = {text: make_attack(text, chosen.threat) for text in dict.fromkeys(attacks)}
    for what in ("claim", "curve"):
        value = getattr(chosen, what)
        if value is not None and len(made) != 1:
            raise SpecError(f"{what} {value!r} is about one attack; give exactly one, such as autoattack")
    if chosen.claim is not None:
        Claim.parse(chosen.claim)
    if chosen.curve is not None:
        _read_curve(chosen.curve)
    return chosen, made


def evaluate(
    model: nn.Module,
    table: Table | None,
    attacks: Sequence[str] = (),
    *,
    name: str = "model",
    column: str | None = None,
    on: Mapping[str, AdversarialSet] | None = None,
    folder: str | Path | None = None,
    report: Report | None = None,
    **settings: Any,
) -> Evaluation:
    """Judge ``model`` (images in [0,1] → logits) on a table: clean, under each attack, and in their worst case.

    ``attacks`` are written as `make_attack` reads them, ``settings`` are those of `EvaluationSettings`; ``on`` are
    stored sets by name, judged as they are, also without a table. ``column`` names the table's labels. With ``folder``
    an evaluation that was stopped goes on where it was, see `craft`. Raises SpecError for settings that do not go
    together, and what crafting, judging and the checks raise.
    """
    chosen, made = check_evaluation(attacks, settings)
    if table is None and (made or not on):
        raise SpecError("there is nothing to judge the model on; give a table, or stored sets without attacks")
    run = _Run(model, name, column, chosen, Path(folder) if folder is not None else None, report)
    found: dict[str, Any] = {}
    if table is not None:
        run.add(judge(model, table, column=column, threat=chosen.threat, batch_size=run.size))
        # What may be refused comes before what may take hours.
        if chosen.strength:
            found["strengths"] = run.test(table, made)
        if chosen.curve is not None:
            run.trace(table, next(iter(made)), *_read_curve(chosen.curve))
        if chosen.claim is not None:
            found["claim"] = run.settle(table, *next(iter(made.items())), chosen.claim)
        else:
            run.attack(table, made)
    run.replay(on or {})
    run.worst()
    if table is not None:
        found["classes"] = run.classes(table)
        if chosen.corruptions:
            found["corrupted"] = run.corrupt(table)
        if chosen.reliability:
            found["reliability"] = run.examine(table, list(made.values()))
    return Evaluation(name=name, rows=run.rows, records=run.records, **found)


class _Run:
    """One evaluation as it comes about: each method does one thing, and notes its records and rows."""

    def __init__(
        self,
        model: nn.Module,
        name: str,
        column: str | None,
        settings: EvaluationSettings,
        folder: Path | None,
        report: Report | None,
    ):
        self.model = model
        self.name = name
        self.column = column
        self.settings = settings
        self.folder = folder
        self.report = report
        self.proxy = proxy_for(model, settings.precision)
        self.size = settings.batch_size or BATCH_SIZE
        self.rows: list[Row] = []
        self.records: list[Records] = []
        self.sets: list[AdversarialSet] = []
        self.attacked: list[Records] = []
        """Records of attacks on the images of the table, this model's own first."""

    def told(self, what: str) -> Callable[[int, int], None]:
        return lambda done, total: self.report(what, done, total) if self.report is not None else None

    def add(self, records: Records, settings: Mapping[str, Any] | None = None) -> None:
        self.records.append(records)
        # What each part of an ensemble found is worth a line; that an attack of one part found its own is not.
        parts = dict(records.fooled_by) if len(records.fooled_by) > 1 else None
        row = records.row(self.name, settings=settings)
        self.rows.append(replace(row, zero_gradient=records.flat, fooled_by=parts))

    def attack(self, table: Table, attacks: Mapping[str, Attack]) -> None:
        for text, attack in attacks.items():
            examples = craft(
                self.model,
                table,
                attack,
                column=self.column,
                seed=self.settings.seed,
                proxy=self.proxy,
                batch_size=self.settings.batch_size,
                folder=attack_folder(self.folder, text, attack),
                report=self.told(text),
            )
            self.sets.append(examples)
            self.attacked.append(judge(self.model, examples, batch_size=self.size))
            self.add(self.attacked[-1], parse_settings(text)[1])

    def settle(self, table: Table, text: str, attack: Attack, claim: str) -> SequentialResult:
        found = evaluate_claim(
            self.model,
            table,
            attack,
            claim,
            alpha=self.settings.alpha,
            column=self.column,
            seed=self.settings.seed,
            proxy=self.proxy,
            batch_size=min(LOOK, self.size),
            report=self.told(f"{text}: {claim}?"),
        )
        self.records.append(found.records)
        row = found.row(self.name, settings=parse_settings(text)[1])
        self.rows.append(replace(row, zero_gradient=found.records.flat))
        return found

    def replay(self, stored: Mapping[str, AdversarialSet]) -> None:
        for name, examples in stored.items():
            records = judge(self.model, examples, batch_size=self.size)
            self.add(records, {"on": name})
            first = self.attacked[0] if self.attacked else None
            same = ("judged_on", "threat", "data", "split", "ids", "labels")
            if first is not None and all(getattr(records, key) == getattr(first, key) for key in same):
                self.attacked.append(records)

    def worst(self) -> None:
        if len(self.attacked) > 1:
            self.attacked.append(worst_case(self.attacked))
            self.add(self.attacked[-1])

    def classes(self, table: Table) -> dict[str, list[dict[str, Any]]]:
        """Accuracies by class, natural and under all attacks together."""
        names = table.classes[self.column or table.label_column or ""]
        shown = [self.records[0], *self.attacked[-1:]]
        return {one.attack: [vars(found) for found in by_class(one, names)] for one in shown}

    def trace(self, table: Table, text: str, over: str, values: Sequence[str]) -> None:
        how = {
            "column": self.column,
            "seed": self.settings.seed,
            "proxy": self.proxy,
            "report": self.told(f"curve over {over}"),
        }
        if over == "eps":
            norm = ThreatModel.parse(self.settings.threat).norm_name
            points = curve_over_eps(self.model, table, text, norm, values, **how)
        else:
            steps = [int(value) for value in values]
            family = re.sub(r"-\d+(?=:|$)", "", text, count=1)
            points = curve_over_steps(self.model, table, family, steps, self.settings.threat, **how)
        for point in points:
            self.add(point, {"curve": f"over {over}"} | parse_settings(text)[1])

    def corrupt(self, table: Table) -> list[Records]:
        return judge_corrupted(
            self.model,
            table,
            severities=sorted(set(self.settings.severities)),
            column=self.column,
            seed=self.settings.seed,
            batch_size=self.size,
            report=self.told("corruptions"),
        )

    def test(self, table: Table, attacks: Mapping[str, Attack]) -> dict[str, Strength]:
        seed = self.settings.seed
        return {
            text: strength(self.model, table, attack, seed=seed, report=self.told(f"strength of {text}"))
            for text, attack in attacks.items()
        }

    def examine(self, table: Table, attacks: Sequence[Attack]) -> Reliability:
        return reliability(
            self.model,
            table,
            threat=self.settings.threat,
            column=self.column,
            attacks=attacks,
            records=self.records,
            sets=self.sets,
            seed=self.settings.seed,
            report=self.told("reliability"),
        )


def proxy_for(model: nn.Module, precision: str) -> ProxySettings | None:
    """The proxy for attacks on ``model``; None, with an UnfoolWarning, for a model in fp32 that cannot be copied.

    Raises SpecError where another precision was asked for, which needs the copy.
    """
    proxy = ProxySettings(dtype=precision)
    try:
        proxy.copy(model)
    except SpecError as error:
        if precision != "fp32":
            raise
        warnings.warn(f"{error}: so it is done, which takes longer", UnfoolWarning, stacklevel=3)
        return None
    return proxy


def _read_curve(text: str) -> tuple[str, list[str]]:
    over, equals, values = text.partition("=")
    if over not in ("eps", "steps") or not equals:
        raise SpecError(f"curve {text!r} is not understood; write eps=2/255,4/255,8/255 or steps=1,10,100")
    points = [value.strip() for value in values.split(",")]
    for point in points:
        if over == "steps" and not point.isdecimal():
            raise SpecError(f"steps {point!r} of curve {text!r} is no whole number; write steps=1,10,100")
        parse_number(point, f"{over} of curve {text!r},")
    return over, points
