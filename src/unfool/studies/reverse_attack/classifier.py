"""What is made and measured of one base classifier of system B: its reversals, sets, audits and ladders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

from unfool.attacks import PGD, make_attack
from unfool.core.files import JsonObject
from unfool.core.threat import ThreatModel
from unfool.defenses import Gate
from unfool.evaluation.pretext.gate_rates import gate_rates
from unfool.studies import framework as fw
from unfool.studies.framework.networks import System
from unfool.studies.reverse_attack.scales import LOSSES, REVERSE, SOURCE_STEPS, STEPS, Scale

RATE = 0.05
"""The false-trigger rate that the gate states."""
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
            defense_settings={**budget, **scale.reversal, **scale.contrast.tasks["contrast"].settings, **settings},
            variant=variant or {},
            fresh=gate,
            name=norm,
        )

    @property
    def preset(self) -> fw.Defended:
        """The reversal with the reference's own settings."""
        settings = {"precision": self.scale.ladder.precision, "preset": "mao2021"}
        return fw.Defended(network=self.network, kind="reverse", words="reverse:mao2021", defense_settings=settings)

    def examples(self, norm: str = "linf", steps: int = STEPS) -> fw.Examples:
        """PGD on the bare classifier, last iterates, stored."""
        threat, precision = ThreatModel.parse(self.scale.threats[norm]), self.scale.ladder.precision
        attack = PGD(threat, steps=steps, step_size=_STEP_SHARE * threat.eps, goal="last")
        return fw.Examples(network=self.network, attack=attack, images=self.images, precision=precision, kept=True)

    @property
    def images(self) -> fw.Images:
        return fw.Images(data=self.scale.data).sample(self.scale.attacked)

    def clean(self, system: System) -> fw.Clean:
        return fw.Clean(system=system, images=self.images, threat=self.scale.threats["linf"])

    def attacked(self, system: System, norm: str = "linf", steps: int = STEPS, panel: str | None = None) -> fw.Attacked:
        return fw.Attacked(system=system, examples=self.examples(norm, steps), panel=panel)

    def sets(self) -> Iterator[fw.Measurement]:
        """Clean images and the stored sets in three norms, without and with the reversal (in the set's norm); then more
        and more steps in Linf, without, and with the source's five steps of reversal."""
        yield self.clean(self.network)
        yield from (self.attacked(self.network, norm) for norm in self.scale.threats)
        yield self.clean(self.reversal())
        yield from (self.attacked(self.reversal(norm), norm) for norm in self.scale.threats)
        for steps in SOURCE_STEPS:
            if steps != STEPS:
                yield self.attacked(self.network, steps=steps)
            yield self.attacked(self.reversal(variant={"reversal_steps": STEPS}, steps=STEPS), steps=steps)

    def variants(self) -> Iterator[fw.Measurement]:
        """A strong attack, which says how robust it really is; every loss, numbers of negatives, and the preset."""
        # The stored sets are last iterates, as the source's are; here an image counts as fooled if any step fooled it.
        attack, goal = make_attack(self.scale.strong, self.scale.threats["linf"]), "at any step"
        examples = replace(self.examples(), attack=attack, kept=False, name=goal)
        yield fw.Attacked(system=self.network, examples=examples, words={"fooled": goal})
        for loss in LOSSES:
            yield self.attacked(self.reversal(variant={"loss": loss}, loss=loss), panel="charts")
        for drawn in self.scale.negatives:
            reversal = self.reversal(variant={"drawn": drawn}, drawn=drawn, bank=max(self.scale.negatives))
            yield self.attacked(reversal, panel="charts")
        yield from (self.clean(self.preset), self.attacked(self.preset))

    @property
    def corrupted(self) -> list[fw.Corrupted]:
        """Every common corruption, without and with the reversal."""
        few = self.images.sample(self.scale.corrupted, "corrupted images")
        systems = (self.network, self.reversal())
        return [fw.Corrupted(system=system, images=few, severity=self.scale.severity) for system in systems]

    @property
    def audited(self) -> fw.Audited:
        return fw.Audited(system=self.reversal(), examples=self.examples())

    def ladder(self, words: str) -> fw.Laddered:
        """The adaptive ladder on the reversal, alone or gated."""
        return fw.Laddered(
            system=self.reversal(gate=words == "gated"),
            images=self.images,
            attack=self.scale.yardstick,
            settings=self.scale.ladder,
            words={"ladder": words},
        )

    @property
    def gate_rates(self) -> TriggerRates:
        return TriggerRates(system=self.reversal(gate=True))


@dataclass(frozen=True, kw_only=True)
class TriggerRates(fw.Figures):
    """How often clean test images trigger a gate whose threshold was set on others, over many resamples."""

    folder: ClassVar[str] = "rates"

    def measure(self, work: fw.Workspace) -> JsonObject:
        gate, table = self.system.module(work), fw.Images(data=self.system.network.data).table(work)
        return gate_rates(cast("Gate", gate), table, rate=RATE).to_json()
