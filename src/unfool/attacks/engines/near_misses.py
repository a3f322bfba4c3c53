"""Images that a bf16 search nearly fooled: the whole attack runs on them again, on the model itself.

A search in bf16 ends elsewhere than one in fp32: roundings turn signs of gradients, and hide small gains of the loss.
So the two may disagree on an image that either barely fools or barely misses. Where the search missed by little, beside
what it reached, the attack is repeated with the same draws as an fp32 search; its verdict is then that of fp32.

Legend: B images of the batch, n of them not fooled.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from unfool.attacks.objective import LabelLoss
from unfool.attacks.problem import Engine, Perturbed, Problem

NEAR, NEAR_SCORES, NEAR_UNFINISHED = 0.1, 0.03, 0.25
"""A near miss lacks at most this share of the rise in margin that the search reached; the rises of searches in fp32 and
bf16 differ by 1 to 6 % (ResNet-20, linf 0.5/255). The second share is for searches by scores alone, which rarely reach
further than gradients and are the most expensive, the third for an attack that no finish followed."""


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
    return (-reached - late_gain) / (reached - clean).clamp(min=1e-12), 2 * len(rows) * objective.draws


def repeat_near_misses(engine: Engine, problem: Problem[LabelLoss], perturbed: Perturbed) -> Perturbed:
    """What an engine found with a bf16 proxy, with the near misses attacked again without it."""
    rows = (~perturbed.fooled).nonzero().squeeze(1)
    share, evaluated = lacking(problem.objective, problem.images, perturbed.images[rows], rows)
    near = rows[share <= NEAR_UNFINISHED]
    proxy = problem.proxy_objective
    exact_proxy = None if proxy is None else proxy.exact()
    if len(near):
        exact = engine.run(
            dataclasses.replace(
                problem,
                objective=problem.objective.subset(near),
                images=problem.images[near],
                ids=problem.ids[near],
                starts=None if problem.starts is None else problem.starts[near],
                proxy_objective=None if exact_proxy is None else exact_proxy.subset(near),
                exact_share=0.0,
                reached=None,
            )
        )
        won = near[exact.fooled]
        for name in ("images", "losses", "fooled"):
            getattr(perturbed, name)[won] = getattr(exact, name)[exact.fooled]
        perturbed.zero_gradient[near] &= exact.zero_gradient
        evaluated += exact.model_images
    return dataclasses.replace(perturbed, model_images=perturbed.model_images + evaluated)
