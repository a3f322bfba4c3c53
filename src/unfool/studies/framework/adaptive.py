"""What is measured of a defense by those who know it: the audit of its pretext loss, and the adaptive ladder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from unfool.attacks import make_attack
from unfool.attacks.ensemble import attack_passes
from unfool.core.files import JsonObject
from unfool.evaluation.adaptive.audit import audit
from unfool.evaluation.adaptive.ladder import ladder
from unfool.evaluation.adaptive.rung import AnyRung
from unfool.evaluation.adaptive.settings import LadderSettings
from unfool.evaluation.estimates.ladders import worst_case
from unfool.evaluation.results.rows import Row
from unfool.evaluation.statistics.rules import Above
from unfool.studies.framework.claims import Claim
from unfool.studies.framework.measurements import Examples, Figures
from unfool.studies.framework.networks import Defended
from unfool.studies.framework.pieces import Images, Measured
from unfool.studies.framework.workspace import Piece, Workspace

_ADAPTIVE_PASSES = 6 * 50
"""About how many predictions of the defense the rungs of a ladder take for each image."""


@dataclass(frozen=True, kw_only=True)
class Audited(Figures):
    """The audit of a defense on examples and their clean images."""

    folder: ClassVar[str] = "audits"
    keys: ClassVar[Sequence[str]] = ("ids", "correct")

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
    """The adaptive ladder on a defense, ``attack`` on its first rung.

    ``settings`` are the ladder's, its threat model and number of images among them; ``rungs`` are its rungs or their
    keys, of two with one key the later; a gate has (g) beside them.
    ``model`` is what rows of the ladder's own table call the network, ``words`` what tells the study's rows of it
    apart. Clean rows stay out of the study's table, which has its own on more images.
    """

    folder: ClassVar[str] = "ladders"

    system: Defended
    images: Images
    settings: LadderSettings
    attack: str = "autoattack"
    model: str = ""
    rungs: Sequence[AnyRung] = "abcdef"

    def cost(self, work: Workspace) -> float:
        static = attack_passes(make_attack(self.attack, self.settings.threat or "linf:8/255").parts)
        return self._count(work) * (static + _ADAPTIVE_PASSES * self.system.passes)

    def _count(self, work: Workspace) -> int:
        most, wanted = len(self.images.table(work)), self.settings.images
        return min(wanted, most) if isinstance(wanted, int) else most

    def measure(self, work: Workspace) -> JsonObject:
        table = self.images.table(work)
        with work.bar(f"ladder on {self.system.path}") as advance:
            return ladder(
                self.system.module(work),
                table,
                self.attack,
                settings=replace(self.settings, images=self._count(work)),
                rungs=[*self.rungs, *("g" * self.system.fresh)],
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
        return Claim(id, text, lambda results: worst_case(results[self]["ladder"]), Above(0))
