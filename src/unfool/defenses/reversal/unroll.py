# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The exact gradient through a reversal: the engine's steps written so that they can be differentiated.

Values are the engine's own, bit for bit; only the derivative is written out here. In linf and L1 a step's direction is
a sign, whose derivative is zero wherever it has one, so that projections alone carry the gradient. In L2 the
direction's derivative is a second derivative of the loss; each step is checkpointed, so that memory holds the graph of
one step at a time.

Legend: B images; origins are the images given, points the iterates.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from unfool.attacks.engines.projected_gradient import ProjectedGradient
from unfool.core.errors import SpecError
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.defenses.pretext import PretextObjective

_ROUNDING = 1e-6
"""An L1 move this near to what the box allows is at the box."""


def unrolled(
    engine: ProjectedGradient, objective: PretextObjective, streams: Streams, origins: Tensor, ids: Tensor, keep: str
) -> Tensor:
    """The engine's descent from ``origins`` (B, C, H, W), which may require a gradient; its ``last`` or ``best`` point.

    Of the best one the choice is a constant, as its derivative is zero.
    """
    rows = torch.arange(len(origins), device=origins.device)
    second = engine.threat.norm_name == "l2" and engine.threat.eps > 0 and engine.step_size > 0

    def step(points: Tensor, origins: Tensor, call: int) -> tuple[Tensor, Tensor]:
        through = second and points.requires_grad and torch.is_grad_enabled()
        with torch.enable_grad():
            moving = points if through else points.detach().requires_grad_()
            losses = objective.losses(moving, rows, call)
            (gradient,) = torch.autograd.grad(losses.sum(), moving, create_graph=through)
        moves = _unit(-gradient, engine.step_size) if through else 0.0
        exact = engine.threat.steepest(-gradient, points, origins, engine.step_size)
        return _projected(engine.threat, points + _with(exact, moves), origins), losses.detach().float()

    points = origins
    if engine.random_start:
        start = engine.threat.sample(origins.detach(), ids, streams.named("start").at(0))
        # A draw moves with its origin, unless the box has stopped it.
        points = _with(start, origins * ((start > 0) & (start < 1)))
    kept, lowest = points, torch.full((len(points),), torch.inf, device=points.device)
    for call in range(engine.steps):
        moved, losses = (
            checkpoint(step, points, origins, call, use_reentrant=False, preserve_rng_state=False)
            if second
            else step(points, origins, call)
        )
        kept, lowest = _better(kept, lowest, points, losses)
        points = moved
    if keep == "last":
        return points
    with torch.no_grad():
        losses = objective.losses(points, rows, engine.steps).float()
    return _better(kept, lowest, points, losses)[0]


def _better(kept: Tensor, lowest: Tensor, points: Tensor, losses: Tensor) -> tuple[Tensor, Tensor]:
    better = losses < lowest
    return torch.where(better.view(-1, *[1] * (points.ndim - 1)), points, kept), torch.where(better, losses, lowest)


def _with(values: Tensor, carrier: Tensor | float) -> Tensor:
    """``values`` with the derivative of ``carrier``."""
    return values + (carrier - carrier.detach()) if isinstance(carrier, Tensor) else values


def _unit(gradient: Tensor, step: float) -> Tensor:
    """The L2 step along a gradient, differentiable; zero for a zero gradient."""
    largest = gradient.detach().flatten(1).abs().amax(1)
    scaled = gradient / torch.where(largest > 0, largest, 1.0).view(-1, 1, 1, 1)
    length = torch.linalg.vector_norm(scaled.flatten(1), dim=1).clamp(min=1.0)
    return scaled * (step / length).view(-1, 1, 1, 1)


def _projected(threat: ThreatModel, moved: Tensor, origins: Tensor) -> Tensor:
    """The threat model's projection, with its derivative by both."""
    exact = threat.project(moved.detach(), origins.detach())
    if threat.eps == 0:
        return _with(exact, origins)
    carriers = {"linf": _linf, "l2": _l2, "l1": _l1}
    if threat.norm_name not in carriers:
        raise SpecError(f"a reversal within {threat} has no derivative; give it a norm among {', '.join(carriers)}")
    carrier = carriers[threat.norm_name](moved, origins, threat.eps, exact)
    return _with(exact, carrier.to(exact.dtype))


def _linf(moved: Tensor, origins: Tensor, eps: float, exact: Tensor) -> Tensor:
    return moved.clamp((origins - eps).clamp(min=0.0), (origins + eps).clamp(max=1.0))


def _l2(moved: Tensor, origins: Tensor, eps: float, exact: Tensor) -> Tensor:
    delta = moved.double() - origins.double()
    length = torch.linalg.vector_norm(delta.flatten(1), dim=1).clamp(min=eps).view(-1, 1, 1, 1)
    return (origins.double() + delta * (eps / length)).clamp(0.0, 1.0)


def _l1(moved: Tensor, origins: Tensor, eps: float, exact: Tensor) -> Tensor:
    """clip(|delta| - λ, 0, room), λ such that the moves sum to eps; which values are clipped is read off ``exact``."""
    delta = (moved - origins).flatten(1).double()
    wide = origins.flatten(1).double()
    room = torch.where(delta > 0, 1.0 - wide, wide)
    size = delta.abs()
    outside = (torch.minimum(size, room).sum(1, keepdim=True) > eps).detach()
    length = (exact - origins).detach().flatten(1).abs()
    stopped = (length >= room - _ROUNDING).detach()
    free = (length > 0) & ~stopped
    spent = torch.where(free, size, torch.where(stopped, room, 0.0)).sum(1, keepdim=True) - eps
    shrunk = torch.where(free, size - spent / free.sum(1, keepdim=True).clamp(min=1), torch.where(stopped, room, 0.0))
    inside = (wide + delta).clamp(0.0, 1.0)
    return torch.where(outside, wide + shrunk * delta.sign(), inside).view_as(exact)
