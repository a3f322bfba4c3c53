"""A classifier as the playground has it: names for its outputs, the size of its images, and images to play with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unfool.core.errors import DataError
from unfool.data.table import Table
from unfool.evaluation.logits import checked_logits
from unfool.models.modes import frozen_eval
from unfool.tasks import TASKS, make_task
from unfool.tasks.base import Task


@dataclass(frozen=True, kw_only=True, eq=False)
class PlaygroundSystem:
    """A classifier to play with.

    Args:
        name: Its name on the page.
        network: Images (B, C, H, W) in [0,1] → logits (B, K).
        classes: Names of its outputs; outputs beyond them are called by their numbers.
        shape: The shape (C, H, W) of its images.
        crop: The share of an image's shorter side that the centre cut keeps.
        examples: Images with labels that are numbers of its outputs; None where there are none.
        column: The label column that it predicts; None for the primary one.
        calibration: Images that a reversal and its gate are calibrated on; None where there are none.
    """

    name: str
    network: nn.Module
    classes: Sequence[str]
    shape: tuple[int, int, int]
    crop: float = 1.0
    examples: Table | None = None
    column: str | None = None
    calibration: Table | None = None

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return next((tensor.device for tensor in self.network.parameters()), torch.device("cpu"))

    @property
    def sees_digits(self) -> bool:
        """Whether its images are the embedded digits, large strokes that photographs have nothing of."""
        return self.examples is not None and self.examples.name == "digits"

    @property
    def pretext_heads(self) -> list[str]:
        """The heads of tasks without labels that a reversal can go along with the images that there are."""
        heads = getattr(self.network, "heads", {})
        return [name for name in heads if name in TASKS and not make_task(name).needs and self._calibrates(name)]

    def _calibrates(self, task: str) -> bool:
        """Whether there are images to calibrate a task on, or it needs none."""
        return self.calibration is not None or TASKS[task].calibrate is Task.calibrate

    def class_name(self, number: int) -> str:
        """The name of an output."""
        return self.classes[number] if number < len(self.classes) else str(number)

    def probabilities(self, images: Tensor) -> Tensor:
        """Class probabilities (B, K) of images (B, C, H, W), on the CPU; raises as `checked_logits` does."""
        if tuple(images.shape[1:]) != self.shape:
            raise DataError(f"an image has shape {tuple(images.shape[1:])}, and {self.name} takes {self.shape}")
        none = torch.zeros(len(images), dtype=torch.int64)
        with torch.no_grad(), frozen_eval(self.network):
            return checked_logits(self.network, images.to(self.device), none).softmax(1).cpu()


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """An image (C, H, W) in [0,1], and the class probabilities (K,) that a network gives it."""

    image: Tensor
    probabilities: Tensor

    @property
    def top(self) -> int:
        """The likeliest class."""
        return int(self.probabilities.argmax())

    @property
    def share(self) -> float:
        """Its probability."""
        return float(self.probabilities.max())


def lenders_of(system: PlaygroundSystem, systems: Mapping[str, PlaygroundSystem]) -> list[str]:
    """Names of other systems whose images and classes are the same, so that examples can be borrowed from them."""
    return [
        name
        for name, other in systems.items()
        if other is not system and other.shape == system.shape and list(other.classes) == list(system.classes)
    ]
