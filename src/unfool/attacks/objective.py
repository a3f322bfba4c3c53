"""What a perturbation climbs: anything that gives one number per image, and perhaps whether the image is done.

Legend: B images of the original batch, n of them still in play.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from unfool.core.errors import ImagesError
from unfool.models.network import Network
from unfool.tasks.base import at_least_fp32


@dataclass(frozen=True, kw_only=True)
class Reading:
    """``losses`` (n,), differentiable in the images; ``fooled`` (n,) bool, or None where nothing can be fooled."""

    losses: Tensor
    fooled: Tensor | None = None


class Objective(Protocol):
    """Images (n, C, H, W) and the rows (n,) they have in the original batch → a reading."""

    def __call__(self, images: Tensor, rows: Tensor) -> Reading: ...


class LabelLoss:
    """Cross-entropy of a model's logits against the labels (B,); an image is fooled when its class is another one.

    Logits enter the loss in at least float32, whatever precision the model computes in. Raises ImagesError for outputs
    that are no logits, or labels beyond them.
    """

    def __init__(self, model: Callable[[Tensor], Tensor], labels: Tensor):
        self.model = model
        self.labels = labels
        self.highest = int(labels.max())
        # Channels-last images save a fifth of a network's time; a foreign model may rely on the strides it was given.
        self.memory = torch.channels_last if isinstance(model, Network) else torch.preserve_format

    def __call__(self, images: Tensor, rows: Tensor) -> Reading:
        logits = at_least_fp32(self.model(images.to(memory_format=self.memory)))
        if logits.ndim != 2 or len(logits) != len(images):
            raise ImagesError(
                f"the model gave outputs of shape {tuple(logits.shape)}; give logits of shape (B, classes)"
            )
        if self.highest >= logits.shape[1]:
            raise ImagesError(
                f"label {self.highest} lies beyond the model's {logits.shape[1]} classes; "
                "choose the data it was trained on"
            )
        labels = self.labels[rows]
        losses = F.cross_entropy(logits, labels, reduction="none")
        return Reading(losses=losses, fooled=logits.detach().argmax(1) != labels)
