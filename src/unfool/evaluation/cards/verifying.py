"""Whether a card holds: files against hashes, predictions against stored ones, figures against their evaluations, and
accuracies against a fresh sample."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unfool.core.errors import DataError, UnfoolError
from unfool.core.progress import Progress, silent
from unfool.evaluation.cards.making import OwnRows, figure, trunk_text
from unfool.evaluation.cards.measuring import ACCURACIES, measured_again
from unfool.evaluation.cards.verification import (
    FAILS,
    HOLDS,
    NOT_CHECKED,
    UNDECIDED,
    Check,
    Verification,
    VerificationSettings,
)
from unfool.evaluation.results.study_result import StudyResult
from unfool.models.zoo.located import run_folder
from unfool.models.zoo.model_card import CARD, RESULTS, Card, Figure, file_sha256
from unfool.models.zoo.probes import TOLERANCE, largest_difference, probe_logits
from unfool.training.folder import CONFIG, WEIGHTS, TrainedRun, open_run


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
        checks += measured_again(run, card, settings, progress)
        checks += _unsupported(card, checks)
    return Verification(card=card, checks=checks)


def _hash(name: str, path: Path, wanted: str) -> Check:
    """A file against the hash that the card has of it."""
    try:
        actual = file_sha256(path)
    except DataError as error:
        return Check(name=name, verdict=FAILS, text=str(error))
    if actual == wanted:
        return Check(name=name, verdict=HOLDS, text=f"SHA-256 {wanted[:16]}…, as on the card")
    return Check(name=name, verdict=FAILS, text=f"{path.name} has SHA-256 {actual[:16]}…, the card has {wanted[:16]}…")


def _recipe(folder: Path, card: Card) -> Check:
    """The recipe against its hash."""
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
    """Logits of generated images against those on the card."""
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
    own_rows = OwnRows(own=card.identity, data=card.data)
    rows = [
        figure((row, result))
        for row in result.rows
        if row.attack == said.attack and row.data == card.data and (said.threat is None or own_rows.counts(row, result))
    ]
    if any(row is not None and _same(row, said) for row in rows):
        return Check(name=name, verdict=HOLDS, text=f"{said.words}, as in {path.name}")
    shown = ", ".join(_described(row) for row in rows if row is not None) or f"no row of {said.attack}"
    return Check(name=name, verdict=FAILS, text=f"the card says {_described(said)}, {path.name} has {shown}")


def _described(row: Figure) -> str:
    """A figure with its images and its threat model, either of which may be what differs."""
    return f"{row.words} on {row.images:,} images{f' at {row.threat}' if row.threat is not None else ''}"


def _same(row: Figure, said: Figure) -> bool:
    """Whether a figure is that of an evaluation, in all but its words."""
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
    figures = {name: getattr(card, kind) for kind, name in ACCURACIES.items() if f"{kind} figure" not in decided}
    shown = [f"{said.words} {name}" for name, said in figures.items() if said is not None and name not in decided]
    if not shown:
        return []
    text = f"nothing here supports {' and '.join(shown)}; give --images and the data set, or the results files"
    return [Check(name="figures", verdict=UNDECIDED, text=text)]
