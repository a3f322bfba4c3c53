"""What is measured of a defense by those who know it: the audit of its pretext loss, and the adaptive ladder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from unfool.attacks import make_attack
from unfool.attacks.ensemble import attack_passes
from unfool.core.files import JsonObject
from unfool.evaluation.adaptive.audit import audit
from unfool.evaluation.adaptive.ladder import ladder
from unfool.evaluation.adaptive.ladder_settings import LadderSettings
from unfool.evaluation.results.rows import Row
from unfool.evaluation.statistics.gains import Estimate
from unfool.evaluation.statistics.rules import Conditions
from unfool.studies.framework.claims import Claim
from unfool.studies.framework.measurements import Examples, Figures
from unfool.studies.framework.networks import Defended
from unfool.studies.framework.pieces import Images, Measured
from unfool.studies.framework.workspace import Piece, Workspace

if TYPE_CHECKING:
    from unfool.studies.framework.results import Results

_ADAPTIVE_PASSES = 6 * 50
"""About how many predictions of the defense the rungs of a ladder take for each image."""


@dataclass(frozen=True, kw_only=True)
class Audited(Figures):
    """The audit of a defense on examples and their clean images."""

    folder: ClassVar[str] = "audits"

    system: Defended
    examples: Examples

    def needs(self) -> Sequence[Piece]:
        return (self.system, self.examples)

    def cost(self, work: Workspace) -> float:
        return 4 * len(self.examples.images.table(work)) * self.system.passes

    def measure(self, work: Workspace) -> JsonObject:
        table = self.examples.images.table(work)
        return audit(self.system.module(work), table, work.get(self.examples)).to_json()


@dataclass(frozen=True, kw_only=True)
class Laddered(Figures):
    """The adaptive ladder on a defense: ``count`` images on every rung, ``attack`` on the first.

    ``settings`` are the ladder's, its threat model among them; rung (g) is that of gates. ``model`` is what rows of the
    ladder's own table call the network, ``words`` what tells the study's rows of it apart. Clean rows stay out of the
    study's table, which has its own on more images.
    """

    folder: ClassVar[str] = "ladders"

    system: Defended
    images: Images
    count: int
    settings: LadderSettings
    attack: str = "autoattack"
    model: str = ""

    def cost(self, work: Workspace) -> float:
        static = attack_passes(make_attack(self.attack, self.settings.threat or "linf:8/255").parts)
        return self.count * (static + _ADAPTIVE_PASSES * self.system.passes)

    def measure(self, work: Workspace) -> JsonObject:
        table = self.images.table(work)
        with work.bar(f"ladder on {self.system.path}") as advance:
            return ladder(
                self.system.module(work),
                table,
                self.attack,
                settings=replace(self.settings, images=min(self.count, len(table))),
                rungs="abcdefg" if self.system.fresh else "abcdef",
                name=self.model or self.system.network.model,
                defended=self.system.defense,
                folder=work.out / self.folder / self.path,
                progress=advance,
            ).to_json()

    def measured(self, result: JsonObject, work: Workspace) -> Iterator[Measured]:
        for values in result["rows"]:
            row = Row.from_json(values)
            if row.protocol != "clean":
                yield Measured(row=replace(row, settings={**row.settings, **self.words}, panel="ladder"))

    def claim(self, id: str, system: str) -> Claim:
        """That the defense helps against the worst of all rungs; ``system`` begins the sentence."""
        attack = make_attack(self.attack, self.settings.threat or "linf:8/255")
        text = f"{system} more robust than it is by itself ({attack.name}, {attack.threat})"
        return Claim(id=id, text=text, evidence=self._worst_case, rule=_BEYOND_CHANCE)

    def _worst_case(self, results: Results) -> Estimate:
        section = results[self]["ladder"]
        rungs = {rung["rung"]: rung["common"] for rung in section["rungs"]}
        static, replayed, worst = (percent(rungs[letter]) for letter in ("a", "b", "worst"))
        change = section["difference"] or {"difference": 0, "low": -1, "high": 1, "p_value": 1}
        return Estimate(
            mean=change["difference"],
            low=change["low"],
            high=change["high"],
            figures=change,
            detail=f"The bare network keeps {static} of {rungs['worst']['n']} images; its examples replayed leave the "
            f"defense {replayed}, the worst of all rungs {worst}. Worst case minus the bare network",
            over=f"(McNemar p = {change['p_value']:.2g})" if section["difference"] else "(no adaptive rung was run)",
        )


_BEYOND_CHANCE = Conditions(
    holds=lambda change: change["p_value"] < 0.05 and change["low"] > 0,
    fails=lambda change: change["p_value"] < 0.05 and change["high"] < 0,
    words="holds if p is below 0.05 and the whole 95 % interval above 0, fails if p is and all of it is below",
)
"""The rule of the ladder's own verdict."""


def percent(share: Mapping[str, float]) -> str:
    """An accuracy with its interval, as JSON holds them."""
    return f"{100 * share['accuracy']:.1f} % [{100 * share['low']:.1f}, {100 * share['high']:.1f}]"
