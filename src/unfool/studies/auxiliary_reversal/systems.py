"""The systems of system D, networks and reversals around them, and what is measured of each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

from unfool.attacks import make_attack
from unfool.core.files import JsonObject
from unfool.core.threat import ThreatModel
from unfool.evaluation.pretext.figures import pretext_figures
from unfool.models.trunks import trunk_spec
from unfool.studies import framework as fw
from unfool.studies.auxiliary_reversal import scales
from unfool.studies.auxiliary_reversal.scales import INPAINTING, JIGSAW, LOSSES, Part, Scale
from unfool.tasks import TASKS, make_task
from unfool.training import RunConfig, TaskConfig, in_regime
from unfool.training.recipes import LABELS, NORMAL
from unfool.training.regimes import CLASSIFIER_FIRST, JOINT, REGIMES

ALONE, UNCHANGED = "alone", "alone without augmentation"
"""In the place of a regime: a task without a classifier, and the same learnt from images as they lie on their grid."""
CLEAN, AUDITED = "none", "pgd-20"
"""Clean images, and the examples that an audit looks at."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network of a part, a kind of training (``base``) and a regime, bare or behind a reversal, and its measurements.

    It learns one task ``beside`` the labels, or alone, perhaps in another ``arm``; a classifier first has none, and
    carries the heads of them all. A reversal descends ``task`` (empty: bare), in a ``change`` of it (empty: as the
    scale says), or behind a ``gate``.
    """

    scale: Scale
    part: Part
    base: str
    regime: str
    beside: str = ""
    arm: str = ""
    task: str = ""
    change: str = ""
    gate: bool = False

    @property
    def tasks(self) -> list[str]:
        """The auxiliary tasks of the network: of a part with ``every`` all that need no labels, else those it names."""
        if self.beside:
            return [self.beside]
        if self.base in self.part.first_only:
            return [INPAINTING]
        named = {config.task for config in self.part.tasks}
        return [name for name in TASKS if not make_task(name).needs and (self.part.every or name in named)]

    @property
    def losses(self) -> list[str]:
        """Losses of inpainting that have decoders on a classifier: that of the scale (empty), and its variants."""
        if self.regime not in REGIMES or INPAINTING not in self.tasks:
            return []
        return ["", *(LOSSES if (self.base, self.regime) == (NORMAL, CLASSIFIER_FIRST) else [])]

    @property
    def kind(self) -> str:
        """Data set and kind of training."""
        return f"{self.part.data}, {self.base}"

    @property
    def who(self) -> str:
        """The network in words."""
        words = {JOINT: "jointly with labels", CLASSIFIER_FIRST: "on the frozen classifier"}
        how = words.get(self.regime, f"{self.regime}, without a classifier")
        return ", ".join([self.kind, how, *filter(None, [self.arm])])

    @property
    def is_plain(self) -> bool:
        """Whether it is a reversal that is neither gated nor a variant: one with an audit and a ladder."""
        return bool(self.task) and not self.change and not self.gate

    @property
    def is_robust(self) -> bool:
        """Whether the classifier learnt first, and against attacks."""
        return self.base != NORMAL and self.regime == CLASSIFIER_FIRST

    @property
    def images(self) -> fw.Images:
        """The test images."""
        return fw.Images(data=self.part.data, size=self.part.size)

    @property
    def reversals(self) -> list[Subject]:
        """Those down the tasks that the network carries, then those of the variants, then the gated ones; of an arm
        none."""
        if self.arm:
            return []
        plain = [replace(self, task=task) for task in self.tasks]
        changes = (*self.losses[1:], scales.SEVERAL) if self.losses[1:] else ()
        gated = plain if self.is_robust else []
        varied = [replace(self, task=INPAINTING, change=change) for change in changes]
        return [*plain, *varied, *(replace(each, gate=True) for each in gated)]

    def config(self, task: str, **settings: Any) -> TaskConfig:
        """A task as the part describes it, with other settings; on clean views."""
        default = TaskConfig(task=task, perturbed=False)
        config = next((each for each in self.part.tasks if each.task == task), default)
        return replace(config, settings={**config.settings, **scales.ARMS.get(self.arm, {}), **settings})

    @cached_property
    def network(self) -> fw.NetworkSpec:
        """The network; both regimes are made from one description of the tasks."""
        part, own = self.part, {"augmentation": "none"} if self.regime == UNCHANGED else {}
        tasks = {name: self.config(name, **own) for name in self.tasks}
        tasks |= {head_of(INPAINTING, loss): self.config(INPAINTING, **LOSSES[loss]) for loss in self.losses[1:]}
        stage = {**part.trainings, **part.first_only}[self.base]
        if self.regime in REGIMES:
            stages = in_regime(self.regime, replace(stage, tasks={**LABELS, **tasks}), part.heads)
        else:
            stages = (replace(part.alone or stage, tasks=tasks),)
        trunk, size, pixels = trunk_spec(part.trunk), part.size, part.normalisation
        config = RunConfig(data=part.data, size=size, trunk=trunk, normalisation=pixels, stages=stages)
        model = {JOINT: f"labels + {self.beside}", CLASSIFIER_FIRST: "labels"}.get(self.regime, self.beside)
        key = {"data": part.data, "training": scales.IN_SHORT[self.base], "regime": self.regime.replace("-", " ")}
        return fw.NetworkSpec(key={**key, "model": model, "arm": self.arm}, config=config)

    @cached_property
    def system(self) -> fw.NetworkSpec | fw.Defended:
        """The network, or the reversal: with the attack's own ball and step, since the source states neither; it
        descends the loss that was learnt."""
        if not self.task:
            return self.network
        scale, kind = self.scale, "gate" if self.gate else "reverse"
        threat, variant = ThreatModel.parse(scale.threat), {"variant": self.change} if self.change else {}
        settings = {
            "task": self.task,
            "head": head_of(self.task, self.change),
            "precision": scale.ladder.precision,
            "norm": threat.norm_name,
            "eps": threat.eps,
            "step_size": scale.step_size,
            **scale.reversal,
            **self.config(self.task, **LOSSES.get(self.change, {})).settings,
            **scale.reversals.get(self.task, {}),
            **({"masks": scales.MASKS, "place": "random"} if self.change == scales.SEVERAL else {}),
        }
        words = f"{kind}:{self.task}"
        return fw.Defended(
            network=self.network, kind=kind, words=words, defense_settings=settings, variant=variant, fresh=self.gate
        )

    @cached_property
    def records(self) -> dict[str, fw.Clean | fw.Attacked]:
        """Clean images, and the examples crafted on the bare network, by attack; the strongest one last."""
        scale, last = self.scale, {"goal": "last"}
        # Rows of labels are of the classifier by itself, whatever was learnt on it.
        words = {"regime": None} if not self.task and self.regime == CLASSIFIER_FIRST else {}
        attacked = self.images.sample(scale.attacked, "attacked")
        every = attacked if self.change else self.images
        records: dict[str, fw.Clean | fw.Attacked] = {
            CLEAN: fw.Clean(system=self.system, images=every, threat=scale.threat, words=words)
        }
        # Last iterates are replayed, as the source's are; of the strongest attack any success counts.
        steps = {"step_size": scale.step_size, **last}
        # Two steps of half of eps reach eps from the image itself, and seldom from a random start.
        halves = {"step_size": ThreatModel.parse(scale.threat).eps / 2, "random_start": False, **last}
        for name, settings in {"fgsm": last, "pgd-2": halves, AUDITED: steps, scale.strongest: {}}.items():
            images = attacked if settings else self.images.sample(min(scale.strongly, scale.attacked), "attacked")
            attack, precision = make_attack(name, scale.threat, settings), scale.ladder.precision
            examples = fw.Examples(
                network=self.network,
                attack=attack,
                images=images,
                precision=precision,
                kept=True,
                name="from the image" if settings is halves else "",
            )
            records[name] = fw.Attacked(system=self.system, examples=examples, words=words)
        return records

    @property
    def audit(self) -> fw.Audited:
        return fw.Audited(system=self.system, examples=self.records[AUDITED].examples)  # pyright: ignore

    @property
    def ladder(self) -> fw.Laddered:
        return fw.Laddered(
            system=self.system,  # pyright: ignore[reportArgumentType]
            images=self.audit.examples.images,
            attack=self.scale.strongest,
            settings=self.scale.ladder,
            model=f"{self.network.model}, {self.base}",
            words={**self.system.settings, "ladder": self.system.defense},
        )

    @property
    def learnt(self) -> Learnt:
        return Learnt(system=self.network, images=self.images, tasks=self.tasks, losses=self.losses)

    @property
    def measurements(self) -> list[fw.Measurement]:
        """Of a classifier its rows, those of the ladder (not of a variant) and the audit (not of a gate); and of every
        network what it learnt."""
        records = [*self.records.values()] if self.regime in REGIMES else []
        ladder = [self.ladder] if self.task and not self.change else []
        audit = [self.audit] if self.task and not self.gate else []
        return [*records, *ladder, *audit, *([] if self.task else [self.learnt])]


def head_of(task: str, loss: str) -> str:
    """The name of a task's head, or of that of a variant with a decoder of its own."""
    return f"{task}-{loss.replace(' ', '-')}" if loss in LOSSES else task


