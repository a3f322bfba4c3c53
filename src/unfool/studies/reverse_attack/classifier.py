"""What is made and measured of one base classifier of system B: its reversals, sets, audits and ladders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from unfool.attacks import PGD
from unfool.core.files import JsonObject
from unfool.core.threat import ThreatModel
from unfool.defenses import Gate
from unfool.evaluation.pretext.gate_rates import gate_rates
from unfool.models.misuse import MISUSES
from unfool.studies import framework as fw
from unfool.studies.framework.networks import System
from unfool.studies.reverse_attack.aware import AwareOfTwoViews
from unfool.studies.reverse_attack.networks import Misused
from unfool.studies.reverse_attack.scales import LOSSES, REVERSE, SOURCE_STEPS, STEPS, Scale

RATE = 0.05
"""The false-trigger rate that the gate states."""
RUNGS = "abcdefhi"
"""Rungs of the ladders, targeted APGD and Square on the defended system among them."""
_STEP_SHARE = 0.25
"""Step size of attacks in eps: the source's 2/255 of 8/255."""


@dataclass(frozen=True)
class Classifier:
    """A base classifier at a scale, and the pieces and evidence around it."""

    scale: Scale
    network: fw.NetworkSpec

    def reversal(
        self, norm: str = "linf", gate: bool = False, variant: Mapping[str, Any] | None = None, **settings: Any
    ) -> fw.Defended:
        """The reversal in a norm, within twice the attack's budget and in its steps, as in the reference."""
        scale, eps = self.scale, ThreatModel.parse(self.scale.threats[norm]).eps
        budget = {"precision": scale.ladder.precision, "norm": norm, "eps": 2 * eps, "step_size": _STEP_SHARE * eps}
        return fw.Defended(
            network=self.network,
            kind="gate" if gate else "reverse",
            words="gate:contrast" if gate else REVERSE,
            defense_settings={**budget, **scale.contrast.tasks["contrast"].settings, **scale.reversal, **settings},
            variant=variant or {},
            fresh=gate,
            name=norm,
        )

    def fixed(self, gate: bool = False, variant: Mapping[str, Any] | None = None, **settings: Any) -> fw.Defended:
        """The reversal that audits, charts, corruptions and ladders take: a fixed function of each image."""
        words = {"negatives": "bank"} if self.scale.fixed else {}
        changed = {**self.scale.fixed, **settings}
        return self.reversal(gate=gate, variant=words if variant is None else variant, **changed)

    @property
    def preset(self) -> fw.Defended:
        """The reversal with the reference's own settings."""
        settings = {"precision": self.scale.ladder.precision, "preset": "mao2021"}
        return fw.Defended(network=self.network, kind="reverse", words="reverse:mao2021", defense_settings=settings)

    def examples(self, norm: str = "linf", steps: int = 0, network: fw.NetworkSpec | None = None) -> fw.Examples:
        """PGD on the bare classifier, last iterates, stored; as many steps as the scale's sets unless stated."""
        threat, precision = ThreatModel.parse(self.scale.threats[norm]), self.scale.ladder.precision
        attack = PGD(threat, steps=steps or self.scale.steps, step_size=_STEP_SHARE * threat.eps, goal="last")
        network = network or self.network
        return fw.Examples(network=network, attack=attack, images=self.images, precision=precision, kept=True)

    @property
    def images(self) -> fw.Images:
        return fw.Images(self.scale.data).sample(self.scale.attacked)

    def clean(self, system: System) -> fw.Clean:
        """Clean images: the whole test split, or so many as a scale reverses."""
        few, images = self.scale.reversed, fw.Images(self.scale.data)
        images = images.sample(few) if few and isinstance(system, fw.Defended) else images
        return fw.Clean(system=system, images=images, threat=self.scale.threats["linf"])

    def attacked(self, system: System, norm: str = "linf", steps: int = 0, panel: str | None = None) -> fw.Attacked:
        return fw.Attacked(system=system, examples=self.examples(norm, steps), panel=panel)

    def sets(self) -> Iterator[fw.Measurement]:
        """Clean images and sets in three norms, without and with the reversal; then more and more steps in Linf."""
        yield self.clean(self.network)
        yield from (self.attacked(self.network, norm, STEPS) for norm in self.scale.threats)
        if self.scale.steps != STEPS:
            yield from (self.attacked(self.network, norm) for norm in self.scale.threats if norm != "linf")
        yield self.clean(self.reversal())
        yield from (self.attacked(self.reversal(norm), norm) for norm in self.scale.threats)
        for steps in SOURCE_STEPS:
            if steps != STEPS:
                yield self.attacked(self.network, steps=steps)
            yield self.attacked(self.reversal(variant={"reversal_steps": STEPS}, steps=STEPS), steps=steps)

    def first_table(self) -> Iterator[fw.Measurement]:
        """The source's first table by its likely causes, each a way of using the classifier wrongly."""
        for cause in MISUSES:
            wrong = Misused.of(self.network, cause)
            yield self.clean(wrong)
            for norm in self.scale.threats:
                yield fw.Attacked(system=wrong, examples=self.examples(norm, STEPS, wrong))

    def variants(self) -> Iterator[fw.Measurement]:
        """Every loss, numbers of negatives, and the preset where the reversal is not that already."""
        for loss in LOSSES:
            yield self.attacked(self.fixed(variant={"loss": loss}, loss=loss), panel="charts")
        for drawn in self.scale.negatives:
            reversal = self.fixed(variant={"drawn": drawn}, bank=max(self.scale.negatives), drawn=drawn)
            yield self.attacked(reversal, panel="charts")
        if self.scale.fixed:
            yield self.attacked(self.fixed())
        else:
            yield from (self.clean(self.preset), self.attacked(self.preset))

    @property
    def corrupted(self) -> list[fw.Corrupted]:
        """Every common corruption, without and with the reversal."""
        few = self.images.sample(self.scale.corrupted, "corrupted images")
        systems = (self.network, self.fixed())
        return [fw.Corrupted(system=system, images=few, severity=self.scale.severity) for system in systems]

    @property
    def audited(self) -> fw.Audited:
        return fw.Audited(system=self.fixed(), examples=self.examples())

    def ladder(self, words: str) -> fw.Laddered:
        """The adaptive ladder on the reversal, alone or gated."""
        return fw.Laddered(
            system=self.fixed(gate=words == "gated"),
            images=self.images,
            attack=self.scale.yardstick,
            settings=self.scale.ladder,
            words={"ladder": words},
            rungs=(*RUNGS, AwareOfTwoViews),
        )

    @property
    def gate_rates(self) -> TriggerRates:
        return TriggerRates(system=self.fixed(gate=True))


@dataclass(frozen=True, kw_only=True)
class TriggerRates(fw.Figures):
    """How often clean test images trigger a gate whose threshold was set on others, over many resamples."""

    folder: ClassVar[str] = "rates"

    def measure(self, work: fw.Workspace) -> JsonObject:
        gate, table = self.system.module(work), fw.Images(data=self.system.network.data).table(work)
        return gate_rates(cast("Gate", gate), table, rate=RATE).to_json()
