"""Trials: runs of an engine for the same images, towards other classes or from other starts, several at once.

Many small batches cost more than few large ones: where few images are left, their trials run as one batch.

Legend: B images of the batch, n of them not fooled yet; r trials of each run at once, P = r·n rows in all, trial by
trial.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from unfool.attacks.engines.best_so_far import BestSoFar
from unfool.attacks.engines.near_misses import lacking_share
from unfool.attacks.objective import LabelLoss, ObjectiveValue
from unfool.attacks.problem import Goal, Problem, of_rows

VALUES_AT_ONCE = 48 * 3 * 32 * 32
"""Pixel values of the trials that run at once, of one trial for all images at least: more would save little time, and
take more memory than the first pass over a batch of 64 small images."""


def trials_at_once(best_so_far: BestSoFar, count: int) -> Iterator[tuple[Tensor, list[int]]]:
    """The rows (n,) of the images that are still attacked, and those of their ``count`` trials that run at once.

    The first trial runs alone: it fools most images of most networks, whose other trials are then not needed.
    """
    waiting, at_once = list(range(count)), 1
    while waiting and len(rows := best_so_far.remaining_rows()):
        group, waiting = waiting[:at_once], waiting[at_once:]
        yield rows, group
        most = max(1, VALUES_AT_ONCE // max(1, best_so_far.images[best_so_far.remaining_rows()].numel()))
        groups = -(-len(waiting) // most)
        at_once = -(-len(waiting) // max(1, groups))


class BestOfTrials(BestSoFar):
    """The best points of P trials; ``images`` are those of the rows, repeated for each of ``count`` trials.

    A trial is over when it, or an earlier one of its image, has succeeded, so that trials that run at once give the
    same result as in turn.
    """

    def __init__(self, images: Tensor, count: int, goal: Goal, *, gradients: bool = True):
        super().__init__(images, goal, gradients=gradients)
        self.count = count

    def stays(self, rows: Tensor) -> Tensor:
        """Which of the trials go on, (P,)."""
        over = self.fooled.view(self.count, -1).cummax(0).values if len(self.fooled) else self.fooled
        return ~over.flatten()[rows]

    def near_misses(self, clean: Tensor, near: float) -> Tensor:
        """The trials (k,) that lack at most the share ``near`` of their rise, but those after one that succeeded.

        ``clean`` (P,) is each trial's loss on the clean image; a loss above 0 is a success.
        """
        goes_on = self.stays(torch.arange(len(self.fooled), device=self.fooled.device))
        return (goes_on & (lacking_share(self.best_losses, clean) <= near)).nonzero().squeeze(1)

    def take(self, trials: Tensor, again: BestOfTrials) -> None:
        """Record what the ``trials`` (k,) reached when they ran ``again``, one by one."""
        value = ObjectiveValue(losses=again.best_losses, fooled=again.fooled)
        self.record(trials, again.images, value)
        self.losses[trials] = torch.maximum(self.losses[trials], again.losses)
        self.zero_gradient[trials] &= again.zero_gradient
        self.has_gradient[trials] |= again.has_gradient
        self.model_images += again.model_images

    def merge_into(self, best_so_far: BestSoFar, rows: Tensor) -> None:
        """Record what the trials reached for the images ``rows`` (n,), as if they had run in turn."""
        fooled, losses = self.fooled.view(self.count, -1), self.best_losses.view(self.count, -1)
        highest = torch.where(fooled.any(0) & ~fooled, -torch.inf, losses).argmax(0)
        numbers = torch.arange(self.count, device=rows.device)[:, None]
        if self.goal == "success":
            earliest = (fooled.int() * (self.count - numbers)).argmax(0)
            highest = torch.where(fooled.any(0), earliest, highest)
            needed = ~fooled.any(0) | (numbers <= earliest)
        else:
            needed = torch.ones_like(fooled)
        chosen = highest * len(rows) + torch.arange(len(rows), device=rows.device)
        value = ObjectiveValue(losses=self.best_losses[chosen], fooled=self.fooled[chosen])
        best_so_far.record(rows, self.images[chosen], value)
        seen = torch.where(needed, self.losses.view(self.count, -1), -torch.inf).amax(0)
        best_so_far.losses[rows] = torch.maximum(best_so_far.losses[rows], seen)
        best_so_far.zero_gradient[rows] &= self.zero_gradient.view(self.count, -1).all(0)
        best_so_far.has_gradient[rows] |= self.has_gradient.view(self.count, -1).any(0)
        best_so_far.model_images += self.model_images


def of_trials(problem: Problem[LabelLoss], rows: Tensor, targets: Tensor | None) -> Problem[LabelLoss]:
    """The problem of trials of the images ``rows`` (P,), towards ``targets`` (P,) if there are any."""

    def aimed(objective: LabelLoss) -> LabelLoss:
        return objective if targets is None else objective.with_loss(objective.loss, targets)

    own = of_rows(dataclasses.replace(problem, starts=None, reached=None), rows)
    proxy = own.proxy_objective
    return dataclasses.replace(
        own, objective=aimed(own.objective), proxy_objective=None if proxy is None else aimed(proxy)
    )
