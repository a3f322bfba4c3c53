"""A defense with a pretext loss: a few steps down the total variation of the image, before the classifier."""

import torch

from unfool.core.config import configured
from unfool.defenses import DEFENSES
from unfool.defenses.base import Defense


class TotalVariation:
    """The mean difference of neighbouring pixels (n,): noise raises it. No network is needed for it."""

    images_per_loss = 0

    def __call__(self, images, ids, streams):
        down = (images[:, :, 1:] - images[:, :, :-1]).abs().mean((1, 2, 3))
        return down + (images[..., 1:] - images[..., :-1]).abs().mean((1, 2, 3))


class Calmed(Defense):
    """``steps`` signed steps of ``size`` down the total variation."""

    images_per_prediction = 1
    pretext = TotalVariation()

    def __init__(self, network, steps, size):
        super().__init__()
        self.network, self.steps, self.size = network, steps, size

    @property
    def classifier(self):
        return self.network

    def purified_images(self, images, ids=None, streams=None, differentiable=False):
        for _ in range(self.steps):
            with torch.enable_grad():
                leaves = images.detach().requires_grad_()
                (gradient,) = torch.autograd.grad(self.pretext(leaves, ids, streams).sum(), leaves)
            images = (images - self.size * gradient.sign()).clamp(0, 1)
        return images


@configured
class Settings:
    """How far and how often the image is moved."""

    steps: int = 2
    size: float = 0.01


@DEFENSES.add("calmed")
def calmed(request):
    """The defense before the request's network."""
    settings = request.settings(Settings)
    return Calmed(request.network, settings.steps, settings.size)
