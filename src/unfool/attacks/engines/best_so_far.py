"""What an attack's run keeps of each image of its batch: the best point, its loss, and whether the model is fooled.

Legend: B images of the batch, n of them still attacked at a step.
"""

from __future__ import annotations

import math
from typing import NoReturn

import torch
from torch import Tensor

from unfool.attacks.objective import Objective, ObjectiveValue
from unfool.attacks.problem import Goal, Perturbed
from unfool.core.errors import NonFiniteError
from unfool.core.user_code import run_user_code


def gradient_of(total: Tensor, leaves: Tensor, *, retain_graph: bool = False) -> Tensor | None:
    """The gradient of a sum; SpecError with the model's own line where its way back fails."""
    try:
        return torch.autograd.grad(total, leaves, retain_graph=retain_graph, allow_unused=True)[0]
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # Whatever a backward pass of the user's makes of it.
        fault = error
    return run_user_code("the model, on the way back,", lambda: _raise(fault))


def _raise(error: Exception) -> NoReturn:
    raise error


class BestSoFar:
    """Best points, losses and successes of ``images`` (B, C, H, W); ``gradients`` False for a search without them."""

    def __init__(self, images: Tensor, goal: Goal, *, uphill: bool = True, gradients: bool = True):
        count, device = len(images), images.device
        self.goal = goal
        self.sign = 1 if uphill else -1
        self.images = images.clone()
        self.losses = torch.full((count,), -math.inf, device=device)
        self.best_losses = self.losses.clone()
        self.fooled = torch.zeros(count, dtype=torch.bool, device=device)
        self.zero_gradient = torch.full((count,), gradients, device=device)
        # A proxy may claim an image before its gradient was ever taken.
        self.has_gradient = torch.zeros_like(self.fooled)
        self.model_images: int = 0

    def remaining_rows(self) -> Tensor:
        """Rows of the images that are still attacked."""
        if self.goal == "success":
            return (~self.fooled).nonzero().squeeze(1)
        return torch.arange(len(self.images), device=self.images.device)

    def stays(self, rows: Tensor) -> Tensor:
        """Which of the rows (n,) are not fooled yet."""
        return ~self.fooled[rows]

    def evaluate(self, objective: Objective, points: Tensor, rows: Tensor) -> ObjectiveValue:
        """The objective at points (n, C, H, W), counted; NonFiniteError for a loss that is NaN or infinite."""
        value = objective(points, rows)
        self.model_images += len(points) * getattr(objective, "draws", 1) + value.more_images
        if not torch.isfinite(value.losses.detach()).all():
            raise NonFiniteError(
                "the model gave a NaN or infinite loss under attack; check its weights and its outputs"
            )
        return value

    def evaluate_with_graph(self, objective: Objective, points: Tensor, rows: Tensor) -> tuple[Tensor, ObjectiveValue]:
        """A leaf copy of the points that requires grad, and the objective there, with its graph."""
        with torch.enable_grad():
            leaves = points.detach().requires_grad_()
            return leaves, self.evaluate(objective, leaves, rows)

    def gradient(self, leaves: Tensor, value: ObjectiveValue, keep: Tensor | None, rows: Tensor) -> Tensor:
        """The gradient by the images ``rows``, those in the mask ``keep``; never one by a parameter."""
        losses, gradient = value.losses, None
        if losses.requires_grad:
            # A sum: to check weights given beside it, autograd imports SymPy, which takes longer than a short attack.
            with torch.enable_grad():
                total = (losses if keep is None else losses * keep).sum()
            gradient = gradient_of(total, leaves)
        if gradient is None:
            gradient = torch.zeros_like(leaves)
        if keep is not None:
            gradient = gradient[keep]
        # One look for both: a NaN or infinite value is an image's largest. Flattened, channels last would be copied.
        largest = gradient.abs().amax(tuple(range(1, gradient.ndim)))
        if not torch.isfinite(largest).all():
            raise NonFiniteError("the model gave a NaN or infinite gradient under attack; check its non-linearities")
        self.zero_gradient[rows] &= largest == 0
        self.has_gradient[rows] = True
        return gradient.detach()

    def record(self, rows: Tensor, points: Tensor, value: ObjectiveValue) -> Tensor | None:
        """Keep the better of old and new points; return the mask of images that stay, None if all do.

        ``value`` is the objective's own at the points, not a proxy's.
        """
        losses = value.losses.detach().to(self.losses.dtype) * self.sign
        fooled = torch.zeros_like(rows, dtype=torch.bool) if value.fooled is None else value.fooled
        if self.goal in ("last", "last_unchecked"):
            better = torch.ones_like(fooled)
            self.fooled[rows], self.losses[rows] = fooled, losses
        else:
            known = self.fooled[rows]
            better = (fooled & ~known) | ((fooled == known) & (losses > self.best_losses[rows]))
            self.fooled[rows] |= fooled
            self.losses[rows] = torch.maximum(self.losses[rows], losses)
        self.best_losses[rows] = torch.where(better, losses, self.best_losses[rows])
        # The last points are stored when there are no further ones.
        if self.goal != "last_unchecked":
            self.images[rows[better]] = points[better].to(self.images.dtype)
        return self.stays(rows) if self.goal == "success" and fooled.any() else None

    def result(self) -> Perturbed:
        """What the run returns."""
        return Perturbed(
            images=self.images,
            losses=self.losses * self.sign,
            fooled=self.fooled,
            zero_gradient=self.zero_gradient & self.has_gradient & ~self.fooled,
            model_images=self.model_images,
        )
