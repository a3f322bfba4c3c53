"""What is measured of a defense by those who know it: the audit of its pretext loss, and the adaptive ladder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from unfool.attacks import make_attack
from unfool.evaluation.adaptive.audit import audit
from unfool.evaluation.adaptive.ladder import ladder
from unfool.evaluation.adaptive.ladder_settings import LadderSettings
from unfool.evaluation.rows import Row
from unfool.studies.framework.measurements import Examples
from unfool.studies.framework.networks import Defended, attack_passes
from unfool.studies.framework.pieces import Images, Measured, Measurement
from unfool.studies.framework.workspace import Piece, Workspace

_ADAPTIVE_PASSES = 6 * 50
"""About how many predictions of the defense the rungs of a ladder take for each image."""


@dataclass(frozen=True, kw_only=True)
class Audited(Measurement):
    """The audit of a defense on examples and their clean images, as JSON; it gives claims and charts, no rows."""

    system: Defended
    examples: Examples

    @property
    def path(self) -> str:
        return f"{self.system.path}/audit"

    def needs(self) -> Sequence[Piece]:
        return (self.system, self.examples)

    def cost(self, work: Workspace) -> float:
        return 4 * len(self.examples.images.table(work)) * self.system.passes

    def exists(self, work: Workspace) -> bool | None:
        return work.file("audits", self.path).is_file()

    def make(self, work: Workspace) -> dict[str, Any]:
        def look() -> dict[str, Any]:
            table = self.examples.images.table(work)
            return audit(self.system.module(work), table, work.get(self.examples)).to_json()

        return work.json("audits", self.path, look)

    def measured(self, result: dict[str, Any], work: Workspace) -> Iterator[Measured]:
        return iter(())


@dataclass(frozen=True, kw_only=True)
class Laddered(Measurement):
    """The adaptive ladder on a defense, as JSON: ``count`` images on every rung, ``attack`` on the first.

    ``settings`` are the ladder's, its threat model among them; rung (g) is that of gates. ``model`` is what rows of the
    ladder's own table call the network, ``words`` what tells the study's rows of it apart. Clean rows stay out of the
    study's table, which has its own on more images.
    """

    system: Defended
    images: Images
    count: int
    attack: str = "autoattack"
    settings: LadderSettings = field(default_factory=lambda: LadderSettings(threat="linf:8/255"))
    model: str = ""
    words: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> str:
        return f"{self.system.path}/ladder"

    def needs(self) -> Sequence[Piece]:
        return (self.system,)

    def cost(self, work: Workspace) -> float:
        static = attack_passes(make_attack(self.attack, self.settings.threat or "linf:8/255"))
        return self.count * (static + _ADAPTIVE_PASSES * self.system.passes)

    def exists(self, work: Workspace) -> bool | None:
        return work.file("ladders", self.path).is_file()

    def make(self, work: Workspace) -> dict[str, Any]:
        def climb() -> dict[str, Any]:
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
                    folder=work.out / "ladders" / self.path,
                    progress=advance,
                ).to_json()

        return work.json("ladders", self.path, climb)

    def measured(self, result: dict[str, Any], work: Workspace) -> Iterator[Measured]:
        for values in result["rows"]:
            row = Row.from_json(values)
            if row.protocol != "clean":
                yield Measured(row=replace(row, settings={**row.settings, **self.words}, panel="ladder"))
