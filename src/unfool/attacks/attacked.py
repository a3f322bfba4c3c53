"""What an attack returns: the images, whose distance and box are measured anew, and what its engines saw of each.

Legend: B images of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unfool.attacks.problem import Perturbed
from unfool.core.errors import ImagesError
from unfool.core.threat import ThreatModel

TOLERANCE = 1e-6
"""How far rounding may carry an image out of its ball, in pixel units."""


@dataclass(frozen=True, kw_only=True)
class Attacked:
    """What an attack returns: the images, and per image whether and how far it was changed.

    Args:
        images: Attacked images (B, C, H, W), each inside the threat model and the box [0,1].
        losses: The highest loss seen for each image (B,); of an attack of several parts, the margin of the image
            returned.
        fooled: Whether the attack saw the model misclassify the image (B,), bool; an evaluation classifies the images
            itself.
        zero_gradient: Not fooled, and the model gave a zero gradient at every step (B,), bool.
        fooled_by_part: Index into ``attack.part_names`` of the part that fooled the image (B,), -1 if none did.
        distances: Distance from the clean image in the threat model's norm (B,), float64, in pixel units.
        model_images: How many images went through the model or its proxy.

    Example:
        >>> model = torch.nn.Flatten()  # four pixels are four logits
        >>> images = torch.tensor([[0.6, 0.5, 0.4, 0.3], [0.9, 0.1, 0.1, 0.1]]).view(2, 1, 2, 2)
        >>> attacked = attacks.PGD(Linf(0.1), steps=5)(model, images, torch.tensor([0, 0]))
        >>> attacked.fooled, attacked.fooled_by_part, attacked.distances <= 0.1 + 1e-6
        (tensor([ True, False]), tensor([ 0, -1]), tensor([True, True]))
    """

    images: Tensor
    losses: Tensor
    fooled: Tensor
    zero_gradient: Tensor
    fooled_by_part: Tensor
    distances: Tensor
    model_images: int

    def __repr__(self) -> str:
        return (
            f"Attacked({len(self.images)} images, {int(self.fooled.sum())} fooled, "
            f"{self.model_images:,} images through the model)"
        )


def checked(name: str, threat: ThreatModel, perturbed: Perturbed, fooled_by_part: Tensor, images: Tensor) -> Attacked:
    """The result of the attack called ``name`` on clean ``images``, distance and box measured anew, whatever it says.

    ImagesError for an attack that left its threat model or the box.
    """
    # Subtracted in float64: the rounding of a half-precision difference is a thousand times the tolerance.
    distances = threat.norm(perturbed.images.double() - images.double())
    inside = (
        (distances <= threat.eps + TOLERANCE).all() and (perturbed.images >= 0).all() and (perturbed.images <= 1).all()
    )
    if not inside or not torch.isfinite(perturbed.images).all():
        raise ImagesError(f"attack {name} left {threat} or the box [0,1]; this is a fault of the attack")
    return Attacked(
        images=perturbed.images,
        losses=perturbed.losses,
        fooled=perturbed.fooled,
        zero_gradient=perturbed.zero_gradient,
        fooled_by_part=fooled_by_part,
        distances=distances,
        model_images=perturbed.model_images,
    )
