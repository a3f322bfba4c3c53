"""A loss of contrast: the squared distance of two views, without negatives."""

import torch.nn.functional as F

from unfool.tasks.contrast_losses import contrast_loss


@contrast_loss("squared-distance", uses_negatives=False)
def squared_distance(z_ND, count, temperature, negatives=None, queue=None):
    """The squared distance of an image's first two views, projected to length 1."""
    first, second = F.normalize(z_ND, dim=1).unflatten(0, (count, -1))[:2]
    return (first - second).square().sum(1)
