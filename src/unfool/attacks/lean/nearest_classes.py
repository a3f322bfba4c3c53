# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
"""Which classes to steer an image towards: those whose linearised decision boundary is nearest.

Melamed et al., "MALT powers up adversarial attacks", NeurIPS 2024, algorithm 1: of the likeliest classes the one with
the least (z_y - z_k) / |∇(z_y - z_k)| is often not the likeliest. The norm of the gradient is the threat model's dual.

Legend: n images, k classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from unfool.attacks.engines.best_so_far import BestSoFar, gradient_of
from unfool.attacks.engines.hyperplane import plane_distances
from unfool.attacks.objective import LOSSES, LabelLoss, ObjectiveValue
from unfool.core.threat import ThreatModel


class _LogitsKept:
    """The margin as an objective, which keeps the logits (n, K) of its last call, with their graph."""

    def __init__(self, objective: LabelLoss):
        self.objective = objective
        self.draws = objective.draws
        self.logits = torch.empty(0)

    def __call__(self, images: Tensor, rows: Tensor) -> ObjectiveValue:
        self.logits = self.objective.logits(images, rows)
        return ObjectiveValue(losses=LOSSES["margin"](self.logits, self.objective.labels[rows], None))


def nearest_classes(
    best_so_far: BestSoFar, objective: LabelLoss, images: Tensor, rows: Tensor, threat: ThreatModel, candidates: int
) -> Tensor:
    """Classes (n, k) other than the label's, the nearest boundary first; k is ``candidates``, or all there are.

    The candidates are the likeliest classes at the ``images`` (n, C, H, W); each costs a backward pass.
    """
    kept = _LogitsKept(objective)
    leaves, _ = best_so_far.evaluate_with_graph(kept, images, rows)
    logits, labels = kept.logits, objective.labels[rows][:, None]
    ranked = logits.detach().scatter(1, labels, -math.inf).argsort(dim=1, descending=True, stable=True)
    ranked = ranked[:, : min(candidates, logits.shape[1] - 1)]
    if not logits.requires_grad or ranked.shape[1] < 2:
        return ranked
    gaps = logits.gather(1, ranked) - logits.gather(1, labels)
    distances: list[Tensor] = []
    for gap in gaps.unbind(1):
        normals = gradient_of(gap.sum(), leaves, retain_graph=True)
        normals = torch.zeros_like(leaves) if normals is None else normals
        distances.append(plane_distances(gap.detach(), normals.flatten(1), threat.norm_name).to(gap.dtype))
    order = torch.stack(distances, 1).nan_to_num(math.inf).argsort(dim=1, stable=True)
    return ranked.gather(1, order)
