"""The networks of system D, which tasks they carry, the sets crafted on them, and the reversals around them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from unfool.attacks import ProxySettings, make_attack
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.data.table import Table
from unfool.defenses import make_defense
from unfool.evaluation import AdversarialSet
from unfool.studies.auxiliary_scales import INPAINTING, JIGSAW, LOSSES, MASKS, REPLAYED, SEVERAL, Part, Scale
from unfool.studies.recipes import NORMAL, ROBUST
from unfool.studies.workspace import Workspace
from unfool.tasks import TASKS, Task, make_task
from unfool.training import RunConfig, StageConfig, TaskConfig, TrainedRun, cut_held_out, in_regime
from unfool.training.regimes import CLASSIFIER_FIRST, JOINT

ALONE, UNCHANGED = "alone", "alone without augmentation"
"""In the place of a regime: a task without a classifier, and the same learnt from images as they lie on their grid."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """One network: of a part, a kind of training and a regime; ``task`` is the auxiliary of a joint one, and empty for
    a classifier first, which carries the heads of all tasks."""

    part: Part
    base: str
    regime: str
    task: str = ""

    def __hash__(self) -> int:
        # A part holds mappings, which have no hash; the path tells networks of one scale apart.
        return hash(self.path)

    @property
    def path(self) -> str:
        """Where its pieces lie."""
        return "/".join(
            words.replace(" ", "-") for words in (self.part.data, self.base, self.regime, self.task) if words
        )

    @property
    def model(self) -> str:
        """What its rows call it."""
        return f"labels + {self.task}" if self.regime == JOINT else "labels"


@dataclass(frozen=True, kw_only=True)
class Reversal:
    """A reversal around a network: down ``task``, in a ``variant`` of it (empty: as the scale says); or gated."""

    network: Trained
    task: str
    variant: str = ""
    gate: bool = False

    @property
    def defense(self) -> str:
        """What its rows call it."""
        return f"{'gate' if self.gate else 'reverse'}:{self.task}"

    @property
    def path(self) -> str:
        """Where its pieces lie."""
        words = self.variant.replace(" ", "-")
        return "/".join([self.network.path, self.defense.replace(":", "-"), *([words] if words else [])])


def who(network: Trained) -> str:
    """A network in words."""
    words = {JOINT: "jointly with labels", CLASSIFIER_FIRST: "on the frozen classifier"}
    told = words.get(network.regime, f"{network.regime}, without a classifier")
    return f"{network.part.data}, {network.base}, {told}"


def tasks_of(part: Part) -> list[str]:
    """The auxiliary tasks of a part: those that it names, and every other one that needs no labels if it says so."""
    found = [name for name in TASKS if not make_task(name).needs]
    return [name for name in found if part.every or name in part.tasks]


def networks(settings: Scale) -> list[Trained]:
    """All classifiers: of each part and kind of training the one that learnt labels first, then the joint ones."""
    found = []
    for part in settings.parts:
        for base in part.trainings:
            found.append(Trained(part=part, base=base, regime=CLASSIFIER_FIRST))
            found += [Trained(part=part, base=base, regime=JOINT, task=task) for task in tasks_of(part)]
    return found


def solvers(settings: Scale) -> list[Trained]:
    """Networks of a task without a classifier."""
    return [
        Trained(part=part, base=NORMAL, regime=regime, task=task)
        for part in settings.parts
        if part.alone is not None
        for task in tasks_of(part)
        for regime in (ALONE, *([UNCHANGED] if part.grid and task == JIGSAW else []))
    ]


def reversals(network: Trained) -> list[Reversal]:
    """Those down the tasks that the network carries, then those of the variants, then the gated ones."""
    tasks = [network.task] if network.regime == JOINT else tasks_of(network.part)
    found = [Reversal(network=network, task=task) for task in tasks]
    if _argued(network):
        found += [Reversal(network=network, task=INPAINTING, variant=words) for words in (*LOSSES, SEVERAL)]
    if network.regime == CLASSIFIER_FIRST and network.base == ROBUST:
        found += [Reversal(network=network, task=task, gate=True) for task in tasks]
    return found


def _argued(network: Trained) -> bool:
    first = network.regime == CLASSIFIER_FIRST and network.base == NORMAL
    return first and network.part.arguments and INPAINTING in tasks_of(network.part)


def config_of(part: Part, task: str, variant: str = "") -> TaskConfig:
    """A task as the part describes it, the same in both regimes, and on clean views in both."""
    told = part.tasks.get(task, {})
    values = {**told.get("settings", {}), **LOSSES.get(variant, {})}
    return TaskConfig(task=task, weight=told.get("weight", 1.0), perturbed=False, settings=values)


def head_of(task: str, variant: str) -> str:
    """The name of a task's head, or of that of a variant with a decoder of its own."""
    return f"{task}-{variant.replace(' ', '-')}" if variant in LOSSES else task


