"""The random proposals of the Square attack in each norm: first points, and points with one window redrawn.

Legend: B images of the batch, n of them still attacked, C channels, H×W pixels. Every image has windows of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from unfool.attacks.engines.square_windows import corners, overlap, pyramids, windows
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel

_TINY = 1e-12
"""Keeps the division by the norm of a window finite where the window is unchanged."""

_LEAST_NORM = 1e-4
"""Least norm of a redrawn window, as a share of eps: in l1 most windows are unchanged, and would waste a query."""

_MARGIN = 1e-5
"""Share of eps that proposals keep away from the edge of an l2 or l1 ball."""

_NEWTON_STEPS = 12
"""Newton's steps that bring an l1 proposal onto its ball; scaling removes what is left after them."""

_TOLERANCE = 1e-5
"""Share of eps at which they end early."""


class Proposals(ABC):
    """First points and proposals around origins (B, C, H, W), at least float32.

    They lie in the box, and in the ball up to rounding. A proposal for one image takes ``draws`` uniform numbers. A
    window's side is at least ``min_side`` pixels, and odd if ``odd_side``.
    """

    min_side = 1
    odd_side = False

    def __init__(self, origins: Tensor, threat: ThreatModel):
        self.origins = origins
        # A little inside the ball, so that rounding carries no proposal out of it.
        self.eps = threat.eps * (1.0 - _MARGIN)
        self.draws = 2 + origins.shape[1]

    @abstractmethod
    def start(self, rows: Tensor, ids: Tensor, streams: Streams) -> Tensor:
        """First points (n, C, H, W) of the images ``rows`` (n,) with ids (n,)."""

    @abstractmethod
    def propose(self, points: Tensor, rows: Tensor, side: int, draws: Tensor) -> tuple[Tensor, Tensor]:
        """The points (m, C, H, W) with a window redrawn, perhaps in place, and their places (m,) among those given.

        ``points`` (n, C, H, W) are of the images ``rows`` (n,), several perhaps of one; ``draws`` (n, ``draws``) are
        uniform in [0, 1). Points that the redrawn window leaves unchanged are left out.
        """

    @abstractmethod
    def accept(self, rows: Tensor, points: Tensor) -> None:
        """Later proposals start from these points (n, C, H, W)."""


@dataclass(frozen=True)
class Redrawn:
    """Windows (n, C, s, s) and their corners (n,), and the ``places`` (m,) of those that differ from what was there,
    None if all do."""

    values: Tensor
    top: Tensor
    left: Tensor
    places: Tensor | None

    def changed(self) -> Redrawn:
        """Those that differ."""
        where = self.places
        if where is None:
            return self
        return Redrawn(self.values[where], self.top[where], self.left[where], where)


class LinfProposals(Proposals):
    """All values of a window go to the edge of the ball, those of a channel to the same side (algorithm 2)."""

    def __init__(self, origins: Tensor, threat: ThreatModel):
        super().__init__(origins, threat)
        # The two values that a pixel can take, clipped to the box.
        self.edges = torch.stack([origins - threat.eps, origins + threat.eps]).clamp_(0.0, 1.0)

    def start(self, rows: Tensor, ids: Tensor, streams: Streams) -> Tensor:
        """Vertical stripes: a sign for each column of each channel."""
        _, channels, _, width = self.origins.shape
        up = streams.integers(ids, 2, (channels, 1, width)).bool()
        return torch.where(up, self.edges[1, rows], self.edges[0, rows])

    def propose(self, points: Tensor, rows: Tensor, side: int, draws: Tensor) -> tuple[Tensor, Tensor]:
        """One sign for each channel of the window; a window that has these signs already is unchanged."""
        each = torch.arange(len(rows), device=rows.device)
        redrawn = self.redraw(points, each, rows, side, draws)
        windows(points, side)[each, :, redrawn.top, redrawn.left] = redrawn.values
        return (points, each) if redrawn.places is None else (points[redrawn.places], redrawn.places)

    def redraw(self, points: Tensor, sources: Tensor, rows: Tensor, side: int, draws: Tensor) -> Redrawn:
        """The windows of ``points[sources]``, of the images ``rows`` (n,)."""
        top, left = corners(points, side, draws)
        up = (draws[:, 2:] < 0.5).long()
        channels = torch.arange(points.shape[1], device=rows.device)
        values = windows(self.edges, side)[up, rows[:, None], channels, top[:, None], left[:, None]]
        changed = (windows(points, side)[sources, :, top, left] != values).flatten(1).any(1)
        places = None if bool(changed.all()) else changed.nonzero().squeeze(1)
        return Redrawn(values, top, left, places)

    def accept(self, rows: Tensor, points: Tensor) -> None:
        """Nothing to do: the edges are the same for every point."""


