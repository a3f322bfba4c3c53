"""Attack one image, and watch how the network changes its mind on the way.

Legend: S steps, K classes.
"""

from __future__ import annotations

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


def attack_picture(
    system: PlaygroundSystem,
    picture: Picture,
    threat: ThreatModel,
    steps: int,
    lender: PlaygroundSystem | None = None,
) -> AttackOutcome:
    """Attack a picture by projected gradient from the picture itself, on a system or on the ``lender``.

    Every point that the attack went through is then shown to the system. Raises as `Attack` does.
    """
    clean = look_at(system, picture)
    label = clean.top if picture.label is None else picture.label
    crafter = lender or system
    watched = Watched(crafter.network)
    attack = PGD(
        threat, steps=steps, step_size=threat.eps * min(1.0, _FARTHER / max(1, steps)), random_start=False, goal="best"
    )
    images = picture.image[None].to(crafter.device)
    attacked = attack(watched, images, torch.tensor([label], device=crafter.device), streams=Streams(0))
    points = torch.cat(watched.images).cpu()
    image = attacked.images.float().cpu()
    seen = system.probabilities(torch.cat([points.float(), image]))
    return AttackOutcome(
        label=label,
        known=picture.label is not None,
        threat=threat,
        steps=steps,
        crafted_on=crafter.name,
        borrowed=lender is not None,
        clean=clean,
        attacked=Seen(image=image[0], probabilities=seen[-1]),
        path=seen[:-1],
        distance=float(attacked.distances[0]),
    )
