"""What system C's study measures: every fine-tuned network under every attack, and a linear probe of every trunk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from unfool.attacks import ProxySettings, make_attack
from unfool.core.streams import Streams
from unfool.evaluation import Records
from unfool.evaluation.pretext.probe_records import probe_records
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec
from unfool.studies.transfer_networks import WORKFLOW, Plan, attacked_images, fine_tuned, folder, pretrained, tables
from unfool.studies.transfer_scales import (
    ADVERSARIAL,
    COMPARED,
    CONTROL,
    LEARNT,
    PERTURBED,
    PRETRAININGS,
    QUARTER,
    RANDOM,
    SIMCLR,
    SOURCE,
    SOURCE_TASKS,
    Scale,
)
from unfool.studies.workspace import Workspace
from unfool.training import TrainedRun
from unfool.training.probing.probe import probe
from unfool.training.probing.settings import ProbeSettings

NATURAL, FGSM, PGD, STRONG = "none", "fgsm", "pgd", "strong"
"""Keys of a network's records: clean images, and the three attacks of a scale."""
PROBED = "last"
"""The trunk stage that a linear probe reads, which is also what the added layer reads."""
AS_THEY_ARE, STANDARDISED = "features as they are", "features standardised"
PROBES = (
    *((name, AS_THEY_ARE) for name in (*PRETRAININGS, RANDOM)),
    *((name, STANDARDISED) for name in (SIMCLR, RANDOM)),
)
"""Trunks that are probed, and what the probe reads: random weights gain most from standardised features."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One fine-tuned network: its records by attack (not all have been judged by the strong one), and what
    fine-tuning it cost."""

    plan: Plan
    seed: int
    records: Mapping[str, Records]
    cpu_seconds: float
    model_images: int

    def rows(self, settings: Scale) -> Iterator[dict[str, Any]]:
        """A row for every attack; that of clean images tells what fine-tuning cost."""
        words = dict(self.plan.settings)
        if self.plan.other:
            words["label_column"] = settings.other.column
        for attack, records in self.records.items():
            value = source_value(self.plan, attack)
            row = records.row(self.plan.model, seed=self.seed, settings=words, source_value=value).to_json()
            if attack == NATURAL:
                row["cost"] = {"cpu_seconds": round(self.cpu_seconds, 1), "model_images": self.model_images}
            yield row


def source_value(plan: Plan, attack: str) -> float | None:
    """The source's figure for a network and an attack, as a share; None where it has none."""
    if plan.other or attack not in (NATURAL, FGSM) or plan.moves != ("all" if plan.model == CONTROL else "heads"):
        return None
    found = SOURCE.get((plan.model, plan.share))
    if found is not None:
        return found[2 * LEARNT.index(plan.learnt) + (attack == FGSM)] / 100
    asked = (plan.share, plan.learnt, attack) == (COMPARED, PERTURBED, FGSM)
    return SOURCE_TASKS[plan.model] / 100 if asked and plan.model in SOURCE_TASKS else None


def measured(settings: Scale, plan: Plan, seed: int, work: Workspace) -> Measured:
    """A network, fine-tuned and judged; by the strong attack where the source compares tasks, and the controls."""
    run = fine_tuned(settings, plan, seed, work)
    _, test = tables(settings, work, plan.other)
    name, column = f"{plan.path}/{seed}", settings.other.column if plan.other else None
    found = {NATURAL: work.clean(name, run.network, test, settings.threat, column=column)}
    attacks = {FGSM: (FGSM, settings.attacked), PGD: (settings.pgd, settings.attacked)}
    if judged_strongly(plan, seed):
        attacks[STRONG] = settings.strong, settings.judged
    for key, (attack, count) in attacks.items():
        found[key] = _attacked(settings, plan, name, run, attack, count, work)
    return Measured(plan=plan, seed=seed, records=found, cpu_seconds=run.cpu_seconds, model_images=run.model_images)


def judged_strongly(plan: Plan, seed: int) -> bool:
    """Every seed of the controls and where hardly an image stands; one where robust networks would take minutes."""
    if plan.other or not (plan.share == COMPARED or plan.model in (CONTROL, QUARTER) or plan == WORKFLOW):
        return False
    return seed == 0 or plan.model == CONTROL or (plan.moves == "heads" and plan.model != ADVERSARIAL)


def _attacked(
    settings: Scale, plan: Plan, name: str, run: TrainedRun, attack: str, count: int, work: Workspace
) -> Records:
    made = make_attack(attack, settings.threat)
    return work.judged(
        name,
        run.network,
        lambda: work.adversarial(
            name,
            run,
            attacked_images(settings, work, count, plan.other),
            made,
            seed=0,
            proxy=ProxySettings(dtype=settings.precision),
            keep=False,
            column=settings.other.column if plan.other else None,
        ),
        made.name,
    )


def probed(settings: Scale, model: str, features: str, work: Workspace) -> list[Records]:
    """Test images read by a linear probe of a trunk's last stage, one record a seed of the probe."""
    asked = ProbeSettings(**settings.probe, standardise=features == STANDARDISED)
    place = work.out / "records" / "probes" / folder(model) / folder(features)
    paths = [place / f"{seed}.json" for seed in asked.seeds]
    if not all(path.is_file() for path in paths):
        train, test = tables(settings, work)
        with work.bar(f"probe of {model}, {features}") as advance:
            found = probe(
                _trunk(settings, model, work),
                train,
                test,
                stages=(PROBED,),
                settings=asked,
                device=work.device,
                progress=advance,
            )
        for seed, path in zip(asked.seeds, paths, strict=True):
            probe_records(found, PROBED, seed, threat=settings.threat).save(path)
    return [Records.load(path) for path in paths]


def probe_rows(
    settings: Scale, model: str, features: str, records: list[Records], work: Workspace
) -> Iterator[dict[str, Any]]:
    """The probe's rows; their cost is that of the pretraining."""
    cost = {"cpu_seconds": 0.0, "model_images": 0}
    if model != RANDOM:
        run = pretrained(settings, model, work)
        cost = {"cpu_seconds": round(run.cpu_seconds, 1), "model_images": run.model_images}
    for one in records:
        yield one.row(model, settings={"linear_probe": f"stage {PROBED}, {features}"}).to_json() | {"cost": cost}


def _trunk(settings: Scale, model: str, work: Workspace) -> Network:
    """A pretrained network, or the one that every pretraining begins with."""
    if model != RANDOM:
        return pretrained(settings, model, work).network
    return Network.build(TrunkSpec.from_dict(settings.trunk), {}, streams=Streams(0)).eval().to(work.device)
