"""Whether a card holds: files against hashes, predictions against stored ones, accuracies against a fresh sample.

The sample is attacked image by image in a random order. After every look the confidence sequence of
`statistics.sequential` holds the accuracy at an error rate that survives looking often. A figure holds once that
interval lies within ``tolerance`` of it, and does not once it lies outside the card's own interval, or farther away
than ``tolerance``. Where all images of the split were taken, nothing is left to chance, and the accuracies themselves
are compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from unfool.core.config import configured
from unfool.core.errors import ClaimError, DataError, UnfoolError, UnsettledClaimError
from unfool.core.files import JsonObject
from unfool.core.progress import Progress, silent
from unfool.data.table import Table
from unfool.evaluation.cards.making import figure, images_hash, split_table, trunk_text
from unfool.evaluation.crafting.proxy import proxy_for
from unfool.evaluation.identity import one_identity
from unfool.evaluation.results.study_result import StudyResult
from unfool.evaluation.statistics.sequential import LOOK, anytime_interval, records_in_order
from unfool.models.zoo.located import run_folder
from unfool.models.zoo.model_card import CARD, RESULTS, Card, Figure, file_sha256
from unfool.models.zoo.probes import TOLERANCE, largest_difference, probe_logits
from unfool.training.folder import CONFIG, WEIGHTS, TrainedRun, open_run

HOLDS, FAILS, UNDECIDED, NOT_CHECKED = "holds", "does not hold", "cannot say", "not checked"
SAME_IMAGES, SAME_ATTACK = 0.005, 0.02
"""By how much two evaluations of the same images may differ: by rounding, and by the random draws of an attack."""

_ACCURACIES = {"clean": "clean accuracy", "attacked": "accuracy under attack"}
"""What the figures of a card are called once they are measured again."""


@configured
class VerificationSettings:
    """How a card is checked.

    Raises:
        SpecError: An unknown key, or a value that is not allowed.

    Example:
        >>> from unfool import VerificationSettings
        >>> VerificationSettings(images=500).tolerance
        0.08
    """

    images: int = Field(
        default=2000, ge=0, description="Most test images that are attacked; 0: no accuracy is measured again."
    )
    tolerance: float = Field(
        default=0.08, gt=0, lt=1, description="A figure holds once it is known to be as close to the accuracy as this."
    )
    alpha: float = Field(default=0.05, gt=0, lt=1, description="Error rate of each accuracy's verdict.")
    seed: int = Field(default=1, ge=0, description="Seed of the sample, and of the attack on it.")


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at, with its verdict and a sentence."""

    name: str
    verdict: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was checked of a card."""

    card: Card
    checks: list[Check]

    @property
    def verdict(self) -> str:
        """``does not hold`` if anything does not; ``cannot say`` if an accuracy stayed open; else ``holds``."""
        verdicts = {check.verdict for check in self.checks}
        return next((verdict for verdict in (FAILS, UNDECIDED) if verdict in verdicts), HOLDS)

    def to_json(self) -> JsonObject:
        """The JSON object that --json prints."""
        checks = [{"name": each.name, "verdict": each.verdict, "text": each.text} for each in self.checks]
        return {"card": self.card.name, "verdict": self.verdict, "checks": checks}

    @property
    def unchecked(self) -> list[Check]:
        """What could not be checked here."""
        return [check for check in self.checks if check.verdict == NOT_CHECKED]

    def raise_for_verdict(self, *, strict: bool = False) -> None:
        """ClaimError if the card does not hold, UnsettledClaimError if that stayed open.

        ``strict``: what could not be checked counts as open too.
        """
        errors = {FAILS: ClaimError, UNDECIDED: UnsettledClaimError}
        for verdict, error in {**errors, **({NOT_CHECKED: UnsettledClaimError} if strict else {})}.items():
            for check in self.checks:
                if check.verdict == verdict:
                    raise error(f"card of {self.card.name}, {check.name}: {verdict}: {check.text}")


def verify(
    folder: str | Path,
    *,
    settings: VerificationSettings | None = None,
    progress: Progress = silent,
) -> Verification:
    """Check everything on a model card that can be checked here.

    Hashes, architecture and the logits of generated images always; both accuracies where the test images are there, on
    a fresh random sample that is attacked until a sequential test settles them.

    Args:
        folder: A network's folder, with ``card.json``, ``config.yaml`` and ``weights.safetensors``, ``zoo:NAME`` or
            ``hf:OWNER/NAME``.
        settings: How many images, and how close is close enough.
        progress: Called with what is being attacked, and how many images are.

    Returns:
        Every check with its verdict; images that are missing leave the accuracies unchecked.

    Raises:
        DataError: No card there, or one that is malformed.
        SpecError: A card of a newer unfool.

    Example:
        >>> from unfool import VerificationSettings, verify
        >>> verify("zoo:digits", settings=VerificationSettings(images=0)).verdict
        'holds'
    """
    folder, settings = run_folder(folder), settings or VerificationSettings()
    card = Card.load(folder / CARD)
    checks = [_hash("weights", folder / WEIGHTS, card.weights_sha256), _recipe(folder, card)]
    run: TrainedRun | None = None
    try:
        run = open_run(folder)
    except UnfoolError as error:
        checks.append(Check(name="network", verdict=FAILS, text=str(error)))
    if run is not None:
        checks += [_network(run, card), _predictions(run, card)]
    checks += [_stored(folder, card, kind) for kind in RESULTS if getattr(card, kind) is not None]
    if run is not None and all(check.verdict != FAILS for check in checks):
        checks += _accuracies(run, card, settings, progress)
        checks += _unsupported(card, checks)
    return Verification(card=card, checks=checks)


def _hash(name: str, path: Path, wanted: str) -> Check:
    try:
        actual = file_sha256(path)
    except DataError as error:
        return Check(name=name, verdict=FAILS, text=str(error))
    if actual == wanted:
        return Check(name=name, verdict=HOLDS, text=f"SHA-256 {wanted[:16]}…, as on the card")
    return Check(name=name, verdict=FAILS, text=f"{path.name} has SHA-256 {actual[:16]}…, the card has {wanted[:16]}…")


def _recipe(folder: Path, card: Card) -> Check:
    return _hash("recipe", folder / CONFIG, card.training.recipe_sha256)


def _network(run: TrainedRun, card: Card) -> Check:
    """Trunk, heads, parameters and data as the card names them."""
    own = {
        "trunk": trunk_text(run.network.trunk.spec),
        "heads": sorted(run.network.heads),
        "parameters": sum(parameter.numel() for parameter in run.network.parameters()),
        "data": run.config.data,
    }
    said = {"trunk": card.trunk, "heads": sorted(card.heads), "parameters": card.parameters, "data": card.data}
    wrong = [f"{key} {own[key]}, the card says {said[key]}" for key in own if own[key] != said[key]]
    text = "; ".join(wrong) or f"{card.trunk}, {card.parameters:,} parameters, as on the card"
    return Check(name="network", verdict=FAILS if wrong else HOLDS, text=text)


def _predictions(run: TrainedRun, card: Card) -> Check:
    if not card.probes:
        return Check(name="predictions", verdict=NOT_CHECKED, text="the card holds none")
    difference = largest_difference(probe_logits(run.network, card.probe_side), card.probes)
    text = f"logits of {len(card.probes)} generated images differ by {difference:.1g} of the largest one"
    allowed = difference <= TOLERANCE
    return Check(name="predictions", verdict=HOLDS if allowed else FAILS, text=text)


def _stored(folder: Path, card: Card, kind: str) -> Check:
    """The card's figure against the evaluation that it was taken from."""
    name, said = f"{kind} figure", getattr(card, kind)
    path = folder / RESULTS[kind]
    try:
        result = StudyResult.load(path)
    except DataError as error:
        return Check(name=name, verdict=NOT_CHECKED, text=str(error))
    rows = [figure((row, result)) for row in result.rows if row.attack == said.attack]
    if any(row is not None and _same(row, said) for row in rows):
        return Check(name=name, verdict=HOLDS, text=f"{said.words}, as in {path.name}")
    shown = ", ".join(_described(row) for row in rows if row is not None) or f"no row of {said.attack}"
    return Check(name=name, verdict=FAILS, text=f"the card says {_described(said)}, {path.name} has {shown}")


