"""Attacks of the reliability checks that were run already, perhaps elsewhere: what they fooled, by what they were."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from unfool.attacks import Attack, Attacked
from unfool.core.borders.checksum import checksum
from unfool.core.borders.reading import is_file
from unfool.core.errors import WeightsError
from unfool.models.weights import load_tensors, save_tensors


@dataclass(frozen=True, kw_only=True, eq=False)
class TrialRun:
    """What one attack did: images (B,) that it ``fooled``, those without any gradient, and what it cost.

    ``examples`` (n, C, H, W) are of the images that it fooled; None where it was run before this report.
    """

    fooled: Tensor
    zero_gradient: Tensor
    model_images: int
    examples: Tensor | None = None
    earlier_seconds: float = 0.0
    """CPU seconds that it took when it was run before this report."""


class TrialRuns:
    """Runs attacks, or reads what came of them from a folder; without a folder nothing is kept."""

    def __init__(self, folder: Path | None = None):
        self.folder = folder

    def run(self, what: str, attack: Attack, ids: Tensor, mask: Tensor, attacked: Callable[[], Attacked]) -> TrialRun:
        """The outcome of an attack, called ``what``, on the images of a mask; it is run if it was not before."""
        if self.folder is None:
            return _of(attacked())
        key = checksum({"attack": attack.name, "threat": str(attack.threat)}, {"ids": ids.cpu(), "mask": mask.cpu()})
        path = self.folder / f"{what}-{key[:16]}.safetensors"
        if not is_file(path):
            started = time.process_time()
            outcome = _of(attacked())
            seconds = {"cpu_seconds": time.process_time() - started, "model_images": outcome.model_images}
            masks = {"fooled": outcome.fooled.cpu().byte(), "zero_gradient": outcome.zero_gradient.cpu().byte()}
            save_tensors(path, masks, seconds)
            return outcome
        tensors, metadata = load_tensors(path)
        if set(tensors) != {"fooled", "zero_gradient"} or not {"cpu_seconds", "model_images"} <= set(metadata):
            raise WeightsError(f"{path} holds no outcome of an attack; remove its folder")
        return TrialRun(
            fooled=tensors["fooled"].bool().to(mask.device),
            zero_gradient=tensors["zero_gradient"].bool().to(mask.device),
            model_images=int(metadata["model_images"]),
            earlier_seconds=float(metadata["cpu_seconds"]),
        )


def _of(attacked: Attacked) -> TrialRun:
    return TrialRun(
        fooled=attacked.fooled.to(torch.bool),
        zero_gradient=attacked.zero_gradient,
        model_images=attacked.model_images,
        examples=attacked.images[attacked.fooled.to(torch.bool)],
    )
