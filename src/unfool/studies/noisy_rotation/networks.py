"""The extractors of system E, the probes on their stages, and the attack on the best probe of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from unfool.attacks import ProxySettings, make_attack
from unfool.evaluation import Records, classify, craft
from unfool.studies import framework as fw
from unfool.studies.framework import row_of
from unfool.studies.framework.pieces import slug
from unfool.studies.noisy_rotation.scales import RESNET_STAGES, STAGES, WHOLE, Pretraining, Scale
from unfool.training import RunConfig, TaskConfig
from unfool.training.probing.result import ProbeResult


def extractor(scale: Scale, plan: Pretraining) -> fw.NetworkSpec:
    """A pretrained network; random weights are those that rotation begins with."""
    (data, split), task = scale.unlabelled, scale.rotation
    if plan.task == "labels":
        (data, column), split = scale.labels, "train"
        task = TaskConfig(task="labels", settings={"column": column})
    times = scale.times if plan.longer else 1
    stage = replace(
        scale.pretrain,
        tasks={task.task: task},
        perturb=scale.noises[plan.noise] if plan.noise else None,
        threat=scale.threat,
        epochs=scale.pretrain.epochs * times,
        drop_every=scale.pretrain.drop_every * times,
    )
    size, trunk, norm = scale.size, scale.trunks[plan.trunk], scale.normalisation
    return fw.NetworkSpec(
        key={"model": plan.name},
        config=RunConfig(data=data, size=size, trunk=trunk, normalisation=norm, stages=(stage,)),
        images=fw.Images(data=data, split=split, size=size),
        trained=plan.task is not None,
        # That the source's steps cannot reach its budget is one of the study's findings.
        quiet=True,
    )


def stages_of(scale: Scale, plan: Pretraining) -> tuple[str, ...]:
    """The stages of an extractor that are probed."""
    return STAGES if scale.trunks[plan.trunk].name == scale.trunks[WHOLE].name else RESNET_STAGES


def labelled_images(scale: Scale) -> tuple[fw.Images, fw.Images, fw.Images]:
    """The images that a probe learns from, others on which a stage is chosen, and the test images."""
    rest, held_out = fw.Images(data=scale.data, split="train", size=scale.size).cut(scale.held_out, "held out")
    _, labelled = rest.cut(scale.labelled, "labelled")
    return labelled, held_out, fw.Images(data=scale.data, size=scale.size)


@dataclass(frozen=True, kw_only=True)
class AttackedStages(fw.ProbedStages):
    """Probes of an extractor, and by threat the records of the attack on the classifier of the best stage and the
    first seed (none for some extractors)."""

    attacked: Mapping[str, Records]


@dataclass(frozen=True, kw_only=True)
class AttackedProbes(fw.Probed):
    """Probes, the best of which is attacked inside each of the ``threats``; the proxy searches in ``precision``."""

    attack: str
    threats: tuple[str, ...]
    attacked_images: fw.Images
    precision: str

    def make(self, work: fw.Workspace) -> AttackedStages:
        attacked = {threat: self._records_path(threat) for threat in self.threats}
        probed = super().make(work)
        records = {threat: Records.load(work.file("records", path)) for threat, path in attacked.items()}
        return AttackedStages(**vars(probed), attacked=records)

    def keep(self, result: ProbeResult, best: str, work: fw.Workspace) -> None:
        classifier, table = result.classifier(best), self.attacked_images.table(work)
        for threat in self.threats:
            attack = make_attack(self.attack, threat)
            with work.bar(f"{attack.name} on {self.system.model}, {threat}") as advance:
                proxy = ProxySettings(dtype=self.precision)
                examples = craft(classifier, table, attack, proxy=proxy, progress=advance)
            classify(classifier, examples).save(work.file("records", self._records_path(threat)))

    def measured(self, result: fw.ProbedStages, work: fw.Workspace) -> Iterator[fw.Measured]:
        yield from super().measured(result, work)
        attacked = result.attacked if isinstance(result, AttackedStages) else {}
        for records in attacked.values():
            row = row_of(records, self.system, {"stage": result.best})
            yield fw.Measured(row=replace(row, seed=self.settings.seeds[0]), records=records)

    def _records_path(self, threat: str) -> str:
        return f"{self.path}/attacked-{slug(threat)}"


def probes(scale: Scale, plan: Pretraining) -> AttackedProbes:
    """What is measured of an extractor."""
    labelled, held_out, test = labelled_images(scale)
    return AttackedProbes(
        system=extractor(scale, plan),
        images=labelled,
        test=test,
        held_out=held_out,
        settings=scale.probe,
        stages=stages_of(scale, plan),
        splits=("train", "test"),
        threat=scale.threat,
        words={"stage": "{stage}"},
        attack=scale.attack,
        threats=scale.threats if plan.attacked else (),
        attacked_images=test.sample(scale.attacked),
        precision=scale.precision,
    )
