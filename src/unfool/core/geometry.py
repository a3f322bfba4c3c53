# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""The geometry of four norms: exact projections, steepest steps, uniform draws and lengths.

Legend: ``images``, ``origins``, ``gradient`` and displacements are (B, C, H, W); a ball is the set of images within
``eps`` of their origins, the box is [0,1]; n = C·H·W. Nothing here loops over images. Results have the dtype of the
origins and carry no gradient.

A projection is computed in float64 (linf and l2: at least float32) and rounded *towards the origin*, so that the result
is in the ball in every dtype; an image that is inside already comes back bit for bit. In l1 float32 would not do: its
steps at an eps of 12 are as large as the 1e-6 that is promised.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from unfool.core.streams import Streams

_SLACK = 1e-9
"""An image this little outside its ball counts as inside: above float64 rounding, far below what is promised (1e-6)."""

_SINGLE = 2.0**-22
"""Share of a radius that is left to the rounding of float32: two units in the last place."""

_MAX_ITERATIONS = 200
"""More than bisection needs in float64; with Newton's steps about five are enough."""

L1_SHARE = 0.01
"""Share of an image's values that a steepest l1 step changes: SLIDE's, and the strongest tried from 1/n to 0.5."""


class Geometry(ABC):
    """The operations of a norm; ``eps`` and ``step`` are in pixel units, one number or one per image (B,)."""

    @abstractmethod
    def project(self, images: Tensor, origins: Tensor, eps: float | Tensor) -> Tensor:
        """The images brought into ball ∩ box."""

    @abstractmethod
    def steepest(self, gradient: Tensor, images: Tensor, step: float | Tensor, share: Tensor | None = None) -> Tensor:
        """The displacement of length ``step`` with the largest product with the gradient; zero for a zero gradient.

        ``share`` (B,) is the part of each image's values that may change, for a norm with sparse steps (l1).
        """

    @abstractmethod
    def sample(self, ids: Tensor, shape: tuple[int, ...], streams: Streams) -> Tensor:
        """Displacements (B, *shape) drawn uniformly in the unit ball, one per image id."""

    def sample_within(self, ids: Tensor, shape: tuple[int, ...], streams: Streams, eps: float | Tensor) -> Tensor:
        """Displacements (B, *shape) drawn uniformly in the ball of radius eps."""
        unit = self.sample(ids, shape, streams)
        return unit.mul_(_per_image(eps, unit))

    @abstractmethod
    def norm(self, delta: Tensor) -> Tensor:
        """The lengths (B,) of ``delta`` (B, ...), in float64."""


class LinfGeometry(Geometry):
    """Each value changes by at most eps."""

    def project(self, images: Tensor, origins: Tensor, eps: float | Tensor) -> Tensor:
        """The nearest images in ball ∩ box (one clamp per value, which is the Euclidean projection)."""
        if origins.dtype in (torch.float16, torch.bfloat16):
            exact_origins = origins.float()
            return _round_towards(self.project(images.float(), exact_origins, eps), origins, exact_origins)
        radius = _per_image(eps, origins)
        low = (origins - radius).clamp_(min=0.0)
        high = (origins + radius).clamp_(max=1.0)
        return images.to(origins.dtype).clamp(low, high)

    def steepest(self, gradient: Tensor, images: Tensor, step: float | Tensor, share: Tensor | None = None) -> Tensor:
        """``step`` times the gradient's sign (FGSM, Goodfellow et al. 2015, section 4)."""
        return gradient.sign().mul_(_per_image(step, gradient)).to(images.dtype)

    def sample(self, ids: Tensor, shape: tuple[int, ...], streams: Streams) -> Tensor:
        """Each value uniform in [-1, 1)."""
        return streams.uniform(ids, shape, -1.0, 1.0)

    def norm(self, delta: Tensor) -> Tensor:
        """The largest absolute value."""
        return delta.flatten(1).abs().amax(1).double()


