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
from unfool.studies.auxiliary_reversal.scales import IN_SHORT, INPAINTING, JIGSAW, LOSSES, MASKS, SEVERAL, Part, Scale
from unfool.studies.framework.recipes import LABELS, NORMAL, ROBUST
from unfool.tasks import TASKS, make_task
from unfool.training import RunConfig, TaskConfig, in_regime
from unfool.training.regimes import CLASSIFIER_FIRST, JOINT, REGIMES

ALONE, UNCHANGED = "alone", "alone without augmentation"
"""In the place of a regime: a task without a classifier, and the same learnt from images as they lie on their grid."""
CLEAN, AUDITED = "none", "pgd-20"
"""Clean images, and the examples that an audit looks at."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A network of a part, a kind of training (``base``) and a regime, bare or behind a reversal, and its measurements.

    It learns one task ``beside`` the labels, or alone; a classifier first has none, and carries the heads of them all.
    A reversal descends ``task`` (empty: bare), in a ``change`` of it (empty: as the scale says), or behind a ``gate``.
    """

    scale: Scale
    part: Part
    base: str
    regime: str
    beside: str = ""
    task: str = ""
    change: str = ""
    gate: bool = False

    @property
    def tasks(self) -> list[str]:
        """The auxiliary tasks of the network: of a part with ``every`` all that need no labels, else those it names."""
        named = {config.task for config in self.part.tasks}
        every = [name for name in TASKS if not make_task(name).needs and (self.part.every or name in named)]
        return [self.beside] if self.beside else every

    @property
    def losses(self) -> list[str]:
        """Losses of inpainting that have decoders on a classifier: that of the scale (empty), and its variants."""
        if self.regime not in REGIMES or INPAINTING not in self.tasks:
            return []
        varied = self.part.every and (self.base, self.regime) == (NORMAL, CLASSIFIER_FIRST)
        return ["", *(LOSSES if varied else [])]

    @property
    def kind(self) -> str:
        """Data set and kind of training."""
        return f"{self.part.data}, {self.base}"

    @property
    def who(self) -> str:
        """The network in words."""
        words = {JOINT: "jointly with labels", CLASSIFIER_FIRST: "on the frozen classifier"}
        return f"{self.kind}, {words.get(self.regime, f'{self.regime}, without a classifier')}"

    @property
    def is_plain(self) -> bool:
        """Whether it is a reversal that is neither gated nor a variant: one with an audit and a ladder."""
        return bool(self.task) and not self.change and not self.gate

    @property
    def reversals(self) -> list[Subject]:
        """Those down the tasks that the network carries, then those of the variants, then the gated ones."""
        plain = [replace(self, task=task) for task in self.tasks]
        changes = (*self.losses[1:], SEVERAL) if self.losses[1:] else ()
        gated = plain if (self.base, self.regime) == (ROBUST, CLASSIFIER_FIRST) else []
        varied = [replace(self, task=INPAINTING, change=change) for change in changes]
        return [*plain, *varied, *(replace(each, gate=True) for each in gated)]

    def config(self, task: str, **settings: Any) -> TaskConfig:
        """A task as the part describes it, with other settings; on clean views."""
        default = TaskConfig(task=task, perturbed=False)
        config = next((each for each in self.part.tasks if each.task == task), default)
        return replace(config, settings={**config.settings, **settings})

    @cached_property
    def network(self) -> fw.NetworkSpec:
        """The network; both regimes are made from one description of the tasks."""
        own = {"augmentation": "none"} if self.regime == UNCHANGED else {}
        tasks = {name: self.config(name, **own) for name in self.tasks}
        tasks |= {head_of(INPAINTING, loss): self.config(INPAINTING, **LOSSES[loss]) for loss in self.losses[1:]}
        if self.regime in REGIMES:
            whole = replace(self.part.trainings[self.base], tasks={**LABELS, **tasks})
            stages = in_regime(self.regime, whole, self.part.heads)
        else:
            stages = (replace(self.part.alone or self.part.trainings[self.base], tasks=tasks),)
        model = {JOINT: f"labels + {self.beside}", CLASSIFIER_FIRST: "labels"}.get(self.regime, self.beside)
        key = {"data": self.part.data, "training": IN_SHORT[self.base], "regime": self.regime.replace("-", " ")}
        config = RunConfig(data=self.part.data, trunk=trunk_spec(self.part.trunk), stages=stages)
        return fw.NetworkSpec(key={**key, "model": model}, config=config)

    @cached_property
    def system(self) -> fw.NetworkSpec | fw.Defended:
        """The network, or the reversal: with the attack's own ball and step, since the source states neither; it
        descends the loss that was learnt."""
        if not self.task:
            return self.network
        threat, kind = ThreatModel.parse(self.scale.threat), "gate" if self.gate else "reverse"
        budget = {"norm": threat.norm_name, "eps": threat.eps, "step_size": self.scale.step_size}
        settings = {
            "task": self.task,
            "head": head_of(self.task, self.change),
            "precision": self.scale.ladder.precision,
            **budget,
            **self.scale.reversal,
            **self.config(self.task, **LOSSES.get(self.change, {})).settings,
            **self.scale.reversals.get(self.task, {}),
            **({"masks": MASKS, "place": "random"} if self.change == SEVERAL else {}),
        }
        return fw.Defended(
            network=self.network,
            kind=kind,
            words=f"{kind}:{self.task}",
            defense_settings=settings,
            variant={"variant": self.change} if self.change else {},
            fresh=self.gate,
        )

    @cached_property
    def records(self) -> dict[str, fw.Clean | fw.Attacked]:
        """Clean images, and the examples crafted on the bare network, by attack; the strongest one last."""
        scale, images, last = self.scale, fw.Images(data=self.part.data), {"goal": "last"}
        # Rows of labels are of the classifier by itself, whatever was learnt on it.
        words = {"regime": None} if not self.task and self.regime == CLASSIFIER_FIRST else {}
        clean = fw.Clean(system=self.system, images=images, threat=scale.threat, words=words)
        records: dict[str, fw.Clean | fw.Attacked] = {CLEAN: clean}
        # Last iterates are replayed, as the source's are; of the strongest attack any success counts.
        steps = {"step_size": scale.step_size, **last}
        for name, settings in {"fgsm": last, "pgd-2": steps, AUDITED: steps, scale.strongest: {}}.items():
            count = scale.attacked if settings else min(scale.strongly, scale.attacked)
            examples = fw.Examples(
                network=self.network,
                attack=make_attack(name, scale.threat, settings),
                images=images.sample(count, "attacked"),
                precision=scale.ladder.precision,
                kept=True,
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
        return Learnt(system=self.network, tasks=self.tasks, losses=self.losses)

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
    kinds = [(part, base) for part in scale.parts for base in part.trainings]
    first = [Subject(scale=scale, part=part, base=base, regime=CLASSIFIER_FIRST) for part, base in kinds]
    bare = [net for each in first for net in (each, *(replace(each, regime=JOINT, beside=task) for task in each.tasks))]
    alone = [
        Subject(scale=scale, part=each.part, base=NORMAL, regime=regime, beside=task)
        for each in first
        for task in each.tasks
        for regime in ((ALONE, UNCHANGED) if task == JIGSAW else (ALONE,))
        if each.base == NORMAL and each.part.alone is not None
    ]
    return [*(each for net in bare for each in (net, *net.reversals)), *alone]


@dataclass(frozen=True, kw_only=True)
class Learnt(fw.Figures):
    """How well a network does each of its tasks on the test split, and fills regions, with every loss that it has a
    decoder for."""

    folder: ClassVar[str] = "pretext"

    tasks: list[str]
    losses: list[str]

    def measure(self, work: fw.Workspace) -> JsonObject:
        run, table = work.get(self.system.network), work.table(self.system.network.data, "test")
        decoders = {loss: run.task(head_of(INPAINTING, loss)) for loss in self.losses}
        return pretext_figures(run.network, {name: run.task(name) for name in self.tasks}, decoders, table)
