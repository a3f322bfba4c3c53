"""Where adaptive attacks start: at the examples that already fool the undefended network."""

from __future__ import annotations

import torch
from torch import Tensor

from unfool.core.borders.checksum import checksum
from unfool.evaluation.crafting.adversarial_set import AdversarialSet
from unfool.evaluation.crafting.sharded_images import ImagesInChunks


class WarmStarts:
    """The examples of an adversarial set, looked up by the ids of their images; those must be in it."""

    def __init__(self, examples: AdversarialSet):
        self.examples = examples
        self.order = examples.ids.argsort()
        self.ids = examples.ids[self.order]
        images = ImagesInChunks(examples.images.shape, lambda rows: examples.read(self.order[rows]))
        self.checksum = checksum({"attack": examples.attack}, {"ids": self.ids, "images": images})

    def of(self, ids: Tensor, images: Tensor) -> Tensor:
        """The examples of ``ids`` (n,) on the device of ``images``, and of their dtype."""
        return self.examples.read(self.order[torch.searchsorted(self.ids, ids.cpu())]).to(images)
