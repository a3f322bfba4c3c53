# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""What a defense makes of some images: their purified form, the predictions before and after, and the loss between.

Legend: B images, K classes, S steps of the reversal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unfool.core.batch import check_images
from unfool.defenses import as_defense
from unfool.defenses.gate import gate_losses
from unfool.evaluation.crafting.batches import device_of
from unfool.evaluation.results.ladder import ClassProbability
from unfool.models.modes import frozen_eval

ABSTAINS = "abstains"
"""What the class behind the last is called, which a gate gives to what it refuses."""


@dataclass(frozen=True, kw_only=True)
class Purification:
    """What a defense made of some images, on the CPU.

    Args:
        images: The purified images (B, C, H, W); of several reversals of an image the first.
        before: The network's probabilities of the images as they came, (B, K).
        after: The defense's probabilities, (B, K), or (B, K + 1) if it may abstain.
        losses: The pretext losses before and after on the same views, (B,) each; None for a defense without one.
        path: The pretext losses along the reversal, (S + 1, B), each step on its own views; None where the defense does
            not keep them.
        acted: Whether a gate let the defense act on each image, (B,); None for a defense without a gate.
    """

    images: Tensor
    before: Tensor
    after: Tensor
    losses: tuple[Tensor, ...] | None
    path: Tensor | None
    acted: Tensor | None = None


def purification(defense: nn.Module, images: Tensor) -> Purification:
    """Purify images (B, C, H, W) in [0,1] by a defense (see `ladder`) and classify them without and with it.

    Results are on the CPU. Raises ImagesError for images that break the contract, and what the defense raises.
    """
    check_images(images)
    parts = as_defense(defense)
    network, pretext, count = parts.classifier, parts.purifier.pretext, len(images)
    images = images.to(device_of(network))
    with frozen_eval(defense), torch.no_grad():
        purified = parts.purify(images)
        losses = None
        if pretext is not None:
            losses = tuple(gate_losses(pretext, each).cpu() for each in (images, purified.images[:count]))
        path, gate = purified.losses, parts.gate
        acted = None if gate is None else (gate.losses(images) > gate.threshold).cpu()
        return Purification(
            images=purified.images[:count].detach().cpu(),
            before=network(images).float().softmax(1).cpu(),
            after=defense(images).float().softmax(1).cpu(),
            losses=losses,
            path=None if path is None else path.detach()[:, :count].cpu(),
            acted=acted,
        )


def top_classes(shares: Tensor, names: Sequence[str], count: int = 1) -> list[ClassProbability]:
    """The ``count`` likeliest classes of one image's probabilities (K,), rounded to four digits."""
    top = shares.topk(min(count, len(shares)))
    return [
        ClassProbability(name=names[int(index)] if index < len(names) else ABSTAINS, probability=round(share, 4))
        for share, index in zip(top.values.tolist(), top.indices.tolist(), strict=True)
    ]
