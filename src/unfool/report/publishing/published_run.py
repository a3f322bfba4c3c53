"""A run as it is published: recipe, weights, card and its evaluations in one folder, which is a run's folder itself."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from unfool.core.borders.reading import is_file
from unfool.core.files import atomic_path, write_text
from unfool.evaluation.cards.making import make_card
from unfool.evaluation.results.study_result import StudyResult
from unfool.models.header import read_header
from unfool.models.weights import save_network
from unfool.models.zoo.model_card import CARD, RESULTS, Card, Words
from unfool.report.publishing.model_card import card_text
from unfool.training.folder import CONFIG, WEIGHTS, open_run

README = "README.md"
ZOO = "zoo"
"""The owner of the networks that come with the package; no repository of the hub is meant."""


def publish(
    source: Path,
    target: Path,
    name: str,
    *,
    results: Sequence[StudyResult] = (),
    words: Words | None = None,
    half: bool = False,
) -> Card:
    """Write a run and its card into a folder, which may be the run's own.

    A refusal leaves the folder as it is: everything is written to temporary names, and takes its place at the end.

    Args:
        source: A finished run's folder.
        target: The folder to publish.
        name: OWNER/NAME; the card is named by its last part.
        results: Evaluations of what is published; default: those beside the card in ``source``.
        words: What the network is for; default: what the card in ``source`` says.
        half: Whether weights are rounded to half precision.

    Returns:
        The card, as it was written.

    Raises:
        DataError: No finished run, or results that are not of this network.
        OutputError: A folder that cannot be written.
    """
    before = Card.load(source / CARD) if is_file(source / CARD) else None
    stored = [source / file for file in RESULTS.values() if is_file(source / file)]
    results = list(results) or [StudyResult.load(path) for path in stored]
    words = words or (before.words if before is not None else Words())
    with TemporaryDirectory() as temporary, ExitStack() as files:

        def place(file: str) -> Path:
            return files.enter_context(atomic_path(target / file))

        origin = _rounded(source, Path(temporary)) if half else source
        measure = _measure_rounded(bool(stored)) if half else None
        card, sources = make_card(
            origin, name.rpartition("/")[2], words, results, before, shown=source, measure=measure
        )
        if source.resolve() != target.resolve():
            shutil.copyfile(origin / CONFIG, place(CONFIG))
        if origin.resolve() != target.resolve():
            shutil.copyfile(origin / WEIGHTS, place(WEIGHTS))
        for kind, result in sources.items():
            # Pictures show images of the data set, which need not be the publisher's to give away.
            replace(result, pictures=()).save(place(RESULTS[kind]))
        card.save(place(CARD))
        owner, _, short = name.partition("/")
        write_text(place(README), card_text(card, f"zoo:{short}" if owner == ZOO else f"hf:{name}"))
    for kind, file in RESULTS.items():
        if kind not in sources:
            (target / file).unlink(missing_ok=True)
    return card


def _rounded(source: Path, folder: Path) -> Path:
    """A folder with the recipe of a run and its weights in half precision."""
    metadata = {key: value for key, value in read_header(source / WEIGHTS).metadata.items() if key != "architecture"}
    save_network(open_run(source).network, folder / WEIGHTS, metadata, half=True)
    shutil.copyfile(source / CONFIG, folder / CONFIG)
    return folder


def _measure_rounded(stored: bool) -> str:
    """How results of rounded weights are had; ``stored``: results lie beside the card of the run, and are taken."""
    first = (
        "copy config.yaml and weights.safetensors alone to a folder, push that" if stored else "push without results"
    )
    return (
        f"rounded weights are another network: {first} with --half --dir FOLDER, evaluate FOLDER, and push FOLDER with "
        "its results"
    )
