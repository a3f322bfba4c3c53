"""The random moves of the Square attack in each norm: where it starts, and how a window of pixels is redrawn.

Legend: B images of the batch, n of them in play, C channels, H×W pixels. Every image has windows of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from unfool.attacks.engines.square_windows import corners, pyramids, shared, windows
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel

_TINY = 1e-12
"""Keeps a window that holds nothing from being divided by its length of 0."""

_WORTH = 1e-4
"""Share of eps that a window has to hold: in l1 most values are 0, and a query for an empty window is wasted."""

_MARGIN = 1e-5
"""Share of eps that proposals keep away from the edge of an l2 or l1 ball."""

_TURNS = 12
"""Newton's steps that bring an L1 proposal onto its ball; what is left after them is scaled away."""

_CLOSE = 1e-5
"""Share of eps at which they end early."""


class Moves(ABC):
    """Starts and proposals around origins (B, C, H, W), at least float32; in the box, in the ball but for rounding.

    ``draws`` is how many uniforms a proposal for one image takes. Windows have sides of ``least`` pixels or more, and
    odd ones if ``odd``.
    """

    least = 1
    odd = False

    def __init__(self, origins: Tensor, threat: ThreatModel):
        self.origins = origins
        # A little inside the ball, so that rounding carries no proposal out of it.
        self.eps = threat.eps * (1.0 - _MARGIN)
        self.draws = 2 + origins.shape[1]

    @abstractmethod
    def start(self, rows: Tensor, ids: Tensor, streams: Streams) -> Tensor:
        """First points (n, C, H, W) of the images ``rows`` (n,), whose names are ``ids`` (n,)."""

    @abstractmethod
    def propose(self, points: Tensor, rows: Tensor, side: int, draws: Tensor) -> tuple[Tensor, Tensor]:
        """The points (n, C, H, W) with a window redrawn, perhaps in place, and their rows.

        ``draws`` (n, ``draws``) are uniform in [0, 1). A point that the draw leaves as it was is left out.
        """

    @abstractmethod
    def settle(self, rows: Tensor, points: Tensor) -> None:
        """Take note of points (n, C, H, W) that the next proposals start from."""


class LinfMoves(Moves):
    """A window's values all go to the edge of the ball, those of a channel to the same side (paper's Algorithm 2)."""

    def __init__(self, origins: Tensor, threat: ThreatModel):
        super().__init__(origins, threat)
        # The two values that a pixel can take, clipped to the box once and for all.
        self.edges = torch.stack([origins - threat.eps, origins + threat.eps]).clamp_(0.0, 1.0)

    def start(self, rows: Tensor, ids: Tensor, streams: Streams) -> Tensor:
        """Vertical stripes: a sign for each column of each channel."""
        _, channels, _, width = self.origins.shape
        up = streams.integers(ids, 2, (channels, 1, width)).bool()
        return torch.where(up, self.edges[1, rows], self.edges[0, rows])

    def propose(self, points: Tensor, rows: Tensor, side: int, draws: Tensor) -> tuple[Tensor, Tensor]:
        """One sign for each channel of the window; if all of them were drawn before, nothing has changed."""
        top, left = corners(points, side, draws)
        here = (torch.arange(len(rows), device=rows.device), slice(None), top, left)
        up = (draws[:, 2:] < 0.5).long()
        channels = torch.arange(points.shape[1], device=rows.device)
        drawn = windows(self.edges, side)[up, rows[:, None], channels, top[:, None], left[:, None]]
        view = windows(points, side)
        changed = (view[here] != drawn).flatten(1).any(1)
        view[here] = drawn
        return (points, rows) if bool(changed.all()) else (points[changed], rows[changed])

    def settle(self, rows: Tensor, points: Tensor) -> None:
        """Nothing to note: the edges are the same for every point."""