class L2Geometry(Geometry):
    """The Euclidean distance of all values together is at most eps."""

    def project(self, images: Tensor, origins: Tensor, eps: float | Tensor) -> Tensor:
        """The nearest images in the ball, then clamped to the box: inside both, as the origins are in the box."""
        # In float32 a change rounds relative to its own size, so that a ball smaller by that much holds the result.
        single = origins.dtype == images.dtype == torch.float32
        wide = torch.float32 if single else torch.float64
        exact_origins, points = origins.to(wide), images.to(wide)
        delta = points - exact_origins
        length = _column(self.norm(delta), delta)
        radius = _column(eps.double(), delta) if isinstance(eps, Tensor) else eps
        outside = length > radius + _SLACK
        shrunk = radius * (1 - _SINGLE) if single else radius
        share = torch.where(outside, shrunk / length, 1.0)
        delta.mul_(share.to(wide))
        nearest = torch.where(outside, exact_origins + delta, points).clamp_(0.0, 1.0)
        return _round_towards(nearest, origins, exact_origins, delta.abs_())

    def steepest(self, gradient: Tensor, images: Tensor, step: float | Tensor, share: Tensor | None = None) -> Tensor:
        """``step`` times the unit gradient."""
        slope = gradient.float() if gradient.dtype != torch.float64 else gradient
        # Divided by the largest value first: the squares of a vanishing gradient would underflow to zero.
        largest = slope.flatten(1).abs().amax(1)
        unit = slope / _column(torch.where(largest > 0, largest, 1.0), slope)
        length = unit.flatten(1).norm(dim=1).clamp_(min=1.0)
        return unit.mul_(_per_image(step, slope) / _column(length, slope)).to(images.dtype)

    def sample(self, ids: Tensor, shape: tuple[int, ...], streams: Streams) -> Tensor:
        """A normal direction, and a radius whose n-th power is uniform."""
        direction = streams.named("direction").normal(ids, shape).double()
        radius = streams.named("radius").uniform(ids).double() ** (1.0 / math.prod(shape))
        return direction.mul_(_column(radius / self.norm(direction).clamp(min=torch.finfo().tiny), direction))

    def norm(self, delta: Tensor) -> Tensor:
        """The root of the sum of squares."""
        return torch.linalg.vector_norm(delta.flatten(1), dim=1, dtype=torch.float64)


class L1Geometry(Geometry):
    """The absolute changes of all values sum to at most eps."""

    def project(self, images: Tensor, origins: Tensor, eps: float | Tensor) -> Tensor:
        """The nearest images in ball ∩ box (Croce & Hein 2021, Proposition 2.1), not ball and box in turn."""
        exact_origins = origins.double()
        delta = (images.double() - exact_origins).flatten(1)
        points = images.double().clamp(0.0, 1.0)
        room = torch.where(delta > 0, 1.0 - exact_origins.flatten(1), exact_origins.flatten(1))
        outside = torch.minimum(delta.abs(), room).sum(1) > eps + _SLACK
        rows = outside.nonzero().squeeze(1)
        if len(rows):
            radius = eps[rows, None].double() if isinstance(eps, Tensor) else eps
            shrunk = _shrink(delta[rows].abs(), room[rows], radius).copysign_(delta[rows])
            points[rows] = exact_origins[rows] + shrunk.view_as(exact_origins[rows])
        return _round_towards(points.clamp_(0.0, 1.0), origins, exact_origins)

    def steepest(self, gradient: Tensor, images: Tensor, step: float | Tensor, share: Tensor | None = None) -> Tensor:
        """``step`` spread evenly over the values with the largest gradients that can still change inside the box.

        This is SLIDE's step (Tramèr & Boneh, NeurIPS 2019), or with a ``share`` for each image that of APGD in l1
        (Croce & Hein 2021). A step of one value alone would be steeper, but that value is soon at the edge of the box.
        """
        slope = gradient.flatten(1)
        pixels = images.flatten(1)
        size = slope.shape[1]
        room = torch.where(slope > 0, pixels < 1.0, pixels > 0.0)
        if share is None:
            score, index = (slope.abs() * room).topk(max(1, round(L1_SHARE * size)), dim=1, sorted=False)
            chosen = score > 0
        else:
            counts = (share * size).ceil().clamp(1, size)
            score, index = (slope.abs() * room).topk(int(counts.max()), dim=1)
            ranks = torch.arange(score.shape[1], device=slope.device)
            chosen = (score > 0) & (ranks < counts[:, None])
        each = 1.0 / chosen.sum(1, keepdim=True).clamp(min=1)
        signs = slope.gather(1, index).sign().mul_(chosen)
        displacements = torch.zeros_like(slope, dtype=each.dtype).scatter_(1, index, signs.to(each.dtype) * each)
        return displacements.view_as(gradient).mul_(_per_image(step, gradient)).to(images.dtype)

    def sample(self, ids: Tensor, shape: tuple[int, ...], streams: Streams) -> Tensor:
        """n of n + 1 exponentials divided by their sum, which are uniform on a simplex, with random signs."""
        size = math.prod(shape)
        exponentials = streams.named("size").exponential(ids, (size + 1,)).double()
        signs = streams.named("sign").integers(ids, 2, (size,)) * 2 - 1
        return (signs * exponentials[:, :size] / exponentials.sum(1, keepdim=True)).reshape(len(ids), *shape)

    def norm(self, delta: Tensor) -> Tensor:
        """The sum of absolute values."""
        return torch.linalg.vector_norm(delta.flatten(1), ord=1, dim=1, dtype=torch.float64)


