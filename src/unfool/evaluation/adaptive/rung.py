"""What a rung of the adaptive ladder is, and the table of all rungs.

A rung is one class: how it is called, what it needs of a defense, and how it attacks. Registering a class in `RUNGS`
adds it to every ladder.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from unfool.attacks import Attack
from unfool.core.registry import Registry
from unfool.core.spec import unknown
from unfool.core.threat import ThreatModel
from unfool.defenses import Defense
from unfool.evaluation.adaptive.defense_attack import DefenseAttack
from unfool.evaluation.adaptive.ladder_run import LadderRun, WarmStarts
from unfool.evaluation.adaptive.settings import LadderSettings
from unfool.evaluation.lean.steps import confirmed_over_draws
from unfool.evaluation.records import Records


class Rung(ABC):
    """One rung of the ladder."""

    key: ClassVar[str]
    """Its letter, by which results files and printed tables name it; rungs are run in the order of their keys."""
    name: ClassVar[str]
    """The name it is registered by, which is that of its attack in rows."""
    title: ClassVar[str]
    """What it does, in a few words."""
    adaptive: ClassVar[bool] = True
    """Whether the attacker knows the defense."""
    required: ClassVar[bool] = False
    """Whether every ladder has it, since others build on it."""
    without_gradient: ClassVar[str] = ""
    """What it means if the rung's attack met no gradient; empty if that is no reason for doubt."""

    def unfit(self, defense: Defense) -> str | None:
        """Why the rung does not apply to a defense; None if it does."""
        return None

    def unfit_in(self, run: LadderRun) -> str | None:
        """The same, where it takes a look at the system; by default what `unfit` says."""
        return self.unfit(run.declared)

    def note(self, defense: Defense) -> str | None:
        """What a reader must know beside the rung's figures; None if there is nothing."""
        return None

    @abstractmethod
    def evaluate(self, run: LadderRun) -> Records:
        """Attack, and evaluate the system on what came out."""


RUNGS: Registry[type[Rung]] = Registry(
    "rung of the ladder", "unfool.evaluation.adaptive", "unfool.rungs", subclass_of=Rung
)


@dataclass(frozen=True, kw_only=True)
class RungContext:
    """What an adaptive rung builds its attack from.

    Attributes:
        defense: The defense, with what it declares.
        threat: The threat model of the ladder.
        starts: The examples of the static attack.
        settings: How hard the ladder tries.
        run: The ladder, which knows what a look at the system showed; None outside of one.
    """

    defense: Defense
    threat: ThreatModel
    starts: WarmStarts
    settings: LadderSettings
    run: LadderRun | None = None


class AdaptiveRung(Rung):
    """An attack on the deployed defense. A subclass gives the attack.

    Example:
        A rung of one more attack, in every ladder of this program from now on:

        >>> from unfool.attacks import make_attack
        >>> from unfool.evaluation.adaptive.rung import RUNGS, AdaptiveRung
        >>> @RUNGS.add("fab")  # doctest: +SKIP
        ... class Boundary(AdaptiveRung):
        ...     key, name, title = "m", "fab", "nearest boundary"
        ...     def attack(self, context):
        ...         return make_attack("fab:steps=20", context.threat)
    """

    @abstractmethod
    def attack(self, context: RungContext) -> Attack:
        """The attack, within the context's threat model. The deployed defense confirms its successes, a random one in
        several draws in a row."""

    def evaluate(self, run: LadderRun) -> Records:
        context = RungContext(
            defense=run.declared, threat=run.threat, starts=run.starts, settings=run.settings, run=run
        )
        attack = confirmed_over_draws(self.attack(context)) if run.random else self.attack(context)
        attack = DefenseAttack.of(attack, self.name, run.declared.images_per_prediction)
        return run.evaluate(run.craft(self.key, run.defense, attack))


AnyRung = str | Rung | type[Rung]


def all_rungs() -> list[Rung]:
    """Every registered rung, in the order of their keys."""
    return sorted((RUNGS[name]() for name in RUNGS), key=lambda rung: rung.key)


def parse_rungs(rungs: str | Iterable[AnyRung] | None = None) -> list[Rung]:
    """Rungs of a ladder in their order, those that every ladder has among them; default all.

    Args:
        rungs: Names, keys, classes or objects; or text: ``"bpda,unrolled"``, or keys in a row such as ``"abcf"``.

    Raises:
        SpecError: For a rung that is not known.
    """
    known = all_rungs()
    if rungs is None:
        return known
    if isinstance(rungs, str):
        single = any(rungs in (rung.key, rung.name) for rung in known)
        rungs = [rungs] if single else rungs.split(",") if "," in rungs else list(rungs)
    chosen = {rung.key: rung for rung in known if rung.required}
    for rung in map(parse_rung, rungs):
        chosen[rung.key] = rung
    return sorted(chosen.values(), key=lambda rung: rung.key)


def parse_rung(rung: AnyRung) -> Rung:
    """One rung by its name, its key, its class or itself; SpecError for one that is not known."""
    if isinstance(rung, Rung):
        return rung
    if not isinstance(rung, str):
        return rung()
    known = all_rungs()
    for item in known:
        if rung.strip() in (item.key, item.name):
            return item
    raise unknown("rung of the ladder", rung, [*(item.key for item in known), *(item.name for item in known)])