class TransferMoves(Moves):
    """What a second window holds, and what the ball has left, moves into a first one (paper's Algorithm 3).

    There it takes the shape of a positive and a negative pyramid side by side, added to what the first window held.
    The mass of a displacement is what the norm adds up: squares (l2) or absolute values (l1).
    """

    least = 3
    odd = True
    order: int

    def __init__(self, origins: Tensor, threat: ThreatModel):
        super().__init__(origins, threat)
        self.draws = 5 + origins.shape[1]
        self.spent = origins.new_zeros(len(origins))

    @abstractmethod
    def allowed(self, held: Tensor, spent: Tensor) -> Tensor:
        """Norms (n, C) of the first window, from the masses (n, C) of both windows and (n, 1) of the whole image."""

    @abstractmethod
    def enter(self, points: Tensor, origins: Tensor) -> Tensor:
        """The points (n, C, H, W) in ball ∩ box."""

    def spread(self, moves: Tensor) -> Tensor:
        """The first displacements (n, C, H, W), of mass 1 in every tile and channel, at the size they are wanted."""
        return moves

    def start(self, rows: Tensor, ids: Tensor, streams: Streams) -> Tensor:
        """Tiles of pyramids, five along the shorter side: a turn for each tile, a sign for each channel of it."""
        origins = self.origins[rows]
        _, channels, height, width = origins.shape
        side = max(1, min(height, width) // 5)
        down, across = height // side, width // side
        turned = streams.named("turn").integers(ids, 2, (1, down, across))
        signs = streams.named("sign").integers(ids, 2, (channels, down, across)).to(origins.dtype) * 2 - 1
        tiles = pyramids(side, self.order).to(origins)[turned] * signs[..., None, None]
        moves = torch.zeros_like(origins)
        high, wide = down * side, across * side
        top, left = (height - high) // 2, (width - wide) // 2
        filled = tiles.transpose(3, 4).reshape(len(rows), channels, high, wide)
        moves[:, :, top : top + high, left : left + wide] = filled
        return self.enter(self.spread(moves) + origins, origins)

    def propose(self, points: Tensor, rows: Tensor, side: int, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Two windows, a turn, and a sign for each channel."""
        each = torch.arange(len(rows), device=rows.device)
        top, left = corners(points, side, draws)
        second_top, second_left = corners(points, side, draws[:, 2:])
        view, origins = windows(points, side), windows(self.origins, side)
        bare, emptied = origins[rows, :, top, left], origins[rows, :, second_top, second_left]
        first = view[each, :, top, left] - bare
        second = view[each, :, second_top, second_left] - emptied
        mass = self._mass(first)
        both = mass + self._mass(second.masked_fill_(shared(second_top - top, second_left - left, side), 0.0))
        signs = torch.where(draws[:, 5:] < 0.5, 1.0, -1.0).to(points.dtype)
        drawn = pyramids(side, self.order).to(points)[(draws[:, 4] < 0.5).long()][:, None] * signs[:, :, None, None]
        drawn += first / (self._norm(mass) + _TINY)[:, :, None, None]
        size = self.allowed(both, self.spent[rows, None])
        scale = size / (self._norm(self._mass(drawn)) + _TINY)
        view[each, :, second_top, second_left] = emptied
        view[each, :, top, left] = drawn * scale[:, :, None, None] + bare
        changed = (size > _WORTH * self.eps).any(1)
        if not bool(changed.all()):
            points, rows = points[changed], rows[changed]
        return self.enter(points, self.origins.index_select(0, rows)), rows

    def settle(self, rows: Tensor, points: Tensor) -> None:
        """Note the masses of whole images."""
        self.spent[rows] = self._mass(points - self.origins[rows]).sum(1)

    def _mass(self, moves: Tensor) -> Tensor:
        """Masses (n, C) of (n, C, h, w)."""
        return (moves.abs() if self.order == 1 else moves.square()).sum((2, 3))

    def _norm(self, mass: Tensor) -> Tensor:
        return mass if self.order == 1 else mass.sqrt()


class L2Moves(TransferMoves):
    """Squares add up, so a window of the allowed norm brings the image to its ball's edge by itself."""

    order = 2

    def spread(self, moves: Tensor) -> Tensor:
        """Scaled to the edge of the ball."""
        return moves * (self.eps / self._mass(moves).sum(1).sqrt())[:, None, None, None]

    def allowed(self, held: Tensor, spent: Tensor) -> Tensor:
        """What both windows held, and an equal share for each channel of what the image has left."""
        # Below 0 only by rounding, and then it takes back what the image has too much.
        left = (self.eps**2 - spent) / held.shape[1]
        return (held + left).clamp_(min=0.0).sqrt_()

    def enter(self, points: Tensor, origins: Tensor) -> Tensor:
        """Clipped to the box."""
        return points.clamp_(0.0, 1.0)


class L1Moves(TransferMoves):
    """The window gets C times its share, and the projection then takes as much from all of the image."""

    order = 1

    def allowed(self, held: Tensor, spent: Tensor) -> Tensor:
        """C times what both windows held, and what the image has left."""
        return held * held.shape[1] + (self.eps - spent).clamp_(min=0.0)

    def enter(self, points: Tensor, origins: Tensor) -> Tensor:
        """Projected onto ball ∩ box, as near as float32 allows."""
        moves = (points - origins).flatten(1)
        # 1 - origin above it, origin below; a comparison and a choice would take ten times as long.
        room = 0.5 - moves.sign() * (origins.flatten(1) - 0.5)
        shrunk = _shrink(moves.abs(), room, self.eps).copysign_(moves)
        return (shrunk.view_as(points) + origins).clamp_(0.0, 1.0)


def _shrink(size: Tensor, room: Tensor, eps: float) -> Tensor:
    """clip(size - λ, 0, room), with a λ for each row (n, C·H·W) that makes it sum to ``eps``, or to less.

    Newton's steps on λ, in the precision given and not always to the end: a point that is only proposed has to be in
    the ball, not the nearest there. A row that has converged stays as it is, whatever the others need.
    """
    cut = low = torch.zeros_like(size[:, :1])
    high = size.amax(1, keepdim=True)
    for _ in range(_TURNS):
        kept = torch.minimum((size - cut).relu_(), room)
        excess = kept.sum(1, keepdim=True) - eps
        # How many are neither at 0 nor at their room; two comparisons would cost as much again as all the rest.
        free = (room - kept).mul_(kept).sign_().sum(1, keepdim=True)
        done = (excess.abs() <= _CLOSE * eps) | ((excess < 0) & (cut == 0))
        if bool(done.all()):
            break
        low, high = torch.where(excess > 0, cut, low), torch.where(excess > 0, high, cut)
        newton = cut + excess / free
        cut = torch.where(done, cut, torch.where((newton > low) & (newton < high), newton, (low + high) / 2))
    shrunk = torch.minimum((size - cut).relu_(), room)
    return shrunk.mul_((eps / shrunk.sum(1, keepdim=True)).clamp_(max=1.0))
