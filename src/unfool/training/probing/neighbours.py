# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
"""The nearest-neighbour probe of Wu et al., "Unsupervised Feature Learning via Non-Parametric Instance
Discrimination", CVPR 2018, section 3.4.

Legend: N training images, M images to classify, K neighbours, C classes, D features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 0.07
"""The paper's."""
_AT_ONCE = 2048
"""Rows on a side of a block of similarities; no prediction depends on it."""


@torch.no_grad()
def nearest_classes(train_ND: Tensor, labels: Tensor, images_MD: Tensor, neighbours: int, classes: int) -> Tensor:
    """The class (M,) that the ``neighbours`` most similar training images vote for.

    Similarity is the cosine; the vote of a neighbour weighs exp(similarity / 0.07). Where there are fewer training
    images, all vote. Departs from the paper, which takes 200 neighbours: the number is the caller's.
    """
    count = min(neighbours, len(train_ND))
    best = torch.full((len(images_MD), count), -torch.inf, device=train_ND.device)
    voters = torch.zeros_like(best, dtype=torch.int64)
    for block_ND, block_labels in zip(train_ND.split(_AT_ONCE), labels.split(_AT_ONCE), strict=True):
        block_DN = F.normalize(block_ND, dim=1).T
        for start in range(0, len(images_MD), _AT_ONCE):
            rows = slice(start, start + _AT_ONCE)
            similar = F.normalize(images_MD[rows], dim=1) @ block_DN
            candidates = torch.cat([best[rows], similar], 1)
            theirs = torch.cat([voters[rows], block_labels.expand(len(similar), -1)], 1)
            best[rows], places = candidates.topk(count, dim=1)
            voters[rows] = theirs.gather(1, places)
    # One less in every exponent changes no order, and keeps the largest vote at 1.
    votes = torch.zeros(len(best), classes, device=best.device)
    return votes.scatter_add_(1, voters, ((best - 1) / TEMPERATURE).exp()).argmax(1)
