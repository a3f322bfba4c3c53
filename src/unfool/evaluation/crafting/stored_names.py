"""Names in files that differ from those in Python, and what files of earlier versions leave unsaid."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

STORED_NAMES = {"zero_gradient": "flat", "fooled_by_part": "by"}
"""Names in files that differ from those in Python: files of every version have them."""
_NAMES = {stored: name for name, stored in STORED_NAMES.items()}
_MASKS = ("fooled", "zero_gradient")


def to_stored(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as they are written."""
    return {
        STORED_NAMES.get(name, name): value.byte() if value.dtype == torch.bool else value
        for name, value in tensors.items()
    }


def from_stored(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as they were before `to_stored`."""
    named = {_NAMES.get(name, name): value for name, value in tensors.items()}
    return {name: value.bool() if name in _MASKS else value for name, value in named.items()}


def follows_gradients_by_name(attack: str) -> bool | None:
    """Whether an attack follows gradients, by its name; None for an ensemble of both kinds.

    Files of earlier versions, which do not say it, are read by this rule.
    """
    if attack.startswith(("autoattack", "worst-case")):
        return None
    return not attack.startswith("square")
