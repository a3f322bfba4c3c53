# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""What is said of a foreign classifier, checked: how it takes images, where its logits are, what its labels mean."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from unfool.core.errors import SpecError
from unfool.core.spec import parse_number, unknown
from unfool.models.network import NORMALISATIONS

_MOST_MEAN, _MOST_STD = 2.0, 3.0
"""Beyond these a mean or standard deviation is none of images in [0,1]."""
LAYOUTS = ("nchw", "nhwc")
Layout = Literal["nchw", "nhwc"]
LabelSets = Sequence[Collection[int]]


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """How a foreign classifier takes images and gives logits; each value is what `adapt` describes under its name.

    Raises SpecError for values that are not allowed, or do not go together.
    """

    mean: str | float | Sequence[float] | None = None
    std: str | float | Sequence[float] | None = None
    features: str | None = None
    output: str | None = None
    scale: float = 1.0
    layout: Layout = "nchw"
    batch: int | None = None
    label_sets: LabelSets | None = None

    def __post_init__(self) -> None:
        if (self.mean is None) != (self.std is None):
            raise SpecError("mean and std go together; give both for a model of normalised images, or neither")
        if self.layout not in LAYOUTS:
            raise unknown("layout", str(self.layout)[:80], LAYOUTS)
        if not 0 < self.scale < float("inf"):
            raise SpecError(
                f"scale {self.scale} is not allowed; give 255 for a model of images in 0–255, or leave it out"
            )
        if self.batch is not None and self.batch < 1:
            raise SpecError(
                f"batch {self.batch} is not allowed; give the one batch size that the model takes, at least 1"
            )


def membership(label_sets: LabelSets) -> Tensor:
    """Label sets as (S, K) float, 1 for a label that belongs to a set."""
    try:
        numbers = [[int(label) for label in labels] for labels in label_sets]
    except (TypeError, ValueError):
        numbers = []
    if not numbers or any(label < 0 for labels in numbers for label in labels):
        raise SpecError("label_sets must name the labels of each class by number, such as [[0], [1], [0, 1]]")
    count = 1 + max(label for labels in numbers for label in [*labels, 0])
    return torch.tensor([[float(label in labels) for label in range(count)] for labels in numbers])


def check_range(mean: Tensor, std: Tensor, scale: float) -> None:
    """Refuse statistics that belong to another scale than the images."""
    for word, values, most in (("mean", mean, _MOST_MEAN), ("std", std, _MOST_STD)):
        highest = float(values.abs().max())
        if scale == 1.0 and highest > most:
            raise SpecError(
                f"{word} {highest:g} is in the 0–255 scale, and images are in [0,1]; divide mean and std by 255 "
                f"({highest / 255:.3g}), or give --scale 255 for a model of images in 0–255"
            )
        if scale > 2 and 0 < highest <= 1 and word == "mean":
            raise SpecError(
                f"{word} {highest:g} is in the scale of images in [0,1], and scale {scale:g} comes before it; "
                f"give mean and std in that scale ({highest * scale:.4g}), or leave --scale out"
            )


def channel_statistics(word: str, statistics: str | float | Sequence[float]) -> Tensor:
    """One number per channel, (C,) float32; a single number is that of all channels."""
    values: Any = [statistics] if isinstance(statistics, Real) else statistics
    if isinstance(statistics, str):
        if statistics in NORMALISATIONS:
            values = NORMALISATIONS[statistics][word == "std"]
        elif statistics[:1].isalpha():
            raise unknown(word, statistics[:80], NORMALISATIONS)
        else:
            values = [parse_number(part, word) for part in statistics.split(",")]
    try:
        numbers = torch.tensor([_number(value) for value in values], dtype=torch.float32)
    except (TypeError, ValueError, OverflowError):
        numbers = torch.empty(0)
    if not len(numbers) or not bool(torch.isfinite(numbers).all()) or (word == "std" and bool((numbers <= 0).any())):
        rule = "give a name or one finite number per channel" + (" above 0" if word == "std" else "")
        raise SpecError(f"{word} {statistics!r} is not allowed; {rule}, such as 0.49,0.48,0.45")
    return numbers


def _number(value: Any) -> float:
    """A number of any library as a float; TypeError for a truth value, which Python counts as one."""
    if isinstance(value, (bool, np.bool_)):
        raise TypeError
    return float(value)
