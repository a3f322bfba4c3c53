"""A run as it is published: recipe, weights, card and its evaluations in one folder, which is a run's folder itself."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from unfool.core.borders.reading import is_file
from unfool.core.files import atomic_path, write_text
from unfool.evaluation.cards.making import make_card
from unfool.evaluation.results.study_result import StudyResult
from unfool.models.header import read_header
from unfool.models.network import Network
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
    run = open_run(source)
    before = Card.load(source / CARD) if is_file(source / CARD) else None
    stored = [source / file for file in RESULTS.values() if is_file(source / file)]
    results = list(results) or [StudyResult.load(path) for path in stored]
    if source.resolve() != target.resolve():
        with atomic_path(target / CONFIG) as temporary:
            shutil.copyfile(source / CONFIG, temporary)
    if half or source.resolve() != target.resolve():
        _write_weights(source / WEIGHTS, target / WEIGHTS, run.network, half)
    words = words or (before.words if before is not None else Words())
    card, sources = make_card(target, name.rpartition("/")[2], words, results, before)
    for kind, file in RESULTS.items():
        (target / file).unlink(missing_ok=True)
        if kind in sources:
            # Pictures show images of the data set, which need not be the publisher's to give away.
            replace(sources[kind], pictures=()).save(target / file)
    card.save(target / CARD)
    owner, _, short = name.partition("/")
    write_text(target / README, card_text(card, f"zoo:{short}" if owner == ZOO else f"hf:{name}"))
    return card


def _write_weights(source: Path, target: Path, network: Network, half: bool) -> None:
    if half:
        metadata = {key: value for key, value in read_header(source).metadata.items() if key != "architecture"}
        save_network(network, target, metadata, half=True)
        return
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)
