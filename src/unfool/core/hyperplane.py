# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The nearest point of a hyperplane inside the box [0,1], in three norms: the projection that FAB takes each step.

The box-constrained projections of Croce & Hein, "Minimally distorted adversarial examples with a fast adaptive boundary
attack", ICML 2020. They sort the values of an image; here linf and l2 solve one equation by Newton's method, and l1
looks only at the steepest values, which costs a tenth of the sorting.

Legend: n values of a point. A move lowers the point's distance from the plane, its ``gap``; ``steep`` is what a unit
of movement of each value takes off the gap, ``room`` how far the value can go in the box, ``reach`` their product.
"""

from __future__ import annotations

import torch
from torch import Tensor

from unfool.core.spec import unknown

_TURNS = 100
"""Newton's steps, at most: about five are needed, and each makes the gap or the slope that is left smaller by half."""

_FIRST = 64
"""The share of an image's values, one in so many, that l1 looks at first: its moves are few and long."""

_LEAST = 1e-30
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
    room = torch.gt(direction, 0, out=torch.empty_like(direction)).sub_(points).abs_()
    # In units of the steepest value: the squares of a vanishing gradient would underflow.
    steep = normals.abs()
    largest = steep.amax(-1, keepdim=True)
    largest = torch.where(largest > 0, largest, 1.0)
    steep /= largest
    gap = gap.abs_() / largest
    reach = steep * room
    beyond = reach.sum(-1, keepdim=True) <= gap
    gap.masked_fill_(beyond, 0.0)
    if norm_name == "l1":
        moves = _steepest_first(steep, room, reach, gap)
    else:
        moves = _together(steep, room, reach, gap, torch.ones_like(largest) if norm_name == "linf" else steep)
    if bool(beyond.any()):
        moves[beyond[..., 0]] = room[beyond[..., 0]]
    return moves.mul_(direction)


@torch.no_grad()
def plane_distances(gaps: Tensor, normals: Tensor, norm_name: str) -> Tensor:
    """The distances (...) of points from planes, box or no box, by the gaps <w, x> - b (...) and normals (..., n)."""
    return gaps.abs() / (torch.linalg.vector_norm(normals, ord=_DUALS[norm_name], dim=-1) + 1e-12)


def _together(steep: Tensor, room: Tensor, reach: Tensor, gap: Tensor, pace: Tensor) -> Tensor:
    """min(λ · pace, room) with each row's λ such that Σ steep · min(λ · pace, room) = gap.

    The sum rises with λ, is linear between breakpoints and concave, so that Newton's steps from the left never
    overshoot: the first that finds the right piece is the last.
    """
    rate = steep * pace
    close = gap * (16 * torch.finfo(room.dtype).eps)
    step = gap / rate.sum(-1, keepdim=True).clamp_(min=_LEAST)
    gained, free = torch.empty_like(reach), torch.empty_like(reach)
    for _ in range(_TURNS):
        torch.minimum(torch.mul(rate, step, out=gained), reach, out=gained)
        missing = gap - gained.sum(-1, keepdim=True)
        if bool((missing <= close).all()):
            break
        slope = torch.lt(gained, reach, out=free).mul_(rate).sum(-1, keepdim=True)
        step += torch.where(missing > close, missing / slope.clamp_(min=_LEAST), 0.0)
    return torch.minimum(step * pace, room)


def _steepest_first(steep: Tensor, room: Tensor, reach: Tensor, gap: Tensor, share: int = _FIRST) -> Tensor:
    """The steepest value moves as far as it has room, then the next, until the gap is closed.

    Rows whose steepest values do not suffice are done again with eight times as many.
    """
    count = -(-room.shape[-1] // share)
    slopes, places = steep.topk(count, dim=-1)
    places = places.expand(*room.shape[:-1], count)
    gains = reach.gather(-1, places)
    gained = gains.cumsum(-1)
    needed = (gap - (gained - gains)).clamp_(min=0.0) / slopes.clamp(min=_LEAST)
    moves = torch.zeros_like(room).scatter_(-1, places, torch.minimum(needed, room.gather(-1, places)))
    short = gained[..., -1] < gap[..., 0]
    if share > 1 and bool(short.any()):
        rest = steep.expand_as(room)[short], room[short], reach[short], gap[short]
        moves[short] = _steepest_first(*rest, share=share // 8)
    return moves
