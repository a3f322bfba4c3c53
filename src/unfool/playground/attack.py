"""Attack one image, and watch how the network changes its mind on the way.

Legend: S steps, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unfool.attacks import PGD
from unfool.core.spec import write_number
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.playground.pictures import Picture
from unfool.playground.systems import PlaygroundSystem, Seen

MOST_STEPS = 100
_FARTHER = 2.5
"""How many times over the steps together could cross eps (Madry et al., ICLR 2018)."""


class Watched(nn.Module):
    """A network that keeps the images which pass through it."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.images: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W) in [0,1]."""
        self.images.append(images.detach().clone())
        return self.network(images)


@dataclass(frozen=True, kw_only=True, eq=False)
class AttackOutcome:
    """What an attack made of an image.

    Args:
        label: The class that the attack leads away from: the image's, or what the network says where that is unknown.
        known: Whether the image's class is known.
        threat: The budget of the attack.
        steps: Its steps S.
        crafted_on: The network that the image was attacked on.
        borrowed: Whether that is another one than the network that looks at it.
        clean: The image and what the network sees in it.
        attacked: The attacked image, and what the network sees in it.
        path: Class probabilities on the way, (S + 1, K).
        distance: How far the attacked image is from the clean one, in the threat model's norm.
    """

    label: int
    known: bool
    threat: ThreatModel
    steps: int
    crafted_on: str
    borrowed: bool
    clean: Seen
    attacked: Seen
    path: Tensor
    distance: float

    @property
    def fooled(self) -> bool:
        """Whether the attack changed what the network sees."""
        return self.attacked.top != self.clean.top

    @property
    def budget(self) -> str:
        """The budget in words: ``8/255 in linf``."""
        return f"{write_number(self.threat.eps)} in {self.threat.norm_name}"


def look_at(system: PlaygroundSystem, picture: Picture) -> Seen:
    """A picture, and what a system sees in it."""
    return Seen(image=picture.image, probabilities=system.probabilities(picture.image[None])[0])


def attack_pictures(
    system: PlaygroundSystem,
    pictures: Sequence[Picture],
    threat: ThreatModel,
    steps: int,
    lender: PlaygroundSystem | None = None,
) -> list[AttackOutcome]:
    """Attack pictures by projected gradient from the pictures themselves, on a system or on the ``lender``.

    Every point that the attack went through is then shown to the system. Raises as `Attack` does.
    """
    images = torch.stack([picture.image for picture in pictures])
    clean = system.probabilities(images)
    labels = [
        int(top) if each.label is None else each.label for top, each in zip(clean.argmax(1), pictures, strict=True)
    ]
    crafter = lender or system
    watched = Watched(crafter.network)
    step_size = threat.eps * min(1.0, _FARTHER / max(1, steps))
    attack = PGD(threat, steps=steps, step_size=step_size, random_start=False, goal="best")
    device = crafter.device
    attacked = attack(watched, images.to(device), torch.tensor(labels, device=device), streams=Streams(0))
    ends, points = attacked.images.float().cpu(), torch.stack(watched.images).float().cpu()
    seen = system.probabilities(ends)
    paths = system.probabilities(points.flatten(0, 1)).unflatten(0, (len(points), len(pictures)))
    return [
        AttackOutcome(
            label=labels[row],
            known=picture.label is not None,
            threat=threat,
            steps=steps,
            crafted_on=crafter.name,
            borrowed=lender is not None,
            clean=Seen(image=picture.image, probabilities=clean[row]),
            attacked=Seen(image=ends[row], probabilities=seen[row]),
            path=paths[:, row],
            distance=float(attacked.distances[row]),
        )
        for row, picture in enumerate(pictures)
    ]
