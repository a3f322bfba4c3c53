"""Square: a random search that needs the model's outputs alone."""

from __future__ import annotations

from pydantic import Field

from unfool.attacks.base import ATTACKS, Attack
from unfool.attacks.engines.square import SquareSearch
from unfool.attacks.ensemble import Part
from unfool.core.config import configured
from unfool.core.geometry import GEOMETRIES


@ATTACKS.add("square")
@configured
class Square(Attack):
    """Square attack: random search over windows of pixels, on the margin of the logits.

    Andriushchenko et al., "Square attack: a query-efficient black-box adversarial attack via random search", ECCV 2020
    (linf: algorithms 1 and 2; l2: algorithm 3); in l1 as AutoAttack runs it. In l0 it is Sparse-RS (Croce et al.,
    "Sparse-RS: a versatile framework for query-efficient sparse black-box adversarial attacks", AAAI 2022), which
    exchanges pixels instead of windows. Without gradients to be masked, it shows when those of other attacks mislead.

    Departures from the published code: the windows of every image are its own (there one window is drawn for the whole
    batch), and they lie wherever they fit (there never at the lower and right edge); where few images are left, several
    windows of each are looked at in one pass, which gives the same result by a few queries more; in l0 as many pixels
    are exchanged as a window of Square's schedule would have of the image.

    Args:
        steps: Queries for each image after the start.
        p: Share of the image that the first windows cover, above 0 and at most 1; later windows are smaller.
        restarts: Runs, each from a start of its own.

    Example:
        >>> import torch
        >>> from unfool import Linf, attacks
        >>> model = torch.nn.Flatten()  # four pixels are four logits
        >>> images = torch.tensor([[[[0.6, 0.5], [0.4, 0.3]]]])
        >>> attack = attacks.Square(Linf(0.1), steps=50)
        >>> attack.follows_gradients
        False
        >>> attack(model, images, torch.tensor([0])).fooled
        tensor([True])
    """

    steps: int = Field(default=5000, ge=0)
    p: float = Field(default=0.8, gt=0, le=1)
    restarts: int = Field(default=1, ge=1)

    norms = tuple(GEOMETRIES)

    @property
    def parts(self) -> tuple[Part, ...]:
        engine = SquareSearch(threat=self.threat, steps=self.steps, p=self.p, restarts=self.restarts)
        return (Part(name=self.name, engine=engine, loss="margin", learns_from="scores"),)
