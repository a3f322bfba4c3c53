"""Judge any system on images, whoever crafted them: who did is kept apart on purpose."""

from __future__ import annotations

import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unfool.core.batch import Batch, check_images
from unfool.core.errors import DataError, ImagesError, NonFiniteError
from unfool.core.threat import ThreatModel
from unfool.data.table import Table
from unfool.evaluation.crafting.adversarial_set import AdversarialSet
from unfool.evaluation.crafting.batches import BATCH_SIZE, device_of, spans
from unfool.evaluation.identity import identity
from unfool.evaluation.records import NO_ATTACK, Records
from unfool.models.modes import frozen_eval


def judge(
    model: nn.Module,
    on: AdversarialSet | Table,
    *,
    column: str | None = None,
    threat: str = "linf:8/255",
    batch_size: int = BATCH_SIZE,
) -> Records:
    """Classify images and record each: a table gives clean records, an adversarial set white-box or transfer ones.

    The model is judged in eval mode and given back as it was. ``column`` names a table's labels (a set brings its
    own); ``threat`` only names the threat model of clean rows. Raises DataError for no images or another column than
    the set's, ImagesError for images that break the contract or labels beyond the model's classes, NonFiniteError for
    NaN logits.
    """
    started = time.process_time()
    device = device_of(model)
    labels = _labels(on, column)
    correct: list[Tensor] = []
    losses: list[Tensor] = []
    with frozen_eval(model), torch.no_grad():
        for span in spans(len(on), batch_size):
            batch = _batch(on, span).to(device)
            check_images(batch.images)
            target = labels[span].to(device)
            logits = checked_logits(model, batch.images, target)
            correct.append((logits.argmax(1) == target).cpu())
            losses.append(F.cross_entropy(logits, target, reduction="none").cpu())
    seconds = time.process_time() - started
    found: dict[str, Any] = {
        "split": on.split,
        "ids": on.ids.tolist(),
        "correct": torch.cat(correct).tolist(),
        "losses": [round(value, 6) for value in torch.cat(losses).tolist()],
        "labels": labels.tolist(),
    }
    if not isinstance(on, AdversarialSet):
        return Records(
            **found,
            attack=NO_ATTACK,
            threat=str(ThreatModel.parse(threat)),
            data=on.name,
            seed=0,
            distances=[0.0] * len(on),
            crafted_on=None,
            judged_on=None,
            cpu_seconds=seconds,
            model_images=len(on),
        )
    return Records(
        **found,
        attack=on.attack,
        threat=on.threat,
        data=on.data,
        seed=on.seed,
        distances=[round(value, 7) for value in on.distances.tolist()],
        crafted_on=on.crafted_on,
        judged_on=identity(model),
        cpu_seconds=seconds + on.cpu_seconds,
        model_images=len(on) + on.model_images,
        settings=on.settings,
        flat=int(on.zero_gradient.sum()),
        fooled_by=on.wins,
    )


def _labels(on: AdversarialSet | Table, column: str | None) -> Tensor:
    if not isinstance(on, AdversarialSet):
        return on.labels(column)
    if column not in (None, on.column):
        raise DataError(f"the adversarial set has labels of column {on.column!r}, not {column!r}; leave the column out")
    return on.labels


def _batch(on: AdversarialSet | Table, span: slice) -> Batch:
    if isinstance(on, AdversarialSet):
        return Batch(images=on.images[span], ids=on.ids[span])
    return on.batch(torch.arange(len(on))[span])


def checked_logits(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The model's logits in float32, once they are known to be some, and to cover the labels."""
    logits = model(images)
    rule = "give a model that maps images (B, C, H, W) to logits (B, classes)"
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        kind = logits.dtype if isinstance(logits, Tensor) else type(logits).__name__
        raise ImagesError(f"the model gave {kind}, not floating logits; {rule}")
    if logits.ndim != 2 or len(logits) != len(images):
        raise ImagesError(f"the model gave outputs of shape {tuple(logits.shape)} for {len(images)} images; {rule}")
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= logits.shape[1]:
        wrong = lowest if lowest < 0 else highest
        raise ImagesError(
            f"label {wrong} is none of the model's {logits.shape[1]} classes (0 to {logits.shape[1] - 1}); "
            "choose the data and label column that it was trained on"
        )
    logits = logits.float()
    if not torch.isfinite(logits).all():
        raise NonFiniteError("the model gave NaN or infinite logits; check its weights")
    return logits