class TransferProposals(Proposals):
    """The displacement of a second window, and what the ball has left, goes into a first window (algorithm 3).

    The first window gets a positive and a negative pyramid side by side, added to its displacement. The mass of a
    displacement is the sum that its norm is made of: of squares (l2) or of absolute values (l1).
    """

    min_side = 3
    odd_side = True
    order: int

    def __init__(self, origins: Tensor, threat: ThreatModel):
        super().__init__(origins, threat)
        self.draws = 5 + origins.shape[1]
        self.mass = origins.new_zeros(len(origins))

    @abstractmethod
    def window_norm(self, window_mass: Tensor, image_mass: Tensor) -> Tensor:
        """Norms (n, C) of the first window, from the masses (n, C) of both windows and (n, 1) of the whole image."""

    @abstractmethod
    def project(self, points: Tensor, origins: Tensor) -> Tensor:
        """The points (n, C, H, W) in ball ∩ box."""

    def scale(self, displacements: Tensor) -> Tensor:
        """The first displacements (n, C, H, W), of mass 1 in every tile and channel, scaled."""
        return displacements

    def start(self, rows: Tensor, ids: Tensor, streams: Streams) -> Tensor:
        """Tiles of pyramids, five along the shorter side: each upright or transposed, with a sign for each channel."""
        origins = self.origins[rows]
        _, channels, height, width = origins.shape
        side = max(1, min(height, width) // 5)
        down, across = height // side, width // side
        transposed = streams.named("turn").integers(ids, 2, (1, down, across))
        signs = streams.named("sign").integers(ids, 2, (channels, down, across)).to(origins.dtype) * 2 - 1
        tiles = pyramids(side, self.order).to(origins)[transposed] * signs[..., None, None]
        displacements = torch.zeros_like(origins)
        high, wide = down * side, across * side
        top, left = (height - high) // 2, (width - wide) // 2
        filled = tiles.transpose(3, 4).reshape(len(rows), channels, high, wide)
        displacements[:, :, top : top + high, left : left + wide] = filled
        return self.project(self.scale(displacements) + origins, origins)

    def propose(self, points: Tensor, rows: Tensor, side: int, draws: Tensor) -> tuple[Tensor, Tensor]:
        """Two windows; in the first a shape, upright or transposed, with a sign for each channel."""
        each = torch.arange(len(rows), device=rows.device)
        top, left = corners(points, side, draws)
        second_top, second_left = corners(points, side, draws[:, 2:])
        view, origins = windows(points, side), windows(self.origins, side)
        first_clean, second_clean = origins[rows, :, top, left], origins[rows, :, second_top, second_left]
        first = view[each, :, top, left] - first_clean
        second = view[each, :, second_top, second_left] - second_clean
        mass = self._mass(first)
        both = mass + self._mass(second.masked_fill_(overlap(second_top - top, second_left - left, side), 0.0))
        signs = torch.where(draws[:, 5:] < 0.5, 1.0, -1.0).to(points.dtype)
        drawn = pyramids(side, self.order).to(points)[(draws[:, 4] < 0.5).long()][:, None] * signs[:, :, None, None]
        drawn += first / (self._norm(mass) + _TINY)[:, :, None, None]
        size = self.window_norm(both, self.mass[rows, None])
        scale = size / (self._norm(self._mass(drawn)) + _TINY)
        view[each, :, second_top, second_left] = second_clean
        view[each, :, top, left] = drawn * scale[:, :, None, None] + first_clean
        changed = (size > _LEAST_NORM * self.eps).any(1)
        if not bool(changed.all()):
            points, each = points[changed], each[changed]
        return self.project(points, self.origins.index_select(0, rows[each])), each

    def accept(self, rows: Tensor, points: Tensor) -> None:
        """Keep the masses of whole images."""
        self.mass[rows] = self._mass(points - self.origins[rows]).sum(1)

    def _mass(self, displacements: Tensor) -> Tensor:
        """Masses (n, C) of (n, C, h, w)."""
        return (displacements.abs() if self.order == 1 else displacements.square()).sum((2, 3))

    def _norm(self, mass: Tensor) -> Tensor:
        return mass if self.order == 1 else mass.sqrt()


class L2Proposals(TransferProposals):
    """Squares add up: a first window of the allowed norm brings the image to the edge of its ball."""

    order = 2

    def scale(self, displacements: Tensor) -> Tensor:
        """Scaled to the edge of the ball."""
        return displacements * (self.eps / self._mass(displacements).sum(1).sqrt())[:, None, None, None]

    def window_norm(self, window_mass: Tensor, image_mass: Tensor) -> Tensor:
        """Both windows' masses, and each channel's equal share of what the ball has left."""
        # Negative only by rounding: then the image is outside the ball by as much.
        left = (self.eps**2 - image_mass) / window_mass.shape[1]
        return (window_mass + left).clamp_(min=0.0).sqrt_()

    def project(self, points: Tensor, origins: Tensor) -> Tensor:
        """Clipped to the box."""
        return points.clamp_(0.0, 1.0)


class L1Proposals(TransferProposals):
    """The first window gets C times its share; the projection then shrinks all values of the image."""

    order = 1

    def window_norm(self, window_mass: Tensor, image_mass: Tensor) -> Tensor:
        """C times both windows' masses, and what the ball has left."""
        return window_mass * window_mass.shape[1] + (self.eps - image_mass).clamp_(min=0.0)

    def project(self, points: Tensor, origins: Tensor) -> Tensor:
        """Projected onto ball ∩ box, as near as float32 allows."""
        displacements = (points - origins).flatten(1)
        # 1 - origin above it, origin below; a comparison and a choice would take ten times as long.
        room = 0.5 - displacements.sign() * (origins.flatten(1) - 0.5)
        shrunk = _shrink(displacements.abs(), room, self.eps).copysign_(displacements)
        return (shrunk.view_as(points) + origins).clamp_(0.0, 1.0)


def _shrink(size: Tensor, room: Tensor, eps: float) -> Tensor:
    """clip(size - λ, 0, room), with a λ for each row (n, C·H·W) that makes it sum to ``eps``, or to less.

    Newton's steps on λ, in the inputs' precision and not always to convergence: a proposal has to be in the ball, and
    need not be its nearest point. A row that has converged does not depend on the other rows.
    """
    cut = low = torch.zeros_like(size[:, :1])
    high = size.amax(1, keepdim=True)
    for _ in range(_NEWTON_STEPS):
        kept = torch.minimum((size - cut).relu_(), room)
        excess = kept.sum(1, keepdim=True) - eps
        # How many values are neither 0 nor at their room; two comparisons would double the cost of a step.
        free = (room - kept).mul_(kept).sign_().sum(1, keepdim=True)
        done = (excess.abs() <= _TOLERANCE * eps) | ((excess < 0) & (cut == 0))
        if bool(done.all()):
            break
        low, high = torch.where(excess > 0, cut, low), torch.where(excess > 0, high, cut)
        newton = cut + excess / free
        cut = torch.where(done, cut, torch.where((newton > low) & (newton < high), newton, (low + high) / 2))
    shrunk = torch.minimum((size - cut).relu_(), room)
    return shrunk.mul_((eps / shrunk.sum(1, keepdim=True)).clamp_(max=1.0))
