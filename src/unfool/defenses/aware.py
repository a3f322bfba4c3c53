"""Objectives of an attacker who minds the defense: fool the network, and do not be noticed.

Legend: B images of the original batch, n of them in play.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from unfool.attacks.objective import LabelLoss, ObjectiveValue
from unfool.core.errors import SpecError
from unfool.core.streams import Streams
from unfool.defenses.base import Defense


class DefenseAwareLoss(LabelLoss):
    """A label loss less ``weight`` times what a defense would notice: images that fool the static model unnoticed.

    With a pretext loss as ``notice`` (images (n, C, H, W), rows (n,) → (n,)) this is the attack of Mao et al. (ICCV
    2021, section 4.4). With a ``threshold`` only what exceeds it counts: the hinge against a gate. ``fooled`` is the
    model's, not the defense's: the defense has to confirm the points.
    """

    def __init__(
        self,
        model: Callable[..., Tensor],
        labels: Tensor,
        notice: Callable[[Tensor, Tensor], Tensor],
        weight: float,
        loss: str = "ce",
        *,
        threshold: float | None = None,
        **settings: Any,
    ):
        super().__init__(model, labels, loss, **settings)
        self.notice = notice
        self.weight = weight
        self.threshold = threshold

    def __call__(self, images: Tensor, rows: Tensor) -> ObjectiveValue:
        value = super().__call__(images, rows)
        noticed = self.notice(images, self.rows_in_batch(rows))
        if self.threshold is not None:
            noticed = F.relu(noticed - self.threshold)
        return ObjectiveValue(losses=value.losses - self.weight * noticed, fooled=value.fooled)


def pretext_aware(
    defense: Defense, labels: Tensor, weight: float, loss: str = "ce", *, streams: Streams
) -> DefenseAwareLoss:
    """The label loss less ``weight`` × the defense's pretext loss, on views drawn anew at every call.

    Raises SpecError for a defense without a pretext loss.
    """
    objective = defense.objective(labels.new_zeros(len(labels)), streams)
    return DefenseAwareLoss(
        defense.classifier, labels, lambda images, rows: objective(images, rows).losses, weight, loss
    )


def gate_aware(defense: Defense, labels: Tensor, weight: float, loss: str = "margin") -> DefenseAwareLoss:
    """The label loss less ``weight`` × the excess of the gate's loss over its threshold.

    Raises SpecError for a defense without a gate.
    """
    gate = defense.gate
    if gate is None:
        raise SpecError(f"defense {type(defense).__name__} has no gate; define gate")
    return DefenseAwareLoss(
        defense.classifier, labels, lambda images, rows: gate.losses(images), weight, loss, threshold=gate.threshold
    )
