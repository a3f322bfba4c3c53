"""Ways to attack a defense with gradients: models whose values are the defense's, and whose gradients are of use.

Legend: B images, D purified images of each.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unfool.core.streams import Streams
from unfool.defenses.base import Defense


class _Differentiable(nn.Module):
    """The defense with a gradient; ``redrawn`` replaces its draws by fresh ones at every call (EOT), else they are its
    own. With fresh draws it is another system at every call, so that nothing may be evaluated on it."""

    def __init__(self, defense: Defense, redrawn: Streams | None = None):
        super().__init__()
        self.defense = defense
        self.redrawn = redrawn
        self.calls = 0

    def _streams(self) -> Streams | None:
        self.calls += 1
        return None if self.redrawn is None else self.redrawn.at(self.calls - 1)


class AfterPurification(nn.Module):
    """What a defense makes of images that it has purified: a model of those, each by itself."""

    def __init__(self, defense: Defense):
        super().__init__()
        self.defense = defense
        self.train(defense.training)

    def forward(self, points: Tensor) -> Tensor:
        return self.defense.logits(points, points)


class Bpda(_Differentiable):
    """Backward-pass differentiable approximation (Athalye et al., ICML 2018, section 4.1.2): the defense forward, the
    identity in its place backward, so that the gradient is the network's own at the purified image.

    Averaged over several calls with ``redrawn`` streams it is BPDA with EOT: give a label loss as many ``draws``.
    ``after`` gives the logits of purified images in place of the defense, with the same values: a surrogate of its
    `AfterPurification`, where that blocks gradients too.
    """

    def __init__(self, defense: Defense, redrawn: Streams | None = None, after: nn.Module | None = None):
        super().__init__(defense, redrawn)
        self.after = after

    def forward(self, images: Tensor, ids: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            points = self.defense.purified_images(images.detach(), ids, self._streams())
        identity: Tensor = images - images.detach()
        points = points + identity.repeat(len(points) // len(images), 1, 1, 1)
        if self.after is None:
            return self.defense.logits(points, images, ids)
        logits: Tensor = self.after(points)
        return logits.view(-1, len(images), logits.shape[1]).mean(0)


class Unrolled(_Differentiable):
    """The defense with its exact gradient, through every step of the reversal (see ``unroll``)."""

    def forward(self, images: Tensor, ids: Tensor | None = None) -> Tensor:
        points = self.defense.purified_images(images, ids, self._streams(), differentiable=True)
        return self.defense.logits(points, images, ids)
