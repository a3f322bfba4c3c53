"""What a ladder leaves: its rungs' records, the worst case over them, the verdict, and the sentences that tell it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from unfool.core.errors import DataError
from unfool.evaluation.claims import ClaimResult
from unfool.evaluation.crafting.adversarial_set import AdversarialSet
from unfool.evaluation.records import TRANSFER, Records
from unfool.evaluation.reliability.flags import too_many
from unfool.evaluation.rows import Row, Share
from unfool.evaluation.statistics.comparison import PER_IMAGE, WORST_CASE, Comparison
from unfool.evaluation.statistics.intervals import paired_bootstrap
from unfool.evaluation.study_result import StudyResult

TITLES = {
    "a": "the network by itself, the yardstick",
    "b": "the examples of (a), replayed",
    "c": "gradient passed straight through (BPDA)",
    "d": "BPDA over redrawn randomness (EOT)",
    "e": "aware of the pretext loss",
    "f": "exact gradient, unrolled",
    "g": "the gate, jointly",
    "worst": "worst of (b) to (g) on each image",
}
"""What each rung is, in a few words."""
ADAPTIVE = "adaptive"
HELPS, FAILS, UNDECIDED = "helps", "fails", "undecided"
_CLAIMS = {HELPS: "holds", FAILS: "fails", UNDECIDED: "undecided"}
_SIGNIFICANT = 0.05


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """What the ladder found about a ``defense`` around a ``model``, both by name.

    ``rungs`` are records by letter, each on its own images; ``clean`` those of the network and of the defense on clean
    images; ``sets`` the examples of (a) and (c) to (g). ``worst`` is the worst case over (b) to (g) on the images that
    all rungs have, ``against`` compares it with (a) there, None where no adaptive rung was run; ``absent`` says why a
    rung is missing. ``price`` counts the images through a network for one prediction.
    """

    model: str
    defense: str
    rungs: dict[str, Records]
    clean: tuple[Records, Records]
    sets: dict[str, AdversarialSet]
    worst: Records
    against: Comparison | None
    price: int
    absent: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    examples: list[dict[str, Any]] = field(default_factory=list)
    """A few images to look at, as `pictured` gives them."""

    @property
    def verdict(self) -> str:
        """``helps`` or ``fails`` where the worst case is shown to be above or below (a), else ``undecided``.

        Shown means: McNemar's exact two-sided p-value is below 0.05, and the paired bootstrap's 95 % interval of the
        difference leaves out 0.
        """
        found = self.against
        if found is None or found.p_value >= _SIGNIFICANT:
            return UNDECIDED
        return HELPS if found.low > 0 else FAILS if found.high < 0 else UNDECIDED

    @property
    def doubts(self) -> list[str]:
        """Why the comparison is not to be believed, one sentence each; empty if nothing speaks against it."""
        why = {"a": "so the yardstick is too high", "c": "so BPDA is no attack on this defense"}
        return [
            f"({letter}) {one.attack}: there was no gradient on {one.flat} of {one.count} images, {why[letter]}"
            for letter, one in self.rungs.items()
            if letter in why and too_many(one.flat, one.count)
        ]

    @property
    def common(self) -> dict[str, Records]:
        """The rungs on the images that all of them have."""
        return {letter: restricted(records, self.worst.ids) for letter, records in self.rungs.items()}

    def rows(self) -> list[Row]:
        """Rows of a results file: clean without and with the defense, the rungs, the worst case.

        Beside a row's own figures, ``rung`` is its letter, and ``common`` its accuracy on the images of the worst case,
        which is above that of no rung there.
        """
        names = ("none", self.defense)
        rows = [records.row(self.model, defense=name) for records, name in zip(self.clean, names, strict=True)]
        common = self.common | {WORST_CASE: self.worst}
        for letter, records in [*self.rungs.items(), (WORST_CASE, self.worst)]:
            row = records.row(self.model, defense="none" if letter == "a" else self.defense)
            adaptive = letter not in ("a", "b") and records.protocol != TRANSFER
            rows.append(
                dataclasses.replace(
                    row,
                    protocol=ADAPTIVE if adaptive else row.protocol,
                    rung=letter,
                    zero_gradient=records.flat,
                    common=_share(common[letter]),
                )
            )
        return rows

    def sentences(self) -> list[str]:
        """What (b) says, what the worst case says, and the cost; one sentence each, with their figures."""
        static, replayed = self.rungs["a"], self.rungs["b"]
        gain = _points(*paired_bootstrap(replayed.correct, static.correct))
        told = [
            f"Judged by replayed examples alone (b), the defense keeps {_percent(replayed)} where the network keeps "
            f"{_percent(static)}, {gain}: this says nothing about an attacker who knows the defense.",
        ]
        if self.against is None:
            told.append("No adaptive rung was run, so nothing is known about an attacker who knows the defense.")
        else:
            said = {
                HELPS: "the defense helps",
                FAILS: "the defense makes the system easier to fool",
                UNDECIDED: "no difference is shown, so the defense is not known to help",
            }
            told.append(
                f"Against the worst of {_letters([letter for letter in self.rungs if letter != 'a'])} on each image, "
                f"it keeps {_percent(self.worst)} where the network under (a) keeps {_percent(self.common['a'])}, "
                f"{_points(self.against.difference, self.against.low, self.against.high)} "
                f"(McNemar p = {self.against.p_value:.2g}): {said[self.verdict]}."
            )
        bare, defended = (one.cpu_seconds for one in self.clean)
        if self.price == 1:
            told.append("One prediction sends 1 image through a network, as without the defense.")
        else:
            times = f", and took {defended / bare:.0f} times the CPU time" if bare > 0 else ""
            told.append(
                f"One prediction sends {self.price} images through a network, {self.price} times as many{times}."
            )
        return told

    def result(self) -> StudyResult:
        """Everything as the results that `unfool report` shows as a page."""
        claim = ClaimResult(
            text=f"{self.defense} makes {self.model} more accurate under attack than it is by itself "
            f"({self.rungs['a'].attack} at {self.rungs['a'].threat}).",
            verdict=_CLAIMS[self.verdict],
            evidence=self.sentences(),
        )
        return StudyResult(
            system=f"{self.model} with {self.defense}",
            rows=self.rows(),
            claims=[claim],
            ladders=[self.section()],
            details={"doubts": self.doubts},
        )

    def to_json(self) -> dict[str, Any]:
        """A results file, which `unfool report` shows as a page."""
        return self.result().to_json()

    def section(self) -> dict[str, Any]:
        """What the page shows of the ladder beside the rows: verdict, rungs, their costs, and which are missing."""
        common = self.common | {"worst": self.worst}
        shown = [*self.rungs.items(), ("worst", self.worst)]
        rungs = [
            {
                "rung": letter,
                "title": TITLES[letter],
                "attack": records.attack,
                "protocol": self._protocol(letter, records),
                **_share(records).to_json(),
                "common": _share(common[letter]).to_json(),
                "cpu_seconds": round(records.cpu_seconds, 2),
                "model_images": records.model_images,
                "fooled_by": {} if letter == "worst" else dict(records.fooled_by),
                "flat": records.flat,
            }
            for letter, records in shown
        ]
        found = self.against
        return {
            "model": self.model,
            "defense": self.defense,
            "threat": self.worst.threat,
            "verdict": self.verdict,
            "sentences": self.sentences(),
            "difference": None
            if found is None
            else {name: round(getattr(found, name), 6) for name in ("difference", "low", "high", "p_value")},
            "images_per_prediction": self.price,
            "rungs": rungs,
            "absent": dict(self.absent),
            "notes": list(self.notes),
            "examples": self.examples,
        }

    def _protocol(self, letter: str, records: Records) -> str:
        return records.protocol if letter in ("a", "b") or records.protocol == TRANSFER else ADAPTIVE


def restricted(records: Records, ids: Sequence[int]) -> Records:
    """The records of some of their images, in the order of ``ids``; what they cost is the cost of all of them.

    Raises DataError for an id that they do not have.
    """
    if list(ids) == records.ids:
        return records
    places = {number: place for place, number in enumerate(records.ids)}
    missing = [number for number in ids if number not in places]
    if missing:
        raise DataError(f"records under {records.attack} lack image {missing[0]}; judge the same images")
    kept = {name: [getattr(records, name)[places[i]] for i in ids] for name in PER_IMAGE if getattr(records, name)}
    return dataclasses.replace(records, **kept, flat=min(records.flat, sum(kept["correct"])))


def _share(records: Records) -> Share:
    low, high = records.interval()
    return Share(accuracy=round(records.accuracy, 6), low=round(low, 6), high=round(high, 6), n=records.count)


def _percent(records: Records) -> str:
    low, high = records.interval()
    return f"{100 * records.accuracy:.1f} % [{100 * low:.1f}, {100 * high:.1f}] of {records.count} images"


def _points(difference: float, low: float, high: float) -> str:
    return f"{100 * difference:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"


def _letters(letters: Sequence[str]) -> str:
    return ", ".join(f"({letter})" for letter in letters)
