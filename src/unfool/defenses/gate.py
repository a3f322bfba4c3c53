"""The gate: reverse, or abstain, only where the task's loss looks attacked.

Its threshold is an order statistic of the losses of clean images that nothing was trained on, chosen so that the rate
of false triggers on fresh clean images exceeds the stated one with a small, known probability.

Legend: B images, K classes, n clean images to calibrate on.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from scipy.special import bdtr
from torch import Tensor, nn

from unfool.core.config import build, configured
from unfool.core.errors import DataError, NonFiniteError, SpecError
from unfool.core.spec import unknown
from unfool.core.streams import Streams
from unfool.data.table import Table
from unfool.defenses.base import DEFENSES, Defense, checked_ids
from unfool.defenses.objective import DefenseAware, Pretext
from unfool.defenses.reverse import Reverse, reverse
from unfool.models.modes import frozen_eval
from unfool.tasks.base import Task

Action = Literal["reverse", "abstain"]

CONFIDENCE = 0.95
DRAWS = 4
"""Draws of views that a gate's loss is averaged over."""
_CHUNK = 256
"""Clean images a pass."""
_MOST = 2048
"""Clean images that a threshold is made of, at the most."""


def gate_losses(
    network: nn.Module,
    task: Task,
    images: Tensor,
    ids: Tensor | None = None,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Tensor:
    """The task's losses (B,) on fixed draws, averaged over ``draws`` of them; differentiable in the images.

    Image ids (default: 0 for all) and ``seed`` alone choose the draws. Raises ImagesError for images that break the
    contract.
    """
    ids = checked_ids(images, ids)
    streams = Streams(seed).named("gate")
    pretext = Pretext(network, task)
    with frozen_eval(pretext):
        return torch.stack([pretext(images, ids, streams.at(draw))[0] for draw in range(draws)]).mean(0)


def calibrate_threshold(losses: Tensor, rate: float, confidence: float = CONFIDENCE) -> float:
    """The k-th smallest of n clean losses: above it lie more than ``rate`` of all clean images with a chance of at most
    1 - ``confidence``.

    The share of clean images above the k-th of n order statistics is Beta(n - k + 1, k) for any continuous loss (David
    & Nagaraja, "Order Statistics", 2003, section 2.3), conservatively so for one with ties; k is the smallest that will
    do. Raises SpecError for a rate or confidence outside (0,1) and for too few losses, NonFiniteError for NaN or
    infinite ones.
    """
    for word, value in (("rate", rate), ("confidence", confidence)):
        if not 0.0 < value < 1.0:
            raise SpecError(f"{word} {value} of a gate is not allowed; give a number between 0 and 1")
    if not torch.isfinite(losses).all():
        raise NonFiniteError("a gate was given NaN or infinite losses of clean images; check the network's weights")
    count = len(losses)
    needed = math.ceil(math.log1p(-confidence) / math.log1p(-rate))
    if count < needed:
        raise SpecError(
            f"{count} clean images cannot show a false-trigger rate of {rate:g} with confidence {confidence:g}; "
            f"give at least {needed}"
        )
    ranks = np.arange(1, count + 1)
    # P(Beta(n - k + 1, k) > rate) is the chance that at most n - k of n draws lie among the ``rate`` highest.
    exceeded = bdtr(count - ranks, count, rate)
    rank = int(ranks[exceeded <= 1.0 - confidence][0])
    return float(losses.detach().sort().values[rank - 1])


class Gate(Defense):
    """A reversal that acts only on images whose loss on fixed draws is above ``threshold``.

    ``action="reverse"`` reverses those and classifies the others as they are; ``"abstain"`` reverses none and gives one
    logit more, (B, K + 1): the last is the highest of the others plus the loss's excess over the threshold, so that the
    last class, abstention, wins exactly above it. Raises SpecError for another action.
    """

    def __init__(self, defense: Reverse, threshold: float, action: Action = "reverse", draws: int = DRAWS):
        super().__init__()
        if action not in ("reverse", "abstain"):
            raise unknown("action", str(action), ("reverse", "abstain"))
        self.defense = defense
        self.threshold = threshold
        self.action: Action = action
        self.draws = draws

    @property
    def classifier(self) -> nn.Module:
        return self.defense.network

    @property
    def batch_dependent(self) -> bool:
        return self.defense.batch_dependent

    @property
    def images_per_prediction(self) -> int:
        """That of an image above the threshold; below it, only the gate's own looks and the classification."""
        looks = self.draws * getattr(self.defense.task.settings, "views", 1)
        return looks + (1 if self.action == "abstain" else self.defense.images_per_prediction)

    def losses(self, images: Tensor, ids: Tensor | None = None) -> Tensor:
        """The losses (B,) that the threshold is set against; differentiable in the images."""
        task, seed = self.defense.task, self.defense.seed
        return gate_losses(self.defense.network, task, images, ids, draws=self.draws, seed=seed)

    def shown(
        self, images: Tensor, ids: Tensor | None = None, streams: Streams | None = None, exact: bool = False
    ) -> Tensor:
        """The reversed images where the gate acts, the images themselves elsewhere; (D·B, C, H, W)."""
        ids = checked_ids(images, ids)
        if self.action == "abstain":
            return images
        with torch.no_grad():
            rows = (self.losses(images, ids) > self.threshold).nonzero().squeeze(1)
        points = images.repeat(self.defense.draws, 1, 1, 1)
        if not len(rows):
            return points
        # In-batch negatives need the whole batch, acted on or not.
        chosen = torch.arange(len(images), device=images.device) if self.batch_dependent else rows
        reversed_images = self.defense.shown(images[chosen], ids[chosen], streams, exact)
        places = (torch.arange(self.defense.draws, device=rows.device)[:, None] * len(images) + rows).flatten()
        if self.batch_dependent:
            reversed_images = reversed_images[places]
        return points.index_copy(0, places, reversed_images)

    def logits(self, points: Tensor, images: Tensor, ids: Tensor | None = None) -> Tensor:
        logits = super().logits(points, images, ids)
        if self.action == "reverse":
            return logits
        excess = self.losses(images, ids) - self.threshold
        return torch.cat([logits, (logits.amax(1) + excess)[:, None]], dim=1)

    def aware(
        self,
        labels: Tensor,
        weight: float,
        loss: str = "margin",
        *,
        model: nn.Module | None = None,
        streams: Streams | None = None,
    ) -> DefenseAware:
        """The label loss less ``weight`` × the hinge of the gate's loss over its threshold."""
        return DefenseAware(
            model or self.classifier,
            labels,
            lambda images, rows: self.losses(images),
            weight,
            loss,
            threshold=self.threshold,
        )


@configured
class GateSettings:
    """The stated rate of false triggers, and what to do above the threshold; all other settings are the reversal's."""

    rate: float = Field(default=0.05, gt=0, lt=1)
    action: Action = "reverse"


@DEFENSES.add("gate")
def gate(
    name: str,
    network: nn.Module,
    classes: Mapping[str, int],
    values: Mapping[str, Any],
    data: Table | None,
    streams: Streams,
) -> Gate:
    """A reverse attack behind a gate; images to calibrate on are cut in two, for the task's bank and the threshold."""
    own = {field.name for field in dataclasses.fields(GateSettings)}  # type: ignore[arg-type]
    settings = build(GateSettings, {key: value for key, value in values.items() if key in own}, f"defense {name!r}")
    others = {key: value for key, value in values.items() if key not in own}
    if data is None:
        raise DataError("a gate was asked for without images to set its threshold on; give images cut from train")
    # Images of the bank would not be fresh to the gate.
    clean = data.sample(min(len(data) // 2, _MOST), streams.named("gate"))
    rest = data.subset(~torch.isin(data.ids, clean.ids))
    defense = reverse(name, network, classes, others, rest, streams)
    gated = Gate(defense, math.inf, settings.action)
    device = next(network.parameters()).device
    with torch.no_grad():
        losses = [
            gated.losses(clean.batch(torch.arange(start, min(start + _CHUNK, len(clean))), device).images)
            for start in range(0, len(clean), _CHUNK)
        ]
    gated.threshold = calibrate_threshold(torch.cat(losses), settings.rate)
    return gated
