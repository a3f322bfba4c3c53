# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportMissingTypeStubs=false
"""The results of a ladder: those of its rungs, the worst case over them, and the verdict."""

from __future__ import annotations

import dataclasses
import html
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from unfool.core.files import JsonObject
from unfool.evaluation.adaptive.rung import all_rungs
from unfool.evaluation.adaptive.rung_result import (
    RungResult,
    accuracy_difference,
    adaptive_protocol,
    over_draws_words,
    percent,
    points,
    restricted,
    section_line,
    share,
)
from unfool.evaluation.adaptive.static_attack import ReplayedExamples, StaticAttack
from unfool.evaluation.crafting.adversarial_set import AdversarialSet
from unfool.evaluation.next_step import NextStep, is_weak
from unfool.evaluation.records import TRANSFER, Records
from unfool.evaluation.reliability.flags import too_many
from unfool.evaluation.reliability.over_draws import RecordsOverDraws
from unfool.evaluation.results.claims import ClaimResult
from unfool.evaluation.results.ladder import LadderDifference, LadderSection, PicturedExample
from unfool.evaluation.results.rows import Row
from unfool.evaluation.results.study_result import StudyResult
from unfool.evaluation.results.versions import versions
from unfool.evaluation.statistics.comparison import WORST_CASE, Comparison

if TYPE_CHECKING:
    from pandas import DataFrame

HELPS, FAILS, UNDECIDED = "helps", "fails", "undecided"
WORST = "worst"
"""What a page calls the worst case in place of a rung's key."""
_CLAIMS = {HELPS: "holds", FAILS: "fails", UNDECIDED: "undecided"}
_CONCLUSIONS = {
    HELPS: "the defense helps",
    FAILS: "the defense makes the system easier to fool",
    UNDECIDED: "no difference is shown, so the defense is not known to help",
}
_SIGNIFICANT = 0.05


