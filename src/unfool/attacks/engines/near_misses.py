"""Images that a bf16 search nearly fooled: the whole attack runs on them again, on the model itself.

A search in bf16 ends elsewhere than one in fp32: roundings turn signs of gradients, and hide small gains of the loss.
So the two may disagree on an image that either barely fools or barely misses. Where the search missed by little, beside
what it reached, the attack is repeated with the same draws as an fp32 search; its verdict is then that of fp32. FAB
and targeted APGD repeat single trials, so that an image which lacks little towards one class is not attacked towards
all of them again.

Legend: B images of the batch, n of them not fooled.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from unfool.attacks.objective import LabelLoss
from unfool.attacks.problem import Engine, Perturbed, Problem, of_rows

NEAR, NEAR_SCORES, NEAR_UNFINISHED = 0.1, 0.3, 0.25
"""A near miss lacks at most this share of the rise in margin, or of a targeted loss, that the search reached. The first
is for searches along gradients, whose rises in bf16 mostly end within 6 % of those in fp32. The second is for searches
by scores, beside what they reached themselves: bf16 hides small gains, and there Square's rises end up to 18 % lower
(`benchmarks/bf16.py`). The third is for an attack of one part along gradients, whose last steps alone are the
model's."""


def lacking(
    objective: LabelLoss, images: Tensor, points: Tensor, rows: Tensor, late_gain: Tensor | float = 0.0
) -> tuple[Tensor, int]:
    """The share of its rise in margin that each of the images ``rows`` (n,) lacks, and the images evaluated for it.

    ``points`` (n, C, H, W) are where the search ended. ``late_gain`` (n,) is what steps of the model itself added at
    the end: where they added much, the search had been misled, and what they added is not counted as lacking.
    """
    margin = objective.with_loss("margin")
    with torch.no_grad():
        clean, reached = margin(images[rows], rows).losses, margin(points, rows).losses
    return lacking_share(reached, clean, late_gain), 2 * len(rows) * objective.draws


def lacking_share(reached: Tensor, clean: Tensor, late_gain: Tensor | float = 0.0) -> Tensor:
    """The share of its rise from the ``clean`` margin (n,) that a search lacks where it ``reached`` a margin (n,)."""
    return (-reached - late_gain) / (reached - clean).clamp(min=1e-12)


def repeat_near_misses(engine: Engine, problem: Problem[LabelLoss], perturbed: Perturbed, most: float) -> Perturbed:
    """What an engine found with a bf16 proxy, with those that lack ``most`` at most attacked again without it."""
    rows = (~perturbed.fooled).nonzero().squeeze(1)
    share, evaluated = lacking(problem.objective, problem.images, perturbed.images[rows], rows)
    near = rows[share <= most]
    if len(near):
        proxy = problem.proxy_objective
        closer = dataclasses.replace(problem, proxy_objective=None if proxy is None else proxy.exact())
        exact = engine.run(dataclasses.replace(of_rows(closer, near), exact_share=0.0, reached=None))
        won = near[exact.fooled]
        for name in ("images", "losses", "fooled"):
            getattr(perturbed, name)[won] = getattr(exact, name)[exact.fooled]
        perturbed.zero_gradient[near] &= exact.zero_gradient
        evaluated += exact.model_images
    return dataclasses.replace(perturbed, model_images=perturbed.model_images + evaluated)