class L0Geometry(Geometry):
    """At most eps pixels change, each by any amount; all channels of a pixel count as one."""

    def project(self, images: Tensor, origins: Tensor, eps: float | Tensor) -> Tensor:
        """The nearest images in ball ∩ box: the pixels that are worst to lose keep their change."""
        points = images.to(origins.dtype).clamp(0.0, 1.0)
        exact = images.double()
        # What a pixel's return to its origin costs, beyond what bringing it into the box costs anyway.
        cost = (exact - origins.double()).square() - (exact - points.double()).square()
        return torch.where(_largest(_by_pixel(cost), eps) | (points == origins), points, origins)

    def steepest(self, gradient: Tensor, images: Tensor, step: float | Tensor, share: Tensor | None = None) -> Tensor:
        """The ``step`` pixels (rounded up) that gain most go to the edge of the box, each value along its gradient.

        Among all displacements of so many pixels inside the box this one has the largest product with the gradient.
        """
        to_edge = torch.where(gradient > 0, 1.0 - images, -images).mul_(gradient != 0)
        gains = _by_pixel(to_edge * gradient)
        return torch.where(_largest(gains, step), to_edge, torch.zeros_like(to_edge)).to(images.dtype)

    def sample(self, ids: Tensor, shape: tuple[int, ...], streams: Streams) -> Tensor:
        """One pixel, each of its values uniform in [-1, 1)."""
        return self.sample_within(ids, shape, streams, 1)

    def sample_within(self, ids: Tensor, shape: tuple[int, ...], streams: Streams, eps: float | Tensor) -> Tensor:
        """As many pixels as eps allows, all subsets alike, and each of their values uniform in [-1, 1)."""
        values = streams.named("value").uniform(ids, shape, -1.0, 1.0)
        ranks = streams.named("pixel").uniform(ids, (1, *shape[1:]), 0.5, 1.0)
        return torch.where(_largest(ranks, eps), values, torch.zeros_like(values))

    def norm(self, delta: Tensor) -> Tensor:
        """How many pixels differ; of ``delta`` (B, C, H, W) the second dimension holds a pixel's channels."""
        changed = delta != 0
        return (changed.any(1) if changed.ndim == 4 else changed).flatten(1).sum(1).double()


GEOMETRIES: dict[str, Geometry] = {
    "linf": LinfGeometry(),
    "l2": L2Geometry(),
    "l1": L1Geometry(),
    "l0": L0Geometry(),
}


def _by_pixel(values: Tensor) -> Tensor:
    """Values (B, C, H, W) added up over channels, (B, 1, H, W)."""
    return values.sum(1, keepdim=True)


def _largest(scores: Tensor, count: float | Tensor) -> Tensor:
    """Mask (B, 1, H, W) of each image's ``count`` (one, or B) largest scores above 0, the first among equals."""
    flat = scores.flatten(1)
    order = flat.argsort(dim=1, descending=True, stable=True)
    places = torch.arange(flat.shape[1], device=flat.device)
    counts = count[:, None] if isinstance(count, Tensor) else count
    ranks = torch.empty_like(order).scatter_(1, order, places.expand_as(order))
    return ((ranks < counts) & (flat > 0)).view_as(scores)


def _column(values: Tensor, like: Tensor) -> Tensor:
    """(B,) as (B, 1, ..., 1)."""
    return values.view(-1, *[1] * (like.ndim - 1))


def _per_image(step: float | Tensor, like: Tensor) -> float | Tensor:
    return _column(step.to(like.dtype), like) if isinstance(step, Tensor) else step


def _round_towards(exact: Tensor, origins: Tensor, exact_origins: Tensor, most: Tensor | None = None) -> Tensor:
    """``exact`` in the dtype of ``origins``, rounded so that no value is farther from its origin than before, or than
    ``most``.

    Rounding to nearest would add up to half a unit in the last place to every value: in l1, over n values, far more
    than 1e-6.
    """
    nearest = exact.to(origins.dtype)
    farther = (nearest - exact_origins).abs_() > ((exact - exact_origins).abs_() if most is None else most)
    return torch.where(farther, torch.nextafter(nearest, origins), nearest)


def _shrink(size: Tensor, room: Tensor, eps: float | Tensor) -> Tensor:
    """clip(size - λ, 0, room), with a λ for each row that makes it sum to ``eps`` (or (R, 1)); all (R, n) float64.

    The sum falls with λ and is linear between breakpoints: Newton's step is exact once λ is in the right piece, and
    from the left it gets there in a few iterations. Where many values are at their room the sum is not convex; halving
    the bracket in every third iteration then keeps the worst case logarithmic.
    """
    low = torch.zeros_like(size[:, :1])
    middle, high = low, size.amax(1, keepdim=True)
    for iteration in range(_MAX_ITERATIONS):
        rest = size - middle
        free = ((rest > 0) & (rest < room)).sum(1, keepdim=True)
        excess = torch.minimum(rest.clamp_(min=0.0), room).sum(1, keepdim=True) - eps
        low = torch.where(excess > 0, middle, low)
        high = torch.where(excess <= _SLACK / 10, middle, high)
        done = excess.abs() <= _SLACK / 10
        if bool(done.all()):
            break
        newton = middle + excess / free
        usable = (newton > low) & (newton < high) if iteration < 10 or iteration % 3 != 2 else torch.zeros_like(done)
        middle = torch.where(done, middle, torch.where(usable, newton, (low + high) / 2))
    return torch.minimum((size - high).clamp_(min=0.0), room)
