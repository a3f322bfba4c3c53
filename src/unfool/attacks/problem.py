"""What an engine is given: images to perturb, the objective to climb, and the draws to use.

Legend: B images of the batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from unfool.attacks.best_so_far import Perturbed
from unfool.attacks.objective import LabelLoss, Objective
from unfool.core.errors import ImagesError
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel

Climbed = TypeVar("Climbed", bound=Objective, covariant=True)


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem(Generic[Climbed]):
    """One batch to perturb, and the objective to perturb it against.

    Args:
        objective: Gives one value per image; an engine maximises it (a descending engine minimises it). A model in it
            is in eval mode, and its parameters are frozen.
        images: The clean images (B, C, H, W) in [0,1].
        ids: The images' ids (B,), int64. A random draw depends on the id, never on the position in the batch.
        streams: Source of the random draws.
        starts: First points (B, C, H, W), in place of the engine's own start.
        proxy_objective: A cheaper approximation of the objective. It drives the steps; the objective confirms every
            success.
        exact_share: Share of the steps, the last ones, that use the objective itself although there is a proxy.
    """

    objective: Climbed
    images: Tensor
    ids: Tensor
    streams: Streams
    starts: Tensor | None = None
    proxy_objective: Climbed | None = None
    exact_share: float = 0.1

    @property
    def first_points(self) -> Tensor:
        """Where a run without a random start begins: ``starts``, or the clean images."""
        return self.images if self.starts is None else self.starts

    def proxy_steps(self, steps: int) -> int:
        """How many of ``steps`` the proxy drives: none without one, otherwise all but the last ``exact_share``."""
        return 0 if self.proxy_objective is None else steps - math.ceil(steps * self.exact_share)


class Engine(Protocol):
    """An optimisation loop that perturbs images within a threat model."""

    @property
    def threat(self) -> ThreatModel: ...

    def run(self, problem: Problem[LabelLoss]) -> Perturbed:
        """Perturb the problem's images; the result for an image does not depend on the others in the batch."""
        ...


def image_ids(images: Tensor, ids: Tensor | None) -> Tensor:
    """The ids (B,) of images, by default their positions; ImagesError unless there is one int64 number per image."""
    if ids is None:
        return torch.arange(len(images), device=images.device)
    if ids.shape != images.shape[:1] or ids.dtype != torch.int64:
        given = f"{ids.dtype} of shape {tuple(ids.shape)}"
        raise ImagesError(f"ids are {given}; give one int64 number per image, shape ({len(images)},)")
    return ids
