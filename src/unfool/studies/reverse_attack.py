"""System B: does moving an attacked image down a self-supervised loss bring its class back?

The source freezes a robust classifier, trains a contrastive head on its features, and at test time moves each image
down the contrastive loss before it is classified. Its examples were crafted on the classifier alone. This study
repeats that, draws the graphs that the source left out, and then lets an attacker know the defense.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, ClassVar

from unfool.report.curves import Curve
from unfool.studies import reverse_measures as measures
from unfool.studies.base import STUDIES, Outcome, Study
from unfool.studies.recipes import NORMAL, ROBUST
from unfool.studies.reverse_charts import charts
from unfool.studies.reverse_claims import gate_claim, judge_claims
from unfool.studies.reverse_gallery import gallery
from unfool.studies.reverse_measures import Measured
from unfool.studies.reverse_networks import path_of, trained
from unfool.studies.reverse_scales import BASES, DEMO, FULL, SMALL, Scale
from unfool.studies.workspace import Workspace

_FOR_BOTH = (measures.by_norm, measures.by_steps)
_FOR_ROBUST = (measures.by_strength, measures.by_loss, measures.by_negatives, measures.by_preset)


@STUDIES.add("reverse-attack")
class ReverseAttack(Study):
    """System B, with and without the reversal, as the source judged it and by an attacker who knows it."""

    name = "reverse-attack"
    title = "The reverse attack: purified, or only not attacked itself?"
    subtitle = (
        "System B: a classifier with a contrastive head moves an image down the contrastive loss, then classifies it. "
        "Judged as its authors did (examples crafted on the classifier alone), and by the adaptive ladder."
    )
    scales: ClassVar[Mapping[str, Any]] = {"demo": DEMO, "small": SMALL, "full": FULL}

    def run(self, scale: str, work: Workspace) -> Outcome:
        settings: Scale = self.scales[scale]
        # The robust classifier takes longest to train; what the other one needs is done beside it.
        work.together([functools.partial(_train, settings), functools.partial(_measure, settings, NORMAL)])
        gates = [functools.partial(_climb, settings, gate) for gate in (True, False)]
        work.together([*gates, functools.partial(_measure, settings, ROBUST)])
        measured = [item for base in BASES for make in _FOR_BOTH for item in make(settings, base, work)]
        measured += [item for make in _FOR_ROBUST for item in make(settings, ROBUST, work)]
        corrupted = {base: measures.by_corruption(settings, base, work) for base in BASES}
        audits = {base: measures.audited(settings, base, work) for base in BASES}
        rates = measures.gate_rates(settings, ROBUST, work)
        plain, gated = (measures.climbed(settings, ROBUST, work, gate) for gate in (False, True))
        rows = [item.row() | _cost(item, work, settings) for item in measured]
        rows += [row for base in BASES for row in measures.corruption_rows(settings, base, corrupted[base])]
        rows += [*ladder_rows(plain, "reversal alone"), *ladder_rows(gated, "gated")]
        return Outcome(
            rows=rows,
            claims=[*judge_claims(measured, corrupted, audits, plain, gated), gate_claim(rates)],
            data=_described(settings, work),
            notes=_notes(scale, settings, measured, audits),
            curves=[Curve(base, work.run_folder(path_of(base)) / "metrics.csv") for base in BASES],
            gallery=gallery(settings, work),
            ladders=[plain["ladder"], gated["ladder"]],
            charts=charts(settings, measured, corrupted, audits, plain, gated),
        )


def _train(settings: Scale, work: Workspace) -> None:
    trained(settings, ROBUST, work)


def _climb(settings: Scale, gate: bool, work: Workspace) -> None:
    measures.climbed(settings, ROBUST, work, gate)


def _measure(settings: Scale, base: str, work: Workspace) -> None:
    for make in (*_FOR_BOTH, *(_FOR_ROBUST if base == ROBUST else ())):
        for _ in make(settings, base, work):
            pass
    measures.by_corruption(settings, base, work)
    measures.audited(settings, base, work)
    if base == ROBUST:
        measures.gate_rates(settings, base, work)


def ladder_rows(found: dict[str, Any], words: str) -> list[dict[str, Any]]:
    """A ladder's attacked rows; the clean ones are of fewer images than the study's own."""
    rows = [row for row in found["rows"] if row["protocol"] != "clean"]
    return [{**row, "settings": {**row["settings"], "ladder": words}, "panel": "ladder"} for row in rows]


def _cost(item: Measured, work: Workspace, settings: Scale) -> dict[str, Any]:
    """What a row cost; that of a bare classifier on clean images is its training's."""
    if item.defense != "none" or item.records.attack != "none":
        return {}
    run = trained(settings, item.base, work)
    return {"cost": {"cpu_seconds": round(run.cpu_seconds, 1), "model_images": run.model_images}}


def _described(settings: Scale, work: Workspace) -> dict[str, Any]:
    train, test = work.table(settings.data, "train"), work.table(settings.data, "test")
    attacked = min(settings.attacked, len(test))
    return {settings.data: {"train": len(train), test.split: len(test), "attacked": attacked}}


def _notes(scale: str, settings: Scale, measured: list[Measured], audits: dict[str, Any]) -> list[str]:
    """Every deviation from the source, in words, what a prediction costs, and what the audit says."""
    notes = [
        "The source names a WRN-34 and loads Carmon et al.'s WRN-28-10, trained with extra images; here the robust "
        f"classifier is {settings.words}, trained without. Images enter it without normalisation, as there.",
        "The source's examples are last iterates of PGD on the classifier alone, and so are those of all rows called "
        "transfer here: they say nothing about an attacker who knows of the reversal. The ladder does.",
        "The source states no budgets for its L1 and L2 sets: "
        + ", ".join(settings.threats[norm] for norm in ("l1", "l2"))
        + " here. A reversal has twice the attack's budget, in the attack's norm, as in the reference.",
        "Negatives come from a fixed bank of training images, so that no prediction depends on batch-mates; the rows "
        "of reverse:mao2021 use the batch, as the reference does, with its 40 steps, 4 views and its loss.",
        "The source's first table (clean 87.52, L1 70.47, L2 10.58, Linf 6.66) is not that of a robust classifier; the "
        "figures beside ours are those of its authors' later one.",
        *_multiples(measured),
        *(f"Audit, {base}: {sentence}" for base, found in audits.items() for sentence in found["sentences"]),
    ]
    if scale != "full":
        notes.append(
            f"Scale {scale}: {settings.words}, {settings.robust['perturb']} for {settings.robust['epochs']} epochs, "
            f"{settings.reversal['steps']} steps of reversal on {settings.reversal['views']} views by default, where "
            "the reference takes 40 on 4."
        )
    return notes


def _multiples(measured: list[Measured]) -> list[str]:
    """What one prediction costs beside a plain one: counted, and in CPU time on the same clean images."""
    clean = [item for item in measured if item.base == ROBUST and item.records.attack == "none"]
    plain = next(item.records for item in clean if item.defense == "none")
    return [
        f"One prediction of {item.defense} sends {item.price} images through the network, all but one of them forward "
        f"and backward, and took {item.records.cpu_seconds / plain.cpu_seconds:.0f} times the CPU time of a plain one; "
        "the source says about 40 times, for five steps."
        for item in clean
        if item.defense != "none" and plain.cpu_seconds > 0
    ]
