# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The jobs of an evaluation: each classifies or attacks some of the images, and leaves files in its place.

Folders and files are named relative to the asker's folder, which is a job's folder too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from unfool.core.batch import Batch
from unfool.core.parallel.job import Place
from unfool.core.threat import ThreatModel
from unfool.evaluation.classify import reader
from unfool.evaluation.corruptions import classify_corrupted
from unfool.evaluation.crafting.attack_folder import BatchCheckpoint
from unfool.evaluation.crafting.sharded_images import Shard, ShardedImages
from unfool.evaluation.outcomes import classified, load_outcomes, save_outcomes, stored_parts
from unfool.evaluation.parts.opened import Subject, opened_once
from unfool.evaluation.reliability.report import run_checks


def classify_clean(subject: Subject, folder: str, spans: Sequence[slice], place: Place) -> None:
    """Classify some spans of the clean images."""
    opened = opened_once(subject, place)
    outcomes = classified(opened.model, reader(opened.table), opened.labels, spans)
    save_outcomes(outcomes, place.folder / folder, _rows(spans))


def craft_batch(
    subject: Subject,
    attack: int,
    folder: str,
    number: int,
    span: slice,
    at_once: int | None,
    clean: str,
    place: Place,
) -> None:
    """Attack one piece, a batch or several of ``at_once`` images; ``clean`` is the folder that says which images are
    right without an attack, "" if none does."""
    opened = opened_once(subject, place)
    crafting = opened.crafting(attack)
    crafting.right = _right(place.folder / clean, span, len(opened.table)) if clean else None
    crafting.stored(number, span, at_once, BatchCheckpoint(place.folder / folder), in_files=True)


def classify_attacked(
    subject: Subject, attack: str, folder: str, batches: Sequence[int], first: int, spans: Sequence[slice], place: Place
) -> None:
    """Classify some spans of the adversarial images, which lie in ``batches`` from row ``first`` on."""
    opened = opened_once(subject, place)
    stored = BatchCheckpoint(place.folder / attack)
    images = ShardedImages([Shard.of(stored.path(number)) for number in batches], opened.table.shape)

    def read(span: slice) -> Batch:
        return Batch(images=images[slice(span.start - first, span.stop - first)], ids=opened.table.ids[span])

    save_outcomes(classified(opened.model, read, opened.labels, spans), place.folder / folder, _rows(spans))


def classify_under(subject: Subject, name: str, severity: int, size: int, file: str, place: Place) -> None:
    """Classify all images under one corruption at one severity."""
    opened = opened_once(subject, place)
    records = classify_corrupted(
        opened.model,
        opened.table,
        names=[name],
        severities=[severity],
        column=opened.column,
        seed=subject.seed,
        batch_size=size,
    )
    records[0].save(place.folder / file)


def check_reliability(subject: Subject, check: str, threat: str, folder: str, place: Place) -> None:
    """Run the attacks of one check of the reliability report."""
    opened = opened_once(subject, place)
    run_checks(
        opened.model,
        opened.table,
        threat=ThreatModel.parse(threat),
        column=opened.column,
        attacks=[chosen.attack for chosen in opened.attacks],
        runs=place.folder / folder,
        check=check,
        seed=subject.seed,
        proxy=opened.proxy,
    )


def _rows(spans: Sequence[slice]) -> slice:
    return slice(spans[0].start, spans[-1].stop)


def _right(folder: Path, span: slice, count: int) -> torch.Tensor:
    """Which of all images (N,) are right without an attack, as the parts say that this job has; False elsewhere."""
    right = torch.zeros(count, dtype=torch.bool)
    for rows in stored_parts(folder):
        if rows.start < span.stop and span.start < rows.stop:
            right[rows] = load_outcomes(folder, rows).correct
    return right