@dataclass(frozen=True, kw_only=True)
class LadderResult:
    """The results of a ladder: how accurate a defended model is under attacks that know more and more of the defense.

    Args:
        model: The model's name.
        defense: The defense's name.
        rungs: The results of the rungs by key, each on its own images.
        clean: Records on clean images: those of the network, and those of the defense.
        worst: The worst case over all rungs but the static attack, on the images that all rungs have. Records of a
            random system are `RecordsOverDraws`: their accuracy is the mean over several draws, and their
            ``over_draws.worst`` the share of images that are right in every draw.
        comparison: Compares the worst case with the static attack there; None where no adaptive rung was run, and where
            the model wraps no classifier to compare it with.
        images_per_prediction: How many images one prediction sends through a network.
        absent: Why a rung is missing, by key.
        notes: What a reader must know beside the figures, one sentence each.
        examples: A few images to look at.

    Example:
        >>> import torch
        >>> from unfool import LadderSettings, Linf, Network, TrunkSpec, defenses, ladder
        >>> heads = {"labels": {"kind": "linear", "outputs": 2}, "rotation": {"kind": "linear", "outputs": 4}}
        >>> network = Network.build(TrunkSpec(name="convnet", widths=(4, 8, 8)), heads, classifier="labels").eval()
        >>> images = torch.linspace(0, 1, 2 * 3 * 16 * 16).view(2, 3, 16, 16)
        >>> defense = defenses.Reverse(network, "rotation", threat=Linf(4/255), steps=1)
        >>> few = LadderSettings(threat=Linf(2/255), steps=2)
        >>> result = ladder(defense, (images, network(images).argmax(1)), "fgsm", settings=few, rungs="bpda")
        >>> result
        LadderResult('model' behind 'defense' at linf:2/255: undecided, worst of 2 rungs 100.0 % of 2 images)
        >>> result.to_frame()[["rung", "attack", "protocol"]].values.tolist()[-1]
        ['worst', 'worst-case', 'adaptive']
    """

    model: str
    defense: str
    rungs: dict[str, RungResult]
    clean: tuple[Records, Records]
    worst: Records
    comparison: Comparison | None
    images_per_prediction: int
    absent: dict[str, str] = field(default_factory=dict[str, str])
    notes: list[str] = field(default_factory=list[str])
    examples: list[PicturedExample] = field(default_factory=list[PicturedExample])

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
        """The network without the defense under the static attack: what the defense is compared with."""
        return self.records[StaticAttack.key]

    @property
    def replayed(self) -> Records:
        """The defense on the examples of the static attack."""
        return self.records[ReplayedExamples.key]

    @property
    def verdict(self) -> str:
        """``helps`` or ``fails`` where the worst case is shown to be above or below (a), else ``undecided``.

        Shown means: McNemar's exact two-sided p-value is below 0.05, and Tango's 95 % score interval of the difference
        leaves out 0; of a random system both for the images right in every draw and for those right in any.
        """
        comparison = self.comparison
        if comparison is None or comparison.p_value >= _SIGNIFICANT:
            return UNDECIDED
        return HELPS if comparison.low > 0 else FAILS if comparison.high < 0 else UNDECIDED

    @property
    def doubts(self) -> list[str]:
        """Why the comparison is not to be believed, one sentence each; empty if nothing speaks against it."""
        return [
            f"({key}) {records.attack}: there was no gradient on {records.zero_gradient} of {records.count} images, "
            f"{self.rungs[key].rung.without_gradient}"
            for key, records in self.records.items()
            if self.rungs[key].rung.without_gradient and too_many(records.zero_gradient, records.count)
        ]

    @property
    def next_step(self) -> NextStep | None:
        """Harden the classifier, if defended it keeps less than half of its clean accuracy in the worst case."""
        weak = is_weak(self.clean[1].accuracy, self.worst.accuracy)
        return NextStep(action="harden", threat=self.worst.threat) if weak else None

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
        return adaptive_protocol(self.worst)

    def sentences(self) -> list[str]:
        """The results of (b), those of the worst case, and the cost; one sentence each."""
        gain = points(*accuracy_difference(self.replayed, self.static))
        replayed = (
            f"On the replayed examples (b) the accuracy of the defense is {percent(self.replayed)}, that of the "
            f"network {percent(self.static)}, {gain}: this says nothing about an attacker who knows the defense."
        )
        return [replayed, self._conclusion(), self._cost()]

    def _conclusion(self) -> str:
        comparison = self.comparison
        keys = ", ".join(f"({key})" for key in self.rungs if key != StaticAttack.key)
        if comparison is None and self.worst.protocol != TRANSFER:
            static = percent(self.common[StaticAttack.key])
            return (
                f"Under the worst of {keys} on each image the model's accuracy is {percent(self.worst)}, under "
                f"({StaticAttack.key}) alone {static}; it wraps no classifier to compare it with."
            )
        if comparison is None:
            return "No adaptive rung was run, so nothing is known about an attacker who knows the defense."
        return (
            f"Under the worst of {keys} on each image its accuracy is {percent(self.worst)}, that of the network under "
            f"({StaticAttack.key}) {percent(self.common[StaticAttack.key])}, "
            f"{points(comparison.difference, comparison.low, comparison.high)} "
            f"(McNemar p = {comparison.p_value:.2g}): {_CONCLUSIONS[self.verdict]}."
        )

    def _cost(self) -> str:
        count = self.images_per_prediction
        if count == 1:
            return "One prediction sends 1 image through the network, as without the defense."
        bare, defended = (records.cpu_seconds for records in self.clean)
        times = f", and took {defended / bare:.0f} times the CPU time" if bare > 0 else ""
        return f"One prediction sends {count} images through the network, not 1{times}."

    def section(self) -> LadderSection:
        """What a page shows of the ladder beside the rows: verdict, rungs, costs, missing rungs."""
        common = self.common
        rungs = [
            section_line(key, result.rung.title, result.protocol, result.records, common[key])
            for key, result in self.rungs.items()
        ]
        last = max({rung.key for rung in all_rungs()} | set(self.rungs))
        title = f"worst of (b) to ({last}) on each image"
        worst = section_line(WORST, title, self.worst_protocol, self.worst, self.worst)
        return LadderSection(
            model=self.model,
            defense=self.defense,
            threat=self.worst.threat,
            verdict=self.verdict,
            sentences=self.sentences(),
            difference=self._difference(),
            images_per_prediction=self.images_per_prediction,
            rungs=[*rungs, dataclasses.replace(worst, fooled_by={})],
            absent=dict(self.absent),
            notes=list(self.notes),
            examples=self.examples,
        )

    def _difference(self) -> LadderDifference | None:
        if self.comparison is None:
            return None
        figures = ("difference", "low", "high", "p_value")
        return LadderDifference(**{name: round(getattr(self.comparison, name), 6) for name in figures})

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
            doubts=self.doubts,
            versions=versions(),
        )

    def to_json(self) -> JsonObject:
        """A results file, which `unfool report` shows as a page."""
        return self.result().to_json()

    def to_frame(self) -> DataFrame:
        """The rungs and the worst case as a pandas table, one line each; accuracies are shares."""
        import pandas

        columns = ["rung", "title", "attack", "protocol", "accuracy", "low", "high", "n", "cpu_seconds", "model_images"]
        rungs = self.section().rungs
        frame = pandas.DataFrame([rung.to_json() for rung in rungs], columns=columns)
        if any(rung.every_draw for rung in rungs):
            every = [None if rung.every_draw is None else rung.every_draw.accuracy for rung in rungs]
            frame.insert(columns.index("n"), "every_draw", every)
        return frame

    def _repr_html_(self) -> str:
        verdict = f"<p><b>{self.verdict}</b>: {html.escape(self.sentences()[1])}</p>"
        return verdict + self.to_frame().to_html(index=False)

    def __repr__(self) -> str:
        draws = f", {over_draws_words(self.worst)}" if isinstance(self.worst, RecordsOverDraws) else ""
        return (
            f"LadderResult({self.model!r} behind {self.defense!r} at {self.worst.threat}: {self.verdict}, worst of "
            f"{len(self.rungs) - 1} rungs {100 * self.worst.accuracy:.1f} % of {self.worst.count} images{draws})"
        )
