"""What one run of an attack has seen of each image of its batch, and what it may believe.

Legend: B images of the batch, n of them in play at a step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from unfool.attacks.objective import Objective, ObjectiveValue
from unfool.core.errors import NonFiniteError

Goal = Literal["last", "best", "success", "last_unchecked"]
"""What to return: the ``last`` iterate, the ``best`` (a fooled one before any other, then the highest loss),
``success``: as best, but an image that is fooled leaves the batch at once, or ``last_unchecked``: the last iterate
without the forward pass that would check it, for training."""


@dataclass(frozen=True, kw_only=True)
class Perturbed:
    """``images`` (B, C, H, W) inside ball and box; ``losses`` (B,) the highest loss that was seen for each image
    ("last": its loss at the image given; downhill: the lowest); ``fooled`` (B,) whether any point that was confirmed
    fooled the objective ("last": whether the image given does); ``flat`` (B,) not fooled, and no gradient at any
    step; ``model_images`` how many images went through the objective."""

    images: Tensor
    losses: Tensor
    fooled: Tensor
    flat: Tensor
    model_images: int


class BestSoFar:
    """Best points, losses and successes of images (B, C, H, W); ``gradients`` False for a search that takes none."""

    def __init__(self, images: Tensor, goal: Goal, *, uphill: bool = True, gradients: bool = True):
        count, device = len(images), images.device
        self.goal = goal
        self.sign = 1 if uphill else -1
        self.best = images.clone()
        self.losses = torch.full((count,), -math.inf, device=device)
        self.best_losses = self.losses.clone()
        self.fooled = torch.zeros(count, dtype=torch.bool, device=device)
        self.flat = torch.full((count,), gradients, device=device)
        self.model_images = 0

    def standing(self) -> Tensor:
        """Rows that are still in play."""
        if self.goal == "success":
            return (~self.fooled).nonzero().squeeze(1)
        return torch.arange(len(self.best), device=self.best.device)

    def read(self, objective: Objective, points: Tensor, rows: Tensor) -> ObjectiveValue:
        """The objective at points (n, C, H, W), counted; NonFiniteError for a loss that is NaN or infinite."""
        reading = objective(points, rows)
        self.model_images += len(points) * getattr(objective, "draws", 1)
        if not torch.isfinite(reading.losses.detach()).all():
            raise NonFiniteError(
                "the model gave a NaN or infinite loss under attack; check its weights and its outputs"
            )
        return reading

    def look(self, objective: Objective, points: Tensor, rows: Tensor) -> tuple[Tensor, ObjectiveValue]:
        """Points that a gradient can be taken by, and the reading there."""
        with torch.enable_grad():
            moving = points.detach().requires_grad_()
            return moving, self.read(objective, moving, rows)

    def gradient(self, moving: Tensor, reading: ObjectiveValue, keep: Tensor | None, rows: Tensor) -> Tensor:
        """The gradient by the images ``rows``, those in the mask ``keep``; never one by a parameter."""
        losses, gradient = reading.losses, None
        if losses.requires_grad:
            weights = torch.ones_like(losses) if keep is None else keep.to(losses.dtype)
            (gradient,) = torch.autograd.grad(losses, moving, weights, allow_unused=True)
        if gradient is None:
            gradient = torch.zeros_like(moving)
        if keep is not None:
            gradient = gradient[keep]
        if not torch.isfinite(gradient).all():
            raise NonFiniteError("the model gave a NaN or infinite gradient under attack; check its non-linearities")
        self.flat[rows] &= ~gradient.flatten(1).any(1)
        return gradient.detach()

    def record(self, rows: Tensor, points: Tensor, reading: ObjectiveValue) -> Tensor | None:
        """Note points that the objective itself has judged; give the mask of images that stay, None if all do."""
        losses = reading.losses.detach().to(self.losses.dtype) * self.sign
        fooled = torch.zeros_like(rows, dtype=torch.bool) if reading.fooled is None else reading.fooled
        if self.goal in ("last", "last_unchecked"):
            better = torch.ones_like(fooled)
            self.fooled[rows], self.losses[rows] = fooled, losses
        else:
            known = self.fooled[rows]
            better = (fooled & ~known) | ((fooled == known) & (losses > self.best_losses[rows]))
            self.fooled[rows] |= fooled
            self.losses[rows] = torch.maximum(self.losses[rows], losses)
        self.best_losses[rows] = torch.where(better, losses, self.best_losses[rows])
        self.best[rows[better]] = points[better].to(self.best.dtype)
        return ~fooled if self.goal == "success" and fooled.any() else None

    def result(self) -> Perturbed:
        """What the run has come to."""
        return Perturbed(
            images=self.best,
            losses=self.losses * self.sign,
            fooled=self.fooled,
            flat=self.flat & ~self.fooled,
            model_images=self.model_images,
        )
