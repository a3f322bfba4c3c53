"""What a ladder leaves: the results of its rungs, the worst case over them, and the verdict."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from unfool.core.errors import DataError
from unfool.evaluation.adaptive.ladder_words import FAILS, HELPS, UNDECIDED, ladder_section, ladder_sentences, share
from unfool.evaluation.adaptive.rung import Rung
from unfool.evaluation.adaptive.static_attack import ReplayedExamples, StaticAttack
from unfool.evaluation.claims import ClaimResult
from unfool.evaluation.crafting.adversarial_set import AdversarialSet
from unfool.evaluation.records import TRANSFER, Records
from unfool.evaluation.reliability.flags import too_many
from unfool.evaluation.rows import Row
from unfool.evaluation.statistics.comparison import PER_IMAGE, WORST_CASE, Comparison
from unfool.evaluation.study_result import StudyResult

if TYPE_CHECKING:
    from pandas import DataFrame

ADAPTIVE = "adaptive"
_CLAIMS = {HELPS: "holds", FAILS: "fails", UNDECIDED: "undecided"}
_SIGNIFICANT = 0.05


@dataclass(frozen=True, kw_only=True)
class RungResult:
    """What a rung left: the records of its images, and its examples; None for one that crafts none."""

    rung: Rung
    records: Records
    examples: AdversarialSet | None = None

    @property
    def protocol(self) -> str:
        """That of the records; adaptive where the attacker knew the defense and crafted on it."""
        adaptive = self.rung.adaptive and self.records.protocol != TRANSFER
        return ADAPTIVE if adaptive else self.records.protocol


@dataclass(frozen=True, kw_only=True)
class LadderResult:
    """What a ladder shows of a defense before a model.

    Attributes:
        model: The model's name.
        defense: The defense's name.
        rungs: The results of the rungs by key, each on its own images.
        clean: Records on clean images: those of the network, and those of the defense.
        worst: The worst case over all rungs but the static attack, on the images that all rungs have.
        comparison: Compares the worst case with the static attack there; None where no adaptive rung was run.
        images_per_prediction: How many images one prediction sends through a network.
        absent: Why a rung is missing, by key.
        notes: What a reader must know beside the figures, one sentence each.
        examples: A few images to look at, as JSON takes them.
    """

    model: str
    defense: str
    rungs: dict[str, RungResult]
    clean: tuple[Records, Records]
    worst: Records
    comparison: Comparison | None
    images_per_prediction: int
    absent: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    examples: list[dict[str, Any]] = field(default_factory=list)

    @property
    def records(self) -> dict[str, Records]:
        """The records of the rungs by key, each on its own images."""
        return {key: result.records for key, result in self.rungs.items()}

    @property
    def sets(self) -> dict[str, AdversarialSet]:
        """The examples of the rungs that crafted some, by key."""
        return {key: result.examples for key, result in self.rungs.items() if result.examples is not None}

    @property
    def static(self) -> Records:
        """The network by itself under the static attack: the yardstick."""
        return self.records[StaticAttack.key]

    @property
    def replayed(self) -> Records:
        """The defense on the examples of the static attack."""
        return self.records[ReplayedExamples.key]

    @property
    def verdict(self) -> str:
        """``helps`` or ``fails`` where the worst case is shown to be above or below (a), else ``undecided``.

        Shown means: McNemar's exact two-sided p-value is below 0.05, and the paired bootstrap's 95 % interval of the
        difference leaves out 0.
        """
        difference = self.comparison
        if difference is None or difference.p_value >= _SIGNIFICANT:
            return UNDECIDED
        return HELPS if difference.low > 0 else FAILS if difference.high < 0 else UNDECIDED

    @property
    def doubts(self) -> list[str]:
        """Why the comparison is not to be believed, one sentence each; empty if nothing speaks against it."""
        return [
            f"({key}) {each.records.attack}: there was no gradient on {each.records.zero_gradient} of "
            f"{each.records.count} images, {each.rung.without_gradient}"
            for key, each in self.rungs.items()
            if each.rung.without_gradient and too_many(each.records.zero_gradient, each.records.count)
        ]

    @property
    def common(self) -> dict[str, Records]:
        """The rungs on the images that all of them have."""
        return {key: restricted(records, self.worst.ids) for key, records in self.records.items()}

    def rows(self) -> list[Row]:
        """Rows of a results file: clean without and with the defense, the rungs, the worst case.

        Beside a row's own figures, ``rung`` is the rung's key, and ``common`` its accuracy on the images of the worst
        case, which is above that of no rung there.
        """
        defenses = ("none", self.defense)
        rows = [records.row(self.model, defense=name) for records, name in zip(self.clean, defenses, strict=True)]
        common = self.common
        for key, result in self.rungs.items():
            behind = "none" if isinstance(result.rung, StaticAttack) else self.defense
            rows.append(self._row(key, result.records, result.protocol, common[key], behind))
        return [*rows, self._row(WORST_CASE, self.worst, self.worst_protocol, self.worst, self.defense)]

    def _row(self, key: str, records: Records, protocol: str, common: Records, defense: str) -> Row:
        return dataclasses.replace(
            records.row(self.model, defense=defense),
            protocol=protocol,
            rung=key,
            zero_gradient=records.zero_gradient,
            common=share(common),
        )

    @property
    def worst_protocol(self) -> str:
        """The protocol of the worst case: adaptive if an adaptive rung was run."""
        return self.worst.protocol if self.worst.protocol == TRANSFER else ADAPTIVE

    def sentences(self) -> list[str]:
        """What (b) says, what the worst case says, and the cost; one sentence each, with their figures."""
        return ladder_sentences(self)

    def section(self) -> dict[str, Any]:
        """What a page shows of the ladder beside the rows: verdict, rungs, their costs, and which are missing."""
        return ladder_section(self)

    def result(self) -> StudyResult:
        """Everything as the results that `unfool report` shows as a page."""
        claim = ClaimResult(
            text=f"{self.defense} makes {self.model} more accurate under attack than it is by itself "
            f"({self.static.attack} at {self.static.threat}).",
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

    def to_frame(self) -> DataFrame:
        """The rungs and the worst case as a pandas table, one line each; accuracies are shares."""
        import pandas

        columns = ["rung", "title", "attack", "protocol", "accuracy", "low", "high", "n", "cpu_seconds", "model_images"]
        return pandas.DataFrame(self.section()["rungs"], columns=columns)

    def _repr_html_(self) -> str:
        verdict = f"<p><b>{self.verdict}</b>: {html.escape(self.sentences()[1])}</p>"
        return verdict + self.to_frame().to_html(index=False)

    def __repr__(self) -> str:
        return (
            f"LadderResult({self.model!r} behind {self.defense!r} at {self.worst.threat}: {self.verdict}, worst of "
            f"{len(self.rungs) - 1} rungs {100 * self.worst.accuracy:.1f} % of {self.worst.count} images)"
        )


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
    return dataclasses.replace(records, **kept, zero_gradient=min(records.zero_gradient, sum(kept["correct"])))