def _described(row: Figure) -> str:
    """A figure with its images and its threat model, either of which may be what differs."""
    return f"{row.words} on {row.images:,} images{f' at {row.threat}' if row.threat is not None else ''}"


def _same(row: Figure, said: Figure) -> bool:
    return (row.accuracy, row.low, row.high, row.images, row.threat) == (
        said.accuracy,
        said.low,
        said.high,
        said.images,
        said.threat,
    )


def _unsupported(card: Card, checks: Sequence[Check]) -> list[Check]:
    """What stays open where neither a results file nor images of today say anything of a figure."""
    decided = {check.name for check in checks if check.verdict != NOT_CHECKED}
    figures = {name: getattr(card, kind) for kind, name in _ACCURACIES.items() if f"{kind} figure" not in decided}
    shown = [f"{said.words} {name}" for name, said in figures.items() if said is not None and name not in decided]
    if not shown:
        return []
    text = f"nothing here supports {' and '.join(shown)}; give --images and the data set, or the results files"
    return [Check(name="figures", verdict=UNDECIDED, text=text)]


def _accuracies(run: TrainedRun, card: Card, settings: VerificationSettings, progress: Progress) -> Iterator[Check]:
    """Both accuracies on a fresh sample; unchecked, saying why, where the images are missing."""
    figures = {name: getattr(card, kind) for kind, name in _ACCURACIES.items()}
    if not settings.images:
        yield Check(name="accuracies", verdict=NOT_CHECKED, text="no image was to be attacked")
        return
    try:
        table = split_table(run.config, next((each.split for each in figures.values() if each is not None), "test"))
    except UnfoolError as error:
        shown = " and ".join(f"{said.words} {name}" for name, said in figures.items() if said is not None)
        if shown:
            yield Check(name="accuracies", verdict=NOT_CHECKED, text=f"for want of data ({shown}): {error}")
        return
    same = card.test_images is None or images_hash(table) == card.test_images
    with one_identity(run.network):
        for name, said in figures.items():
            if said is not None:
                yield _accuracy(run, table, name, said, settings, same, progress)


