# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Accuracy under common corruptions: the same images under each of them, corrupted batch by batch."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unfool.core.batch import Batch
from unfool.core.errors import DataError
from unfool.core.progress import Progress, silent
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.data.as_table import TableLike, as_table
from unfool.data.corruptions import CORRUPTIONS, SEVERITIES, corrupted
from unfool.data.corruptions.base import check_corruption
from unfool.data.table import Table
from unfool.evaluation.crafting.batches import BATCH_SIZE, device_of, spans_for
from unfool.evaluation.intervals import wilson
from unfool.evaluation.logits import checked_logits
from unfool.evaluation.records import NO_ATTACK, Records
from unfool.evaluation.results.details import CorruptionAccuracy, CorruptionSummary
from unfool.models.modes import frozen_eval

THREAT = ThreatModel.parse("linf:8/255")
"""Names the threat model of the rows, as for clean ones, and the norm of the distances; no corruption is held to it."""

RESAMPLES = 2000
"""Bootstrap resamples; the ends of a 95 % interval then rest on 50 of them each."""


class _CorruptionRecords:
    """The outcomes under one corruption and severity, collected batch by batch."""

    def __init__(self, name: str, severity: int):
        self.name = name
        self.severity = severity
        self.labels: list[int] = []
        self.correct: list[bool] = []
        self.losses: list[float] = []
        self.distances: list[float] = []
        self.seconds = 0.0

    def add(self, model: nn.Module, batch: Batch, labels: Tensor, streams: Streams) -> None:
        started = time.process_time()
        images = corrupted(batch.images, batch.ids, self.name, self.severity, streams)
        logits = checked_logits(model, images, labels)
        self.labels += labels.tolist()
        self.correct += (logits.argmax(1) == labels).tolist()
        self.losses += [round(value, 6) for value in F.cross_entropy(logits, labels, reduction="none").tolist()]
        self.distances += [round(value, 7) for value in THREAT.norm(images - batch.images).tolist()]
        self.seconds += time.process_time() - started

    def records(self, table: Table, seed: int) -> Records:
        return Records(
            attack=NO_ATTACK,
            threat=str(THREAT),
            data=table.name,
            split=table.split,
            seed=seed,
            ids=table.ids.tolist(),
            correct=self.correct,
            losses=self.losses,
            distances=self.distances,
            crafted_on=None,
            judged_on=None,
            cpu_seconds=self.seconds,
            model_images=len(table),
            labels=self.labels,
            settings={"corruption": self.name, "severity": self.severity},
        )


def classify_corrupted(
    model: nn.Module,
    data: TableLike,
    *,
    names: Iterable[str] | None = None,
    severities: Iterable[int] = SEVERITIES,
    column: str | None = None,
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    progress: Progress = silent,
) -> list[Records]:
    """Classify every image of a table under every corruption of ``names`` (default: all) at every severity.

    One record set per corruption and severity, in this order; ``settings`` say which, and go into its row by
    ``records.row(model, settings=records.settings)``. They are clean records (nobody was attacked) whose distances are
    how far the corruption went. ``column`` names the labels, ``seed`` fixes the corruptions' draws. The model is
    evaluated in eval mode and left as it was. Raises SpecError for unknown names and severities, otherwise what
    `classify` raises.
    """
    table = as_table(data)
    chosen, levels = tuple(CORRUPTIONS if names is None else names), tuple(severities)
    outcomes = [_CorruptionRecords(name, severity) for name in chosen for severity in levels]
    for each in outcomes:
        check_corruption(each.name, each.severity)
    labels = table.labels(column)
    device = device_of(model)
    streams = Streams(seed)
    with frozen_eval(model), torch.no_grad():
        for span in spans_for(model, len(table), batch_size):
            batch = table.batch(torch.arange(len(table))[span], device)
            for each in outcomes:
                each.add(model, batch, labels[span].to(device), streams)
            progress("corruptions", span.stop, len(table))
    return [each.records(table, seed) for each in outcomes]


def mean_corruption_accuracy(records: Sequence[Records]) -> tuple[float, float, float]:
    """The mean over corruptions of the mean accuracy over severities, with its 95 % interval; shares in [0,1].

    The same images recur under every corruption, so the interval is a percentile bootstrap over images (Efron 1979),
    each with all its outcomes, with a fixed seed. If all images have the same outcomes, a bootstrap has no width, and
    the interval is Wilson's for as many images. Raises DataError for records of different images, and for two records
    of one corruption and severity.
    """
    kinds = [(each.settings.get("corruption"), each.settings.get("severity")) for each in records]
    if not records or any(None in kind for kind in kinds) or len(set(kinds)) < len(kinds):
        raise DataError(f"records of corruptions {kinds} were given; give those of classify_corrupted, each once")
    if len({(each.data, each.split, tuple(each.ids)) for each in records}) > 1:
        raise DataError("the records are not of the same images; evaluate one table under all corruptions")
    names = [name for name, _ in kinds]
    weights = np.array([1 / (len(set(names)) * names.count(name)) for name in names])
    scores = weights @ np.array([each.correct for each in records], dtype=float)
    mean, count = float(scores.mean()), len(scores)
    # Equal scores may differ in their last bits, by the order of the sum.
    if float(np.ptp(scores)) < 1e-9:
        return mean, *wilson(round(mean * count), count)
    generator = np.random.default_rng(0)
    means = [scores[generator.integers(0, count, count)].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return mean, float(low), float(high)


def corruption_summary(records: Sequence[Records]) -> CorruptionSummary:
    """Mean corruption accuracy with its interval, and the accuracy under each corruption and severity."""
    accuracy, low, high = mean_corruption_accuracy(records)
    under = [
        CorruptionAccuracy(
            corruption=each.settings["corruption"],
            severity=each.settings["severity"],
            accuracy=round(each.accuracy, 6),
        )
        for each in records
    ]
    return CorruptionSummary(accuracy=accuracy, low=low, high=high, n=records[0].count, under=under)
