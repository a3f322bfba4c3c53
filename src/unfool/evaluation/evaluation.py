# pyright: reportMissingTypeStubs=false
"""The results of an evaluation: rows, the records behind them, and every reason for doubt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

import torch

from unfool.attacks import AutoAttack
from unfool.core.errors import SpecError
from unfool.core.files import JsonObject
from unfool.core.spec import unknown
from unfool.evaluation.corruptions import corruption_summary
from unfool.evaluation.crafting.pictures import AttackPictures, stored_pictures
from unfool.evaluation.next_step import NextStep, step_after
from unfool.evaluation.records import NO_ATTACK, OWN, Records
from unfool.evaluation.reliability.flags import too_many
from unfool.evaluation.reliability.output_checks import chance_text
from unfool.evaluation.results.claims import ClaimResult
from unfool.evaluation.results.details import ClassAccuracy
from unfool.evaluation.results.reliability import NOT_CHECKED, BinarizationResult, Reliability
from unfool.evaluation.results.rows import Row, rows_frame, rows_html
from unfool.evaluation.results.study_result import StudyResult
from unfool.evaluation.results.versions import versions
from unfool.evaluation.statistics.settling import SequentialResult

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

_RIGHT_AGAIN = {True: "image that was right when it was", False: "images that were right when they were"}
"""One image, or several."""
_MATES = (
    "the model's predictions depend on the other images of the batch, and these were others; attack and evaluate it "
    "one image at a time"
)
"""What it means that a model which depends on batch-mates is right after all."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Evaluation:
    """The results of one call of `evaluate`: rows for tables, the records behind them, and every reason for doubt.

    Args:
        name: What the rows call the model.
        rows: One accuracy each: clean, under each attack, on each stored set, and the worst case.
        records: The outcomes behind each row, image by image.
        classes: Accuracies by class, for clean images and for the worst case.
        corrupted: Records under each corruption and severity.
        binarization_tests: The outcome of the binarization test, by attack.
        claim: How the claim was settled, if there was one.
        reliability: Whether the accuracies can be believed; None where it was not computed.
        pictures: A few images of each attack, for `show`.
        right_again: By attack, how many images it fooled that were right when they were evaluated again.
        defended: Whether a defense stands before the classifier.
        black_box: Whether the classifier gives scores or classes and no gradient.

    Example:
        >>> from unfool import EvaluationSettings, evaluate
        >>> model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> images = torch.full((4, 3, 4, 4), 0.5)
        >>> evaluate(model, (images, [0, 0, 1, 0]), "fgsm", settings=EvaluationSettings(reliability=False))
        Evaluation(model: clean 75.0 %, fgsm 0.0 %)
    """

    name: str
    rows: list[Row]
    records: list[Records]
    classes: dict[str, list[ClassAccuracy]] = field(default_factory=dict[str, list[ClassAccuracy]])
    corrupted: list[Records] = field(default_factory=list[Records])
    binarization_tests: dict[str, BinarizationResult] = field(default_factory=dict[str, BinarizationResult])
    claim: SequentialResult | None = None
    reliability: Reliability | None = None
    pictures: dict[str, AttackPictures] = field(default_factory=dict[str, AttackPictures])
    right_again: dict[str, int] = field(default_factory=dict[str, int])
    defended: bool = False
    black_box: bool = False

    def __repr__(self) -> str:
        shares = ", ".join(f"{_title(row)} {100 * row.accuracy:.1f} %" for row in self.rows[:6])
        count = len(self.doubts)
        doubts = f"; {count} reason{'' if count == 1 else 's'} for doubt" if count else ""
        return f"Evaluation({self.name}: {shares}{', …' if len(self.rows) > 6 else ''}{doubts})"

    def to_frame(self) -> DataFrame:
        """The rows as a pandas table, one line each; accuracies are shares."""
        return rows_frame(self.rows)

    def _repr_html_(self) -> str:
        doubts = "".join(f"<li>{escape(doubt)}</li>" for doubt in self.doubts)
        return rows_html(self.rows) + (f"<p><b>Not to be believed</b>:</p><ul>{doubts}</ul>" if doubts else "")

    def show(self, attack: str | None = None, count: int = 6) -> Figure:
        """Draw a few images of an attack: clean, adversarial, and the difference, magnified.

        Args:
            attack: The attack as it was given, such as ``"pgd-20"``; default: the first.
            count: How many images, at most eight.

        Returns:
            A matplotlib figure; in a notebook it is shown.

        Raises:
            SpecError: An attack that was not run, or none was.
        """
        if not self.pictures:
            raise SpecError(f"{self.name} was not attacked, so there are no pictures; give evaluate an attack")
        title = next(iter(self.pictures)) if attack is None else attack
        if title not in self.pictures:
            raise unknown("attack of the evaluation", title, self.pictures)
        return self.pictures[title].draw(count)

    @property
    def doubts(self) -> list[str]:
        """Reasons not to believe the accuracies, one sentence each; empty if no check raised any."""
        flat = [
            f"{row.attack}: the attacked network gave no gradient on {row.zero_gradient} of {row.n} images"
            for row in self.rows
            if too_many(row.zero_gradient or 0, row.n)
        ]
        rows = {_title(row): row for row in self.rows}
        draws = [
            f"{attack} fooled {count} {_RIGHT_AGAIN[count == 1]} evaluated again: "
            f"{_MATES if self._only_mates_differ else _random(rows.get(attack))}"
            for attack, count in self.right_again.items()
            if count
        ]
        raised = self.reliability.flags if self.reliability is not None else []
        flags = [flag.text if flag.name == NOT_CHECKED else f"{flag.name}: {flag.text}" for flag in raised]
        tests = [test.text for test in self.binarization_tests.values() if not test.passed]
        guessed = [] if self.reliability is not None or self.at_chance is None else [f"chance: {self.at_chance}"]
        return [*flat, *draws, *self._above_clean(), *guessed, *flags, *tests]

    @property
    def _only_mates_differ(self) -> bool:
        """Whether the model is no random one, but one whose predictions depend on the batch that an image is in."""
        raised = {flag.name for flag in self.reliability.flags} if self.reliability is not None else set[str]()
        return "batch-dependence" in raised and "randomised-output" not in raised

    @property
    def at_chance(self) -> str | None:
        """What is wrong with a clean accuracy that guessing reaches; None for any other."""
        clean = self.records[0] if self.records else None
        if clean is None or clean.attack != NO_ATTACK:
            return None
        return chance_text(torch.tensor(clean.correct), torch.tensor(clean.labels, dtype=torch.int64))

    def _above_clean(self) -> list[str]:
        """Attacks on the system itself under which more images are right than without one."""
        clean = self.records[0] if self.records else None
        if clean is None or clean.attack != NO_ATTACK:
            return []
        right = dict(zip(clean.ids, clean.correct, strict=True))
        # A claim is settled on some of the images.
        before = [(each, sum(right.get(number, True) for number in each.ids)) for each in self.records[1:]]
        return [
            f"{each.attack}: {sum(each.correct)} of {each.count} images are right under attack, more than the "
            f"{count} clean ones: it moved errors to the right class, or the model is random; an image "
            "that was wrong before is not robust"
            for each, count in before
            if each.protocol in OWN and (each.data, each.split) == (clean.data, clean.split)
            if sum(each.correct) > count
        ]

    @property
    def next_step(self) -> NextStep | None:
        """The one call that these figures suggest, if any: attack what was not attacked, or is doubted, and harden what
        keeps less than half of its clean accuracy."""
        raised = self.reliability.flags if self.reliability is not None else []
        doubted = {flag.name for flag in raised if flag.name != NOT_CHECKED}
        if self.at_chance is not None:
            doubted.add("chance")
        elif any(self.right_again.values()):
            if not self._only_mates_differ:
                doubted.add("randomised-output")
        elif len(self.doubts) > len(raised):
            doubted.add("vanishing-gradients")
        return step_after(
            self.rows,
            doubted=doubted,
            tested=bool(self.binarization_tests),
            defended=self.defended,
            black_box=self.black_box,
        )

    def result(self) -> StudyResult:
        """All of it as one `StudyResult`, which `unfool report` shows as a page."""
        return StudyResult(
            system=self.name,
            rows=self.rows,
            claims=self._claims(),
            classes=self.classes,
            corruptions=corruption_summary(self.corrupted) if self.corrupted else None,
            binarization_tests=self.binarization_tests,
            reliability=self.reliability,
            doubts=self.doubts,
            versions=versions(),
            pictures=stored_pictures(self.pictures),
        )

    def to_json(self) -> JsonObject:
        """A results file, which `unfool report` shows as a page."""
        return self.result().to_json()

    def _claims(self) -> list[ClaimResult]:
        if self.claim is None:
            return []
        attack = f"{self.claim.records.attack} at {self.claim.records.threat}"
        text = f"Robust accuracy of {self.name} under {attack} is {self.claim.claim}"
        return [ClaimResult(text=text, verdict=self.claim.verdict, evidence=self.claim.words())]


def _title(row: Row) -> str:
    """The attack of a row with its unusual settings, as text that names the attack; of a clean row, ``clean``."""
    if row.attack == NO_ATTACK:
        return "clean"
    settings = ",".join(f"{name}={value}" for name, value in row.settings.items())
    return f"{row.attack}:{settings}" if settings else row.attack


def _random(row: Row | None) -> str:
    """What it means that a random model is right after all, and what to do about the attack of a row."""
    judged = row is not None and row.every_draw is not None
    accuracy = "the mean over several draws" if judged else "that of the evaluation's own draw"
    advice = _more_draws({} if row is None else row.settings)
    return f"the model is random, and the accuracy is {accuracy}; average the attack over {advice}"


def _more_draws(settings: Mapping[str, Any]) -> str:
    """What averages an attack over draws, or over more of them where it does already: ``draws, with NAME=NUMBER``."""
    if settings.get("version") == "rand":
        return f"more draws, with draws={2 * int(settings.get('draws', AutoAttack.draws))}"
    if "eot_draws" in settings:
        return f"more draws, with eot_draws={2 * int(settings['eot_draws'])}"
    return "draws, with eot_draws=10"
