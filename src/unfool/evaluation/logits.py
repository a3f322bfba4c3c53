# pyright: reportUnnecessaryIsInstance=false
"""The logits of a model as every evaluation reads them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unfool.attacks.objective import check_classes, not_logits
from unfool.core.errors import ImagesError, NonFiniteError


def checked_logits(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The model's logits as float32; raises ImagesError unless they are (B, classes) and cover the labels."""
    logits = model(images)
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        raise ImagesError(not_logits(logits))
    if logits.ndim != 2 or len(logits) != len(images):
        raise ImagesError(
            f"the model gave outputs of shape {tuple(logits.shape)} for {len(images)} images; "
            "give a model that maps images (B, C, H, W) to logits (B, classes)"
        )
    check_classes(logits)
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0 or highest >= logits.shape[1]:
        wrong = lowest if lowest < 0 else highest
        hint = ", or number labels that count from 1 from 0" if wrong == logits.shape[1] else ""
        raise ImagesError(
            f"label {wrong} is none of the model's {logits.shape[1]} classes (0 to {logits.shape[1] - 1}); "
            f"choose the data and label column that it was trained on{hint}"
        )
    logits = logits.float()
    if not torch.isfinite(logits).all():
        raise NonFiniteError("the model gave NaN or infinite logits; check its weights")
    return logits
