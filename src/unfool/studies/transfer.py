"""System C: does pretraining without labels make a classifier robust, with few labels and at little cost?

The source pretrains on CIFAR-100 without labels, then trains one added layer on a share of CIFAR-10's labels, on clean
images or on FGSM examples, and attacks with FGSM. This study repeats both of its tables, adds what its title and its
discussion promise (a combination of tasks, further layers that move, adversarial contrastive pretraining, a second data
set, the cost), and judges all of it under stronger attacks too.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, ClassVar

from unfool.report.curves import Curve
from unfool.studies.base import STUDIES, Outcome, Study
from unfool.studies.transfer_charts import charts
from unfool.studies.transfer_claims import judge_claims
from unfool.studies.transfer_measures import PROBES, measured, probe_rows, probed
from unfool.studies.transfer_networks import WORKFLOW, Plan, folder, plans, pretrained, tables, workflow_cost
from unfool.studies.transfer_scales import (
    ADVERSARIAL,
    COMBINATION,
    COMPARED,
    CONTROL,
    DEMO,
    FULL,
    PERTURBED,
    PRETRAININGS,
    QUARTER,
    SIMCLR,
    SMALL,
    Scale,
)
from unfool.studies.workspace import Workspace

_LONGEST = (SIMCLR, ADVERSARIAL, COMBINATION)
"""Pretrainings that are begun first, so that the processes end together."""


@STUDIES.add("transfer")
class Transfer(Study):
    """System C, its two tables and what they left out."""

    name = "transfer"
    title = "Self-supervised transfer: robust with few labels?"
    subtitle = (
        "System C: a trunk is pretrained without labels, one layer is added and trained on a share of the labels. "
        "Judged as its authors did (FGSM), and by attacks that do not stop after one step."
    )
    scales: ClassVar[Mapping[str, Any]] = {"demo": DEMO, "small": SMALL, "full": FULL}

    def run(self, scale: str, work: Workspace) -> Outcome:
        settings: Scale = self.scales[scale]
        # A set that cannot be had is refused before anything is trained.
        work.table(settings.unlabelled, "train")
        described = _described(settings, work)
        wanted = [(plan, seed) for plan, seeds in plans(settings).items() for seed in range(seeds)]
        for jobs in _jobs(settings, wanted):
            work.together(jobs)
        found: dict[Plan, list[Any]] = {}
        for plan, seed in wanted:
            found.setdefault(plan, []).append(measured(settings, plan, seed, work))
        probes = {(name, features): probed(settings, name, features, work) for name, features in PROBES}
        workflow = workflow_cost(settings, work)
        rows = [row for members in found.values() for one in members for row in one.rows(settings)]
        rows += [row for key, records in probes.items() for row in probe_rows(settings, *key, records, work)]
        return Outcome(
            rows=rows,
            claims=judge_claims(found, probes, workflow),
            data=described,
            notes=_notes(scale, settings),
            curves=[
                Curve(name, work.run_folder(f"pretrained/{folder(name)}") / "metrics.csv") for name in PRETRAININGS
            ],
            gallery=[],
            charts=charts(settings, found, probes, workflow),
        )


def _jobs(settings: Scale, wanted: list[tuple[Plan, int]]) -> list[list[Any]]:
    """What is made side by side, in two rounds, the longest first: whatever needs no pretraining, then the rest."""
    first = [functools.partial(_pretrain, settings, name) for name in sorted(PRETRAININGS, key=_shortness)]
    controls = [pair for pair in wanted if pair[0].model == CONTROL]
    # One job makes the workflow and the control whose length follows from what that cost.
    efficient = [(WORKFLOW, 0), (Plan(model=QUARTER, moves="all"), 0)]
    rest = [pair for pair in wanted if pair[0].model != CONTROL and pair not in efficient]
    second = [functools.partial(_measure, settings, efficient)]
    second += [functools.partial(_measure, settings, [pair]) for pair in sorted(rest, key=_ease)]
    second += [functools.partial(_probe, settings, *key) for key in PROBES]
    return [[*first, *(functools.partial(_measure, settings, [pair]) for pair in sorted(controls, key=_ease))], second]


def _shortness(name: str) -> int:
    return _LONGEST.index(name) if name in _LONGEST else len(_LONGEST)


def _ease(pair: tuple[Plan, int]) -> tuple[bool, bool, bool]:
    plan, _ = pair
    return plan.learnt != PERTURBED, plan.moves == "heads", plan.share != COMPARED


def _pretrain(settings: Scale, name: str, work: Workspace) -> None:
    pretrained(settings, name, work)


def _measure(settings: Scale, pairs: list[tuple[Plan, int]], work: Workspace) -> None:
    for plan, seed in pairs:
        measured(settings, plan, seed, work)


def _probe(settings: Scale, name: str, features: str, work: Workspace) -> None:
    probed(settings, name, features, work)


def _described(settings: Scale, work: Workspace) -> dict[str, Any]:
    found: dict[str, dict[str, int]] = {}
    for other in (False, True):
        train, test = tables(settings, work, other)
        attacked = min(settings.attacked, len(test))
        found.setdefault(test.name, {"train": len(train), test.split: len(test), "attacked": attacked})
    found.setdefault(settings.unlabelled, {})["pretraining"] = len(work.table(settings.unlabelled, "train"))
    return found


def _notes(scale: str, settings: Scale) -> list[str]:
    """Every deviation from the source, in words."""
    head, whole = settings.head, settings.whole
    length = f"{head['steps']} steps" if "steps" in head else f"{head['epochs']} epochs"
    notes = [
        f"The source does not state its budget: {settings.threat} here. FGSM takes one step of that size; examples for "
        "fine-tuning are made of each batch on the network as it is, those for judging on the network judged.",
        "The source trains the added prediction layer alone, and names other choices as future work: rows say what "
        "moved. Without pretraining all layers move.",
        f"The source does not state optimizers or the decay of its learning rate. Fine-tuning: {head['optimizer']} at "
        f"{head['learning_rate']} for the added layer, {whole['optimizer']} at {whole['learning_rate']} where more "
        f"moves, {length} of {head['batch_size']} images, alike for every share of the labels and without pretraining.",
        f"Linear probes read the trunk's last stage, for all training images of {settings.data}; random weights are "
        "those that every pretraining begins with, and gain most where features are standardised first.",
        f"A seed draws the share of the labels, the added layer and the order of images; each pretraining is one run. "
        f"{COMBINATION} is one stage with three losses of equal weight.",
        "Adversarial contrast is dual-stream as in ACL (Jiang et al., NeurIPS 2020): clean and moved views in one loss "
        f"each, with batch norm of their own; {settings.pretrain[ADVERSARIAL][0]['perturb']} within {settings.threat}. "
        "Fine-tuning on FGSM examples is its linear-adversarial fine-tuning, with all layers moving its "
        "full-adversarial one; ACL's authors take PGD examples for these.",
        f"{QUARTER.capitalize()}: all layers, {settings.fast}, for a quarter of the images through the network that "
        "SimCLR and its fine-tuning on FGSM examples of all labels count together.",
    ]
    if scale != "full":
        notes.append(
            f"Scale {scale}: {settings.words}, for the source's ResNet-18; {_epochs(settings)} epochs of pretraining, "
            f"for 100; {length}, for 50 epochs; rotation shows one drawn turn of an image, and bf16 training."
        )
        notes.append(
            f"Attacks search in {settings.precision}; each success counted was confirmed in fp32, and what bf16 left "
            "standing was finished in fp32."
        )
    return notes


def _epochs(settings: Scale) -> str:
    counts = [(name, sum(stage["epochs"] for stage in settings.pretrain[name])) for name in PRETRAININGS]
    return ", ".join(f"{count} ({name})" for name, count in counts)
