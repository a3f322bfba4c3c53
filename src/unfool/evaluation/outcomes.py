# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""How images were classified, one by one: some of them at a time, stored, and joined again."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unfool.core.batch import Batch, check_images
from unfool.core.borders.reading import is_folder
from unfool.core.errors import WeightsError
from unfool.evaluation.crafting.batches import device_of
from unfool.evaluation.logits import checked_logits
from unfool.models.modes import frozen_eval
from unfool.models.weights import load_tensors, save_tensors

_NAME = re.compile(r"(\d{8,})-(\d{8,})\.safetensors")


@dataclass(frozen=True, kw_only=True, eq=False)
class Outcomes:
    """Whether each image was classified correctly, (n,) bool, its cross-entropy, (n,) float32, and CPU seconds."""

    correct: Tensor
    losses: Tensor
    cpu_seconds: float

    @classmethod
    def joined(cls, parts: Sequence[Outcomes]) -> Outcomes:
        """Those of several parts, one after the other."""
        return cls(
            correct=torch.cat([part.correct for part in parts]),
            losses=torch.cat([part.losses for part in parts]),
            cpu_seconds=sum(part.cpu_seconds for part in parts),
        )


def classified(model: nn.Module, read: Callable[[slice], Batch], labels: Tensor, spans: Sequence[slice]) -> Outcomes:
    """Classify the images of spans that follow each other, which ``read`` gives; ``labels`` (N,) are those of all.

    Raises ImagesError for images or labels that break the contract, NonFiniteError for NaN logits.
    """
    started = time.process_time()
    device = device_of(model)
    first, count = spans[0].start, spans[-1].stop - spans[0].start
    # For all at once: a small tensor of each batch would keep the memory around it from being used again.
    correct, losses = torch.empty(count, dtype=torch.bool), torch.empty(count)
    with frozen_eval(model), torch.no_grad():
        for span in spans:
            batch = read(span).to(device)
            check_images(batch.images)
            target = labels[span].to(device)
            logits = checked_logits(model, batch.images, target)
            rows = slice(span.start - first, span.stop - first)
            correct[rows] = (logits.argmax(1) == target).cpu()
            losses[rows] = F.cross_entropy(logits, target, reduction="none").cpu()
    return Outcomes(correct=correct, losses=losses, cpu_seconds=time.process_time() - started)


def part_path(folder: Path, rows: slice) -> Path:
    """The file of a part of the images, by its rows."""
    return folder / f"{rows.start:08}-{rows.stop:08}.safetensors"


def stored_parts(folder: Path) -> list[slice]:
    """The rows whose outcomes a folder holds, in order."""
    if not is_folder(folder):
        return []
    matches = [_NAME.fullmatch(path.name) for path in folder.iterdir()]
    return sorted((slice(int(match[1]), int(match[2])) for match in matches if match), key=lambda rows: rows.start)


def save_outcomes(outcomes: Outcomes, folder: Path, rows: slice) -> None:
    """Write the outcomes of some rows, whole or not at all."""
    tensors = {"correct": outcomes.correct.byte(), "losses": outcomes.losses}
    save_tensors(part_path(folder, rows), tensors, {"cpu_seconds": outcomes.cpu_seconds})


def load_outcomes(folder: Path, rows: slice) -> Outcomes:
    """Read the outcomes of some rows; WeightsError for a file that was changed."""
    path = part_path(folder, rows)
    tensors, metadata = load_tensors(path)
    seconds, correct, losses = metadata.get("cpu_seconds"), tensors.get("correct"), tensors.get("losses")
    if not isinstance(seconds, float) or correct is None or losses is None or len(correct) != rows.stop - rows.start:
        raise WeightsError(f"{path} holds no outcomes of an evaluation; remove its folder")
    return Outcomes(correct=correct.bool(), losses=losses, cpu_seconds=seconds)


def stored_outcomes(folder: Path | None, count: int) -> Outcomes | None:
    """The outcomes of all ``count`` images, where a folder holds them; None where it lacks some."""
    parts = stored_parts(folder) if folder is not None else []
    starts = [0, *(rows.stop for rows in parts)]
    if folder is None or starts[-1] != count or any(rows.start != at for rows, at in zip(parts, starts, strict=False)):
        return None
    return Outcomes.joined([load_outcomes(folder, rows) for rows in parts])
