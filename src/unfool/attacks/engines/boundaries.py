"""All decision boundaries around an image at once, and the nearest of them: what untargeted FAB steps onto.

Legend: n images, K classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unfool.attacks.engines.best_so_far import gradient_of
from unfool.attacks.engines.hyperplane import plane_distances
from unfool.attacks.objective import LabelLoss, ObjectiveValue


class AllDifferences:
    """The margin as an objective. After a call ``differences`` (n, K - 1) holds the logits of the other classes minus
    the label's, in the order label + 1, label + 2, ... modulo K; the margin is the highest of them."""

    differences: Tensor

    def __init__(self, objective: LabelLoss):
        self.objective = objective
        self.draws = objective.draws

    def __call__(self, images: Tensor, rows: Tensor) -> ObjectiveValue:
        vars(self).pop("differences", None)  # frees the last graph before the next is built
        logits = self.objective.logits(images, rows)
        fooled, more = self.objective.fooled_by(logits.detach(), images, rows)
        labels = self.objective.labels[rows][:, None]
        others = (labels + torch.arange(1, logits.shape[1], device=labels.device)) % logits.shape[1]
        self.differences = logits.gather(1, others) - logits.gather(1, labels)
        return ObjectiveValue(losses=self.differences.amax(1), fooled=fooled, more_images=more)


def nearest_boundary(differences: Tensor, leaves: Tensor, norm_name: str) -> tuple[Tensor, Tensor]:
    """Of each row's differences (n, K - 1) the one with the nearest linearised boundary (n,), and its gradient."""
    nearest, normals = differences.detach()[:, 0].clone(), torch.zeros_like(leaves)
    least = torch.full_like(nearest, math.inf)
    for difference in differences.unbind(1):
        gradient = gradient_of(difference.sum(), leaves, retain_graph=True)
        gradient = torch.zeros_like(leaves) if gradient is None else gradient
        distances = plane_distances(difference.detach(), gradient.flatten(1), norm_name)
        nearer = (distances < least) | distances.isnan()  # a NaN is kept, so that it raises an error
        least[nearer], nearest[nearer] = distances[nearer].to(least.dtype), difference.detach()[nearer]
        normals[nearer] = gradient[nearer]
    return nearest, normals
