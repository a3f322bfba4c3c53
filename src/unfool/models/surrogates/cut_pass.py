# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""A pass that is cut at the inputs and outputs of a model's leaves, so that each piece's gradient can be looked at.

Legend: B images, P points of the pass in order.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unfool.core.streams import Streams
from unfool.models.surrogates.pinned import pinned_draws
from unfool.models.surrogates.places import IMAGES, RESULT, Place, visiting
from unfool.models.surrogates.straight_through import uncut_gradients


@dataclass(frozen=True, kw_only=True, eq=False)
class Point:
    """A tensor at a place: its ``value`` with the graph of the piece before it, and the ``leaf`` that the next sees."""

    place: Place
    value: Tensor
    leaf: Tensor


def cut_pass(model: nn.Module, images: Tensor, uncut: bool = False) -> list[Point]:
    """The points of a pass of images (B, C, H, W), from the images to the logits; ``uncut``: by `uncut_gradients`.

    Layers that draw from torch's global random states draw the same in every such pass.
    """
    points: list[Point] = []

    def visit(place: Place, tensor: Tensor) -> Tensor:
        leaf = tensor.detach().clone().requires_grad_()
        points.append(Point(place=place, value=tensor.clone(), leaf=leaf))
        # A layer may write into its input, which a leaf forbids.
        return leaf.clone()

    with torch.enable_grad(), pinned_draws(model, Streams(0)), visiting(model, visit):
        start = visit(IMAGES, images)
        with uncut_gradients(model) if uncut else nullcontext():
            logits = model(start)
        if isinstance(logits, Tensor):
            visit(RESULT, logits)
    return points


def sources_of(points: list[Point], index: int, cotangent: Tensor) -> dict[int, Tensor]:
    """The earlier points from which a point's piece begins, with the gradients of ⟨cotangent, value⟩ by them."""
    value = points[index].value
    earlier = [point.leaf for point in points[:index]]
    if not value.requires_grad or not earlier:
        return {}
    gradients = torch.autograd.grad(value, earlier, grad_outputs=cotangent, allow_unused=True, retain_graph=True)
    return {number: gradient for number, gradient in enumerate(gradients) if gradient is not None}