def subjects(scale: Scale) -> list[Subject]:
    """Of each part and kind of training the classifier that learnt labels first, then the joint ones, each bare and
    behind its reversals; then tasks without a classifier, a jigsaw once more without augmentation."""
    kinds = [(part, base) for part in scale.parts for base in (*part.trainings, *part.first_only)]
    every: list[Subject] = []
    alone: list[Subject] = []
    for part, base in kinds:
        first = Subject(scale=scale, part=part, base=base, regime=CLASSIFIER_FIRST)
        beside = first.tasks if base in part.trainings else []
        joint = [replace(first, regime=JOINT, beside=task) for task in beside]
        varied = [each for each in joint if part.arms and (each.base, each.beside) == (NORMAL, JIGSAW)]
        arms = [replace(each, arm=arm) for each in varied for arm in scales.ARMS]
        every += [each for network in (first, *joint, *arms) for each in (network, *network.reversals)]
        if base == NORMAL and part.alone is not None:
            ways = [(task, way) for task in beside for way in (ALONE, UNCHANGED) if task == JIGSAW or way == ALONE]
            alone += [replace(first, regime=way, beside=task) for task, way in ways]
    return [*every, *alone]


@dataclass(frozen=True, kw_only=True)
class Learnt(fw.Figures):
    """How well a network does each of its tasks on the test split, and fills regions, with every loss that it has a
    decoder for."""

    folder: ClassVar[str] = "pretext"

    images: fw.Images
    tasks: list[str]
    losses: list[str]

    def measure(self, work: fw.Workspace) -> JsonObject:
        run, table = work.get(self.system.network), self.images.table(work)
        decoders = {loss: run.task(head_of(INPAINTING, loss)) for loss in self.losses}
        return pretext_figures(run.network, {name: run.task(name) for name in self.tasks}, decoders, table)