def run_config(network: Trained) -> RunConfig:
    """Both regimes are made from one description of the tasks."""
    part = network.part
    names = [network.task] if network.task else tasks_of(part)
    tasks = {name: config_of(part, name) for name in names}
    if _argued(network):
        tasks |= {head_of(INPAINTING, words): config_of(part, INPAINTING, words) for words in LOSSES}
    if network.regime == UNCHANGED:
        bare = {**tasks[network.task].settings, "augmentation": "none"}
        tasks = {network.task: dataclasses.replace(tasks[network.task], settings=bare)}
    if network.regime in (ALONE, UNCHANGED):
        stages = (StageConfig(tasks=tasks, **(part.alone or {})),)
    else:
        whole = StageConfig(tasks={"labels": TaskConfig(task="labels"), **tasks}, **part.trainings[network.base])
        stages = in_regime(network.regime, whole, part.heads)
    return RunConfig(data=part.data, trunk=part.trunk, stages=stages)


def trained(network: Trained, work: Workspace) -> TrainedRun:
    """The network, trained or found."""
    return work.trained(network.path, run_config(network))


def bound(network: Trained, task: str, variant: str, work: Workspace) -> Task:
    """A task of a trained network, on its head."""
    config = next(
        stage.tasks[head_of(task, variant)]
        for stage in run_config(network).stages
        if head_of(task, variant) in stage.tasks
    )
    made = make_task(config.task, config.settings)
    table = work.table(network.part.data, "train")
    classes = {column: len(names) for column, names in table.classes.items()}
    made.bind(trained(network, work).network, head_of(task, variant), classes, Streams(0))
    return made.eval()


def attacked_images(settings: Scale, part: Part, work: Workspace, count: int = 0) -> Table:
    """The test images that are attacked, the same for every network; fewer of them lie inside more."""
    table = work.table(part.data, "test")
    return table.sample(min(count or settings.attacked, settings.attacked, len(table)), Streams(0).named("attacked"))


def attacks(settings: Scale) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """The attacks on bare networks, on how many images each, and their settings."""
    for name in REPLAYED:
        step = {} if name == "fgsm" else {"step_size": settings.step_size}
        yield name, settings.attacked, {**step, "goal": "last"}
    yield settings.strongest, min(settings.strongly, settings.attacked), {}


def crafted(settings: Scale, network: Trained, attack: str, work: Workspace) -> AdversarialSet:
    """Examples crafted on the bare network, stored."""
    count, values = next((count, values) for name, count, values in attacks(settings) if name == attack)
    return work.adversarial(
        network.path,
        trained(network, work),
        attacked_images(settings, network.part, work, count),
        make_attack(attack, settings.threat, values),
        seed=0,
        proxy=ProxySettings(dtype=settings.precision),
        keep=True,
    )


def reversed_by(settings: Scale, reversal: Reversal, work: Workspace) -> nn.Module:
    """The defense, with the attack's own ball and step, since the source states neither; it descends the loss that was
    learnt. A gate's threshold is set on held-out images."""
    network, task = reversal.network, reversal.task
    run, threat = trained(network, work), ThreatModel.parse(settings.threat)
    values: dict[str, Any] = {
        "task": task,
        "head": head_of(task, reversal.variant),
        "precision": settings.precision,
        "norm": threat.norm_name,
        "eps": threat.eps,
        "step_size": settings.step_size,
        **settings.reversal,
        **config_of(network.part, task, reversal.variant).settings,
        **settings.reversals.get(task, {}),
    }
    if reversal.variant == SEVERAL:
        values |= {"masks": MASKS, "place": "random"}
    learnt, fresh = cut_held_out(run.config, work.table(network.part.data, "train"))
    table = fresh if reversal.gate and fresh is not None else learnt
    if reversal.gate and "bank" in values:
        # Half of the held-out images are a gate's bank at most, since its threshold needs the others.
        values["bank"] = min(values["bank"], len(table) // 2)
        values["drawn"] = min(values["drawn"], values["bank"])
    classes = {column: len(names) for column, names in table.classes.items()}
    streams = Streams(0).named("defense")
    kind = "gate" if reversal.gate else "reverse"
    return make_defense(kind, run.network, classes, data=table, streams=streams, settings=values)