def _accuracy(
    run: TrainedRun,
    table: Table,
    name: str,
    said: Figure,
    settings: VerificationSettings,
    same: bool,
    progress: Progress,
) -> Check:
    """Attack images in random order until the figure is settled, or no image is left."""
    clean = said.threat is None
    most = len(table) if clean else min(settings.images, len(table))
    correct = count = 0
    low, high = 0.0, 1.0
    verdict: str | None = None
    attack = None if clean else said.attack
    for records in records_in_order(
        run.network,
        table,
        attack,
        threat=said.threat,
        seed=settings.seed,
        proxy=proxy_for(run.network, "bf16"),
        batch_size=8 * LOOK if clean else LOOK,
    ):
        correct, count = correct + sum(records.correct), count + records.count
        low, high = anytime_interval(correct, count, 1 - settings.alpha)
        verdict = _settled(said, low, high, settings.tolerance)
        progress(f"{name}: {said.words}?", count, most)
        if verdict is not None or count >= most:
            break
    sampled = f"{100 * correct / count:.1f} % of {count:,} test images, [{100 * low:.1f}, {100 * high:.1f}]"
    if count == len(table) and verdict is None:
        sampled = f"{100 * correct / count:.1f} % of all {count:,} test images"
        whole = same and said.images == len(table)
        nearest = min(max(correct / count, said.low), said.high)
        off = abs(correct / count - (said.accuracy if whole else nearest))
        outcome = HOLDS if off <= (SAME_IMAGES if clean else SAME_ATTACK) else FAILS
    else:
        outcome = verdict or UNDECIDED
    more = "" if same else "; these are not the card's own test images"
    under = "" if clean else f" under {said.attack} at {said.threat}"
    return Check(name=name, verdict=outcome, text=f"the card says {said.words}, here {sampled}{under}{more}")


def _settled(said: Figure, low: float, high: float, tolerance: float) -> str | None:
    """The verdict of an interval that holds the accuracy; None while it is open."""
    if high < max(said.low, said.accuracy - tolerance) or low > min(said.high, said.accuracy + tolerance):
        return FAILS
    return HOLDS if said.accuracy - tolerance <= low and high <= said.accuracy + tolerance else None
