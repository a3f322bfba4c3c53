# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The nearest point of a hyperplane inside the box [0,1], in three norms: the projection that FAB takes each step.

The box-constrained projections of Croce & Hein, "Minimally distorted adversarial examples with a fast adaptive boundary
attack", ICML 2020. They sort the values of an image; here linf and l2 solve one equation by Newton's method, and l1
looks only at the steepest values, which costs a tenth of the sorting.

Legend: n values of a point. ``gap`` is what is left of |<w, x> - b|. Of each value, ``slopes`` is by how much a unit of
movement lowers the gap, ``limits`` how far the value can move in the box, and ``gains`` their product: by how much it
lowers the gap when it moves as far as it can.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unfool.core.spec import unknown

_NEWTON_STEPS = 100
"""Newton's steps, at most: about five are needed, and each makes the gap or the slope that is left smaller by half."""

_FIRST_SHARE = 64
"""The share of an image's values, one in so many, that l1 looks at first: its moves are few and long."""

_LEAST_SLOPE = 1e-30
"""A slope below which a value does not count; a slope of 0 would make a step infinite, and that times 0 is NaN."""

_DUALS = {"linf": 1.0, "l2": 2.0, "l1": float("inf")}


@torch.no_grad()
def to_hyperplane(points: Tensor, normals: Tensor, offsets: Tensor, norm_name: str) -> Tensor:
    """The shortest displacements (..., n) of points of the box (..., n) onto {x : <w, x> = b}, staying in the box.

    ``normals`` w (..., n) and ``offsets`` b (...) may lack leading dimensions of the points: several points then share
    a plane. Where the plane misses the box, the displacement leads as near to it as the box allows. Values with a
    zero normal do not move. Computed in the points' dtype, float32 or wider, to its rounding. Raises SpecError for an
    unknown norm.
    """
    if norm_name not in _DUALS:
        raise unknown("norm", norm_name, _DUALS)
    gap = ((points * normals).sum(-1) - offsets)[..., None]
    direction = normals.sign() * -gap.sign()
    # |target - point|, where each value heads for 0 or 1; masks stored as floats are what makes this fast.
    limits = torch.gt(direction, 0, out=torch.empty_like(direction)).sub_(points).abs_()
    # In units of the steepest value: the squares of a vanishing gradient would underflow.
    slopes = normals.abs()
    steepest = slopes.amax(-1, keepdim=True)
    steepest = torch.where(steepest > 0, steepest, 1.0)
    slopes /= steepest
    gap = gap.abs_() / steepest
    gains = slopes * limits
    out_of_reach = gains.sum(-1, keepdim=True) <= gap
    gap.masked_fill_(out_of_reach, 0.0)
    if norm_name == "l1":
        moves = _steepest_first(slopes, limits, gains, gap)
    else:
        moves = _together(slopes, limits, gains, gap, torch.ones_like(steepest) if norm_name == "linf" else slopes)
    if bool(out_of_reach.any()):
        moves[out_of_reach[..., 0]] = limits[out_of_reach[..., 0]]
    return moves.mul_(direction)


@torch.no_grad()
def plane_distances(gaps: Tensor, normals: Tensor, norm_name: str) -> Tensor:
    """The distances (...) of points from planes, box or no box, by the gaps <w, x> - b (...) and normals (..., n)."""
    return gaps.abs() / (torch.linalg.vector_norm(normals, ord=_DUALS[norm_name], dim=-1) + 1e-12)


def _together(slopes: Tensor, limits: Tensor, gains: Tensor, gap: Tensor, speeds: Tensor) -> Tensor:
    """All values move together: min(λ · speeds, limits), with each row's λ such that the gap is closed.

    The gain Σ slopes · min(λ · speeds, limits) rises with λ, is linear between breakpoints and concave, so that
    Newton's steps from the left never overshoot: the first that gets to the right piece is the last.
    """
    rates = slopes * speeds
    close = gap * (16 * torch.finfo(limits.dtype).eps)
    step = gap / rates.sum(-1, keepdim=True).clamp_(min=_LEAST_SLOPE)
    gained, still_moving = torch.empty_like(gains), torch.empty_like(gains)
    for _ in range(_NEWTON_STEPS):
        torch.minimum(torch.mul(rates, step, out=gained), gains, out=gained)
        missing = gap - gained.sum(-1, keepdim=True)
        if bool((missing <= close).all()):
            break
        slope = torch.lt(gained, gains, out=still_moving).mul_(rates).sum(-1, keepdim=True)
        step += torch.where(missing > close, missing / slope.clamp_(min=_LEAST_SLOPE), 0.0)
    return torch.minimum(step * speeds, limits)


def _steepest_first(slopes: Tensor, limits: Tensor, gains: Tensor, gap: Tensor, share: int = _FIRST_SHARE) -> Tensor:
    """The steepest value moves as far as it can, then the next, until the gap is closed.

    Rows whose steepest values do not suffice are done again with eight times as many.
    """
    count = -(-limits.shape[-1] // share)
    top_slopes, places = slopes.topk(count, dim=-1)
    places = places.expand(*limits.shape[:-1], count)
    top_gains = gains.gather(-1, places)
    gained = top_gains.cumsum(-1)
    needed = (gap - (gained - top_gains)).clamp_(min=0.0) / top_slopes.clamp(min=_LEAST_SLOPE)
    moves = torch.zeros_like(limits).scatter_(-1, places, torch.minimum(needed, limits.gather(-1, places)))
    short = gained[..., -1] < gap[..., 0]
    if share > 1 and bool(short.any()):
        rest = slopes.expand_as(limits)[short], limits[short], gains[short], gap[short]
        moves[short] = _steepest_first(*rest, share=share // 8)
    return moves
