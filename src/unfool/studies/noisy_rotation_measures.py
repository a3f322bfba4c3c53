"""What system E's study measures of one extractor: a probe on each stage, and an attack on the best of them."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from unfool.attacks import ProxySettings, make_attack
from unfool.core.files import write_json
from unfool.evaluation import Records, craft, identity, judge
from unfool.evaluation.pretext.probe_records import probe_records
from unfool.studies.noisy_rotation_networks import attacked_images, pretrained, probed_images
from unfool.studies.noisy_rotation_scales import SOURCE, STAGES, Pretraining, Scale
from unfool.studies.workspace import Workspace
from unfool.training.probing.probe import ProbeResult, probe
from unfool.training.probing.settings import ProbeSettings

SPLITS = ("train", "test")


@dataclass(frozen=True, kw_only=True)
class Probed:
    """An extractor with its probes.

    ``records`` by stage and split, one a seed; ``curves`` by stage and split, the mean accuracy of the seeds after
    each epoch; ``best`` is the stage whose probes are best on held-out images; ``attacked`` by threat, the classifier
    of that stage and the first seed (none for some pretrainings). Costs are those of pretraining.
    """

    plan: Pretraining
    cpu_seconds: float
    model_images: int
    best: str
    curves: Mapping[str, Mapping[str, list[float]]]
    records: Mapping[tuple[str, str], list[Records]]
    attacked: Mapping[str, Records]

    def rows(self, seeds: tuple[int, ...]) -> Iterator[dict[str, Any]]:
        """Rows of a results file; ``seed`` is the probe's, and the clean row on test images tells the pretraining's
        cost."""
        pretraining = {"cpu_seconds": round(self.cpu_seconds, 1), "model_images": self.model_images}
        for (stage, split), found in self.records.items():
            for seed, records in zip(seeds, found, strict=True):
                test = split != "train"
                source = SOURCE.get(self.plan.name) if test else None
                value = round(source[STAGES.index(stage)] / 100, 6) if source else None
                row = records.row(self.plan.name, seed=seed, settings={"stage": stage}, source_value=value).to_json()
                yield row | ({"cost": pretraining} if test else {"panel": "charts"})
        for records in self.attacked.values():
            yield records.row(self.plan.name, seed=seeds[0], settings={"stage": self.best}).to_json()


def probed(settings: Scale, plan: Pretraining, work: Workspace) -> Probed:
    """The extractor pretrained, probed and attacked, or all of it found again."""
    extractor = pretrained(settings, plan, work)
    path, own = work.out / "probes" / f"{plan.path}.json", identity(extractor.network)
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    # Weights that were trained again are another extractor, of which nothing is known.
    if found.get("extractor") != own:
        labelled, held_out, test = probed_images(settings, work)
        with work.bar(f"probe {plan.name}") as advance:
            result = probe(
                extractor.network,
                labelled,
                test,
                held_out=held_out,
                stages=STAGES,
                settings=ProbeSettings(**settings.probe, seeds=settings.seeds),
                device=work.device,
                progress=advance,
            )
        for (stage, seed), split in itertools.product(result.probes, SPLITS):
            records = probe_records(result, stage, seed, split=split, threat=settings.threat)
            records.save(_path(work, plan, f"{stage}-{split}-{seed}"))
        best = best_stage(result)
        if plan.attacked:
            _attack(settings, plan, result.classifier(best), work)
        curves = {stage: {split: _curve(result, stage, split) for split in SPLITS} for stage in STAGES}
        # Written last: it says that everything else is there.
        found = {"extractor": own, "best": best, "curves": curves}
        write_json(path, found)
    return Probed(
        plan=plan,
        cpu_seconds=extractor.cpu_seconds,
        model_images=extractor.model_images,
        best=found["best"],
        curves=found["curves"],
        records={
            (stage, split): [Records.load(_path(work, plan, f"{stage}-{split}-{seed}")) for seed in settings.seeds]
            for stage in STAGES
            for split in SPLITS
        },
        attacked={
            threat: Records.load(_path(work, plan, _key(threat))) for threat in settings.threats if plan.attacked
        },
    )


def _path(work: Workspace, plan: Pretraining, key: str) -> Path:
    return work.out / "records" / plan.path / f"{key}.json"


def _key(threat: str) -> str:
    return "attacked-" + threat.replace("/", "-of-").replace(":", "-")


def best_stage(result: ProbeResult) -> str:
    """The stage whose probes, in the mean of the seeds, are best on held-out images."""
    means = {
        stage: sum(result.of(stage, seed).judged["held_out"].accuracy for seed in result.seeds)
        for stage in result.stages
    }
    return max(result.stages, key=lambda stage: means[stage])


def _curve(result: ProbeResult, stage: str, split: str) -> list[float]:
    """Accuracy after each epoch, the mean of the seeds."""
    curves = [getattr(result.of(stage, seed), f"{split}_curve") for seed in result.seeds]
    return [round(float(share), 6) for share in np.mean(curves, axis=0)]


def _attack(settings: Scale, plan: Pretraining, classifier: nn.Module, work: Workspace) -> None:
    table = attacked_images(settings, work)
    for threat in settings.threats:
        attack = make_attack(settings.attack, threat)
        with work.bar(f"{attack.name} on {plan.name}, {threat}") as advance:
            examples = craft(
                classifier,
                table,
                attack,
                proxy=ProxySettings(dtype=settings.precision),
                progress=advance,
            )
        judge(classifier, examples).save(_path(work, plan, _key(threat)))
