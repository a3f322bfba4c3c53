"""Craft adversarial examples on one system, and judge any system on images: two acts, kept apart on purpose."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unfool.attacks import Attack, Search
from unfool.core.batch import Batch, check_images
from unfool.core.errors import DataError, ImagesError, NonFiniteError, SpecError
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.data.table import ImageTable
from unfool.evaluation.adversarial import AdversarialSet
from unfool.evaluation.identity import identity
from unfool.evaluation.records import NO_ATTACK, Records
from unfool.models.modes import untouched

BATCH_SIZE = 250
"""Images at a time; results do not depend on it, only "same bits" does."""

Report = Callable[[int, int], None]
"""Told after each batch: images done, images in all."""


def _spans(count: int, size: int) -> Iterator[slice]:
    if size < 1:
        raise SpecError(f"batch size {size} is not allowed; give 1 or more")
    if not count:
        raise DataError("there are no images to evaluate on; give a table with at least one")
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def craft(
    model: nn.Module,
    table: ImageTable,
    attack: Attack,
    *,
    column: str | None = None,
    seed: int = 0,
    search: Search | None = None,
    batch_size: int = BATCH_SIZE,
    report: Report | None = None,
) -> AdversarialSet:
    """Attack ``model`` (images in [0,1] → logits) on every image of a table and keep what came out, with provenance.

    ``column`` names the labels (default: the table's primary column). ``search`` turns on a fast twin. Raises
    DataError for a table without images or labels, ImagesError for labels that the model's logits do not cover,
    NonFiniteError for NaN logits.
    """
    labels = table.labels(column)
    started = time.process_time()
    streams = Streams(seed).named("attack")
    device = _device(model)
    twin = search.copy(model) if search is not None else None
    parts: dict[str, list[Tensor]] = {"images": [], "distances": [], "flat": []}
    model_images = 0
    for span in _spans(len(table), batch_size):
        rows = torch.arange(len(table))[span]
        batch = table.batch(rows, device)
        found = attack(
            model, batch.images, labels[rows].to(device), ids=batch.ids, streams=streams, twin=twin, search=search
        )
        for name, values in parts.items():
            values.append(getattr(found, name).cpu())
        model_images += found.model_images
        if report is not None:
            report(span.stop, len(table))
    joined = {name: torch.cat(values) for name, values in parts.items()}
    return AdversarialSet(
        **joined,
        labels=labels.clone(),
        ids=table.ids.clone(),
        attack=attack.name,
        threat=str(attack.threat),
        data=table.name,
        split=table.split,
        column=column or table.label_column or "",
        seed=seed,
        crafted_on=identity(model),
        settings=dict(attack.settings),
        cpu_seconds=time.process_time() - started,
        model_images=model_images,
    )


def judge(
    model: nn.Module,
    on: AdversarialSet | ImageTable,
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
    device = _device(model)
    labels = _labels(on, column)
    correct: list[Tensor] = []
    losses: list[Tensor] = []
    with untouched(model), torch.no_grad():
        for span in _spans(len(on), batch_size):
            batch = _batch(on, span).to(device)
            check_images(batch.images)
            target = labels[span].to(device)
            logits = _logits(model, batch.images, target)
            correct.append((logits.argmax(1) == target).cpu())
            losses.append(F.cross_entropy(logits, target, reduction="none").cpu())
    seconds = time.process_time() - started
    found: dict[str, Any] = {
        "split": on.split,
        "ids": on.ids.tolist(),
        "correct": torch.cat(correct).tolist(),
        "losses": [round(value, 6) for value in torch.cat(losses).tolist()],
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
        flat=int(on.flat.sum()),
    )


def _labels(on: AdversarialSet | ImageTable, column: str | None) -> Tensor:
    if not isinstance(on, AdversarialSet):
        return on.labels(column)
    if column not in (None, on.column):
        raise DataError(f"the adversarial set has labels of column {on.column!r}, not {column!r}; leave the column out")
    return on.labels


def _batch(on: AdversarialSet | ImageTable, span: slice) -> Batch:
    if isinstance(on, AdversarialSet):
        return Batch(images=on.images[span], ids=on.ids[span])
    return on.batch(torch.arange(len(on))[span])


def _device(model: nn.Module) -> torch.device:
    return next((tensor.device for tensor in (*model.parameters(), *model.buffers())), torch.device("cpu"))


def _logits(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
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
