"""The playground without its page: systems by name, pictures by key, and what attacks and reversals make of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from threading import Lock

from unfool.core.errors import SpecError
from unfool.core.spec import unknown
from unfool.core.threat import ThreatModel
from unfool.defenses import Defense
from unfool.playground.attack import MOST_STEPS, AttackOutcome, attack_pictures, look_at
from unfool.playground.pictures import Picture, picture_of, uploaded_picture
from unfool.playground.reversal import ReversalOutcome, reversal_of, reverse_outcomes
from unfool.playground.systems import PlaygroundSystem, Seen, lenders_of

Opener = Callable[[], PlaygroundSystem]


class Playground:
    """Systems to play with, opened when they are first used.

    Nothing is kept between calls but what every call would make again, and one call computes at a time: what a user
    sees does not depend on what others do.

    Args:
        openers: By name, what opens each system.

    Raises:
        SpecError: No system.
    """

    def __init__(self, openers: Mapping[str, Opener]):
        if not openers:
            raise SpecError("there is no system to play with; give a run's folder, a weights file or --model")
        self._openers = dict(openers)
        self._systems: dict[str, PlaygroundSystem] = {}
        self._reversals: dict[tuple[str, str], Defense] = {}
        self._turn = Lock()

    @property
    def names(self) -> list[str]:
        """The systems' names, the first one first."""
        return list(self._openers)

    def system(self, name: str) -> PlaygroundSystem:
        """The system of a name; raises SpecError for an unknown one, and as its opener does."""
        if name not in self._openers:
            raise unknown("system", str(name), self._openers)
        with self._turn:
            return self._opened(name)

    def lenders(self, name: str) -> list[str]:
        """Systems that lend examples to one."""
        system = self.system(name)
        with self._turn:
            return lenders_of(system, {other: self._opened(other) for other in self._openers})

    def picture(self, name: str, key: str) -> Picture:
        """A picture of a system; raises SpecError for an unknown key."""
        return picture_of(self.system(name), key)

    def upload(self, name: str, path: str | Path, shown_name: str = "") -> Picture:
        """An uploaded picture for a system; raises DataError for what is no image."""
        return uploaded_picture(self.system(name), path, shown_name)

    def look(self, name: str, picture: Picture) -> Seen:
        """What a system sees in a picture."""
        system = self.system(name)
        with self._turn:
            return look_at(system, picture)

    def attack(
        self, name: str, picture: Picture, threat: ThreatModel, steps: int, lender: str | None = None
    ) -> AttackOutcome:
        """Attack a picture on a system itself, or on the ``lender``; SpecError for settings that are not allowed."""
        return self.attack_all(name, [picture], threat, steps, lender)[0]

    def attack_all(
        self, name: str, pictures: Sequence[Picture], threat: ThreatModel, steps: int, lender: str | None = None
    ) -> list[AttackOutcome]:
        """As `attack`, several pictures at once."""
        if not 1 <= steps <= MOST_STEPS:
            raise SpecError(f"{steps} steps are not allowed; give 1 to {MOST_STEPS}")
        system = self.system(name)
        other = None
        if lender is not None:
            if lender not in self.lenders(name):
                raise unknown(f"lender of examples to {name}", lender, self.lenders(name))
            other = self.system(lender)
        with self._turn:
            return attack_pictures(system, pictures, threat, steps, other)

    def reverse(self, name: str, head: str, outcome: AttackOutcome) -> ReversalOutcome:
        """Move the attacked image down a head's loss; raises as `reversal_of` does."""
        return self.reverse_all(name, head, [outcome])[0]

    def reverse_all(self, name: str, head: str, outcomes: Sequence[AttackOutcome]) -> list[ReversalOutcome]:
        """As `reverse`, several images at once."""
        system = self.system(name)
        with self._turn:
            if (name, head) not in self._reversals:
                self._reversals[name, head] = reversal_of(system, head)
            return reverse_outcomes(self._reversals[name, head], head, outcomes)

    def _opened(self, name: str) -> PlaygroundSystem:
        if name not in self._systems:
            self._systems[name] = self._openers[name]()
        return self._systems[name]
