# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Evaluate a system on images, whichever system they were crafted on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from unfool.attacks.inputs import check_model
from unfool.core.batch import Batch
from unfool.core.errors import DataError
from unfool.core.threat import ThreatModel
from unfool.data.as_table import TableLike, as_table
from unfool.data.table import Table
from unfool.evaluation.crafting.adversarial_set import AdversarialSet
from unfool.evaluation.crafting.batches import BATCH_SIZE, spans_for
from unfool.evaluation.identity import one_identity
from unfool.evaluation.outcomes import classified, stored_outcomes
from unfool.evaluation.records import NO_ATTACK, Records, shared_kind


def classify(
    model: nn.Module,
    data: AdversarialSet | TableLike,
    *,
    column: str | None = None,
    threat: ThreatModel | str = "linf:8/255",
    batch_size: int = BATCH_SIZE,
) -> Records:
    """Classify images and record the outcome of each: clean ones of a table, or those of an adversarial set.

    Args:
        model: Maps images in [0,1] to logits. It is evaluated in eval mode and left as it was.
        data: An adversarial set, whose records are white-box or transfer; or a table (what `as_table` makes one of),
            whose records are clean.
        column: Label column of a table; an adversarial set has its own labels.
        threat: Threat model that the records of clean images name.
        batch_size: Images at a time; a defense whose predictions depend on batch-mates has its own.

    Returns:
        One record per image.

    Raises:
        DataError: No images, or another label column than that of the set.
        ImagesError: Images that break the contract, or labels beyond the model's classes.
        NonFiniteError: NaN logits.

    Example:
        >>> import torch
        >>> from unfool import classify
        >>> model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> classify(model, (torch.eye(3)[:, :, None, None].expand(3, 3, 4, 4), [0, 1, 0]))
        Records(clean on tensors test: 66.7 % [20.8, 93.9] of 3 images, clean)
    """
    check_model(model)
    source = data if isinstance(data, AdversarialSet) else as_table(data)
    return classify_or_read(model, source, column=column, threat=threat, batch_size=batch_size)


def classify_or_read(
    model: nn.Module,
    source: AdversarialSet | Table,
    *,
    column: str | None = None,
    threat: ThreatModel | str = "linf:8/255",
    batch_size: int = BATCH_SIZE,
    stored: Path | None = None,
) -> Records:
    """As `classify`; where a folder holds the ``stored`` outcomes of all images, they are read from it."""
    labels = labels_of(source, column)
    cuts = spans_for(model, len(source), batch_size)
    with one_identity(model) as own:
        outcomes = stored_outcomes(stored, len(source)) or classified(model, reader(source), labels, cuts)
    clean = Records(
        attack=NO_ATTACK,
        threat=str(ThreatModel.parse(threat) if isinstance(threat, str) else threat),
        data=source.data if isinstance(source, AdversarialSet) else source.name,
        split=source.split,
        seed=0,
        ids=source.ids.tolist(),
        correct=outcomes.correct.tolist(),
        losses=[round(loss, 6) for loss in outcomes.losses.tolist()],
        labels=labels.tolist(),
        distances=[0.0] * len(source),
        crafted_on=None,
        judged_on=None,
        cpu_seconds=outcomes.cpu_seconds,
        model_images=len(source),
    )
    if not isinstance(source, AdversarialSet):
        return clean
    return dataclasses.replace(
        clean,
        attack=source.attack,
        threat=source.threat,
        seed=source.seed,
        distances=[round(distance, 7) for distance in source.distances.tolist()],
        crafted_on=source.crafted_on,
        judged_on=own,
        cpu_seconds=outcomes.cpu_seconds + source.cpu_seconds,
        model_images=len(source) + source.model_images,
        settings=source.settings,
        zero_gradient=int(source.zero_gradient.sum()),
        fooled_by=source.successes_per_part,
        follows_gradients=shared_kind(source.follows_gradients),
    )


def labels_of(source: AdversarialSet | Table, column: str | None) -> Tensor:
    """The labels (N,) of images; DataError for another column than that of an adversarial set."""
    if not isinstance(source, AdversarialSet):
        return source.labels(column)
    if column not in (None, source.column):
        raise DataError(
            f"the adversarial set has labels of column {source.column!r}, not {column!r}; leave the column out"
        )
    return source.labels


def reader(source: AdversarialSet | Table) -> Callable[[slice], Batch]:
    """What gives a span of the images as a batch of their own, since a model may write into its input."""
    if isinstance(source, AdversarialSet):
        return lambda span: Batch(images=source.read(span), ids=source.ids[span])
    return lambda span: source.batch(torch.arange(len(source))[span])
