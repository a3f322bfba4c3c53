# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""HopSkipJump: the nearest adversarial example from the model's decisions alone, its classes without scores.

Chen, Jordan & Wainwright, "HopSkipJumpAttack: a query-efficient decision-based attack", IEEE S&P 2020, algorithm 2. On
the boundary, random directions are asked for which side they lead to; their mean is about the boundary's normal. A step
along it goes across, and a bisection towards the image comes back to the boundary, nearer than before.

Legend: n images on their way, d values of an image, m directions.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unfool.attacks.minimum_norm.search import MinimumNormSearch, NearestSoFar, column
from unfool.attacks.objective import LabelLoss, ObjectiveValue
from unfool.attacks.problem import Perturbed, Problem
from unfool.core.errors import SpecError
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel

FIRST_DIRECTIONS = 100
"""Directions of the first estimate; their number grows with the root of the round (as published)."""

AT_ONCE = 16
"""Directions of an image that are drawn and asked for together."""

NOISES = 8
"""Random images that are tried as a first point across the boundary, beside plain colours."""

OTHERS = 8
"""Images of other labels, the nearest, that are tried where none of those is across."""

HALVINGS = 20
"""Step sizes that are tried in a round, each half of the last."""


@dataclass(frozen=True, kw_only=True)
class HopSkipJumpSearch(MinimumNormSearch):
    """HopSkipJump, in l2 and linf.

    Args:
        steps: Queries for each image, at most.
        spared: How many of them `look_around` leaves to its caller.
    """

    steps: int = 5000
    spared: int = 0

    def __post_init__(self) -> None:
        if self.threat.norm_name not in ("l2", "linf"):
            raise SpecError(f"HopSkipJump has no form for {self.threat}; give it an l2 or linf threat model")
        if self.steps < 1:
            raise SpecError(f"steps {self.steps} are not allowed; give 1 query or more")

    def run(self, problem: Problem[LabelLoss]) -> Perturbed:
        """As every minimum-norm search; its last look, at what is brought into the ball, is a query like the others."""
        return MinimumNormSearch.run(dataclasses.replace(self, spared=1), problem)

    def look_around(self, problem: Problem[LabelLoss], within: float) -> NearestSoFar:
        """Rounds until an image has no queries left, or an example ``within`` so far."""
        best = _NearestByDecisions(problem.images, self.threat, gradients=False)
        walk = _Walk(self, problem, best, within)
        rows = torch.arange(len(problem.images), device=problem.images.device)
        walk.ask(rows, problem.images)
        rows = walk.first_points(walk.going(rows))
        walk.to_boundary(rows)
        number = 1
        while len(rows := walk.going(rows)):
            walk.round(rows, number)
            number += 1
        return best


class _NearestByDecisions(NearestSoFar):
    """The nearest points across the boundary, where no score says which of the others is better: of an image that
    nothing fooled the nearest is brought into the ball, and one that has none comes back as it was."""

    def __init__(self, images: Tensor, threat: ThreatModel, *, gradients: bool):
        super().__init__(images, threat, gradients=gradients)
        self.origins = images

    def result(self) -> Perturbed:
        result = super().result()
        rows = (~self.fooled & (self.distances < math.inf)).nonzero().squeeze(1)
        inside = self.threat.project(self.nearest[rows], self.origins[rows])
        return dataclasses.replace(result, images=result.images.index_copy(0, rows, inside))


class _Walk:
    """The walk of B images along the boundary: current ``points`` across it, and how many queries are ``left``."""

    def __init__(self, settings: HopSkipJumpSearch, problem: Problem[LabelLoss], best: NearestSoFar, within: float):
        self.settings = settings
        self.linf = settings.threat.norm_name == "linf"
        self.best = best
        self.objective = problem.objective
        self.origins = problem.images
        self.ids = problem.ids
        self.labels = problem.objective.labels
        self.others = problem.others
        self.streams = problem.streams
        self.within = within
        self.points = problem.images.clone()
        queries = settings.steps - settings.spared
        self.left = torch.full((len(problem.images),), queries, device=problem.images.device)
        self.size = problem.images[0].numel()

    def going(self, rows: Tensor) -> Tensor:
        """The rows that have queries left, and no example near enough."""
        return rows[(self.left[rows] > 0) & self._far(rows)]

    def _far(self, rows: Tensor) -> Tensor:
        """Which rows (n,) have no example near enough so far."""
        return self.best.distances[rows] > self.within

    def ask(self, rows: Tensor, points: Tensor) -> Tensor:
        """Whether each point (n, C, H, W) is across the boundary (n,); no for a row without queries left."""
        across = torch.zeros_like(rows, dtype=torch.bool)
        able = self.left[rows] > 0
        if bool(able.any()):
            rows, points = rows[able], points[able]
            with torch.no_grad():
                value = self.best.evaluate(self.objective, points, rows)
            self.left[rows] -= 1
            across[able] = self.best.look(rows, points, self.origins[rows], value)[1]
        return across

    def distances(self, rows: Tensor) -> Tensor:
        """How far the current points are from their images, (n,) float64."""
        return self.settings.geometry.norm(self.points[rows].double() - self.origins[rows].double())

    def ask_all(self, rows: Tensor, points: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        """As `ask` for several points of each row (n, m, C, H, W), those ``wanted`` (n, m): across, and answered.

        Nothing more is asked of an image that has an example near enough.
        """
        answered = wanted & (wanted.cumsum(1) <= self.left[rows, None]) & self._far(rows)[:, None]
        across = torch.zeros_like(answered)
        if bool(answered.any()):
            owners = rows[:, None].expand_as(answered)[answered]
            with torch.no_grad():
                value = self.best.evaluate(self.objective, points[answered], owners)
            self.left[rows] -= answered.sum(1)
            across[answered] = False if value.fooled is None else value.fooled
            losses = torch.zeros(across.shape, dtype=value.losses.dtype, device=rows.device)
            losses[answered] = value.losses.detach()
            # Column by column, since an image is kept once in a look.
            for places, seen, lost in zip(points.unbind(1), across.unbind(1), losses.unbind(1), strict=True):
                if bool(seen.any()):
                    crossed = ObjectiveValue(losses=lost[seen], fooled=seen[seen])
                    self.best.look(rows[seen], places[seen], self.origins[rows[seen]], crossed)
        return across, answered

    def first_points(self, rows: Tensor) -> Tensor:
        """Rows for which a point across the boundary was found: of plain colours and noise the one that leads nearest,
        and where none of them is across, of images of other labels."""
        ends = self._colours_and_noise(rows)
        across = self._nearest_of(rows, ends, torch.ones(ends.shape[:2], dtype=torch.bool, device=rows.device))
        if self.others is not None and len(waiting := self.going(rows[~across])):
            crossed = self._nearest_of(waiting, *self._of_other_labels(waiting, *self.others))
            across |= torch.isin(rows, waiting[crossed])
        return rows[across]

    def _colours_and_noise(self, rows: Tensor) -> Tensor:
        """Plain colours and random images (n, m, C, H, W)."""
        origins, shape = self.origins[rows], tuple(self.origins.shape[1:])
        noise = [self.streams.named("first").at(number).uniform(self.ids[rows], shape) for number in range(NOISES)]
        tried = [plain.to(origins).expand_as(origins) for plain in _plain_colours(shape[0])]
        return torch.stack([*tried, *(each.to(origins.dtype) for each in noise)], 1)

    def _of_other_labels(self, rows: Tensor, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest images of other labels (n, m, C, H, W), and which of them there are (n, m)."""
        mode = "donot_use_mm_for_euclid_dist"  # the faster way rounds otherwise in batches of other sizes
        distances = torch.cdist(self.origins[rows].flatten(1).float(), images.flatten(1).float(), compute_mode=mode)
        distances = distances.masked_fill(labels == self.labels[rows, None], math.inf)
        nearest = distances.topk(min(OTHERS, len(images)), dim=1, largest=False)
        return images[nearest.indices].to(self.origins.dtype), nearest.values < math.inf

    def _nearest_of(self, rows: Tensor, ends: Tensor, wanted: Tensor) -> Tensor:
        """Set each row's point to the one of ``ends`` (n, m, C, H, W) across the boundary that leads nearest; which
        rows have one (n,).

        All that are ``wanted`` (n, m) are tried; those that are across go half of their way to the image, again and
        again, until none is left.
        """
        origins = self.origins[rows]
        alive, _ = self.ask_all(rows, ends, wanted)
        across = alive.any(1)
        share, halving = torch.ones(len(rows), device=rows.device), across.clone()
        for _ in range(HALVINGS):
            if not bool(halving.any()):
                break
            half = torch.lerp(origins[:, None], ends, column(share / 2, ends))
            still, _ = self.ask_all(rows, half, alive & halving[:, None])
            halving = still.any(1)
            alive = torch.where(halving[:, None], still, alive)
            share = torch.where(halving, share / 2, share)
        points = torch.lerp(origins[:, None], ends, column(share, ends))
        lengths = self.settings.geometry.norm((points - origins[:, None]).flatten(0, 1).double()).view_as(alive)
        nearest = torch.where(alive, lengths, math.inf).argmin(1)
        self.points[rows] = points[torch.arange(len(rows), device=rows.device), nearest]
        return across

    def to_boundary(self, rows: Tensor) -> None:
        """Bisect between the images and their points across; the points are the nearest across then."""
        ends, low = self.points[rows], torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
        full = self.distances(rows)
        high = full.clone() if self.linf else torch.ones_like(low)
        precision = high * (self.size**-2 if self.linf else self.size**-1.5)
        while bool((unsettled := (high - low > precision) & (self.left[rows] > 0) & self._far(rows)).any()):
            middle = (low + high) / 2
            if bool(((middle == low) | (middle == high))[unsettled].all()):
                break
            places = unsettled.nonzero().squeeze(1)
            across = self.ask(rows[places], self._between(rows[places], ends[places], middle[places]))
            high[places] = torch.where(across, middle[places], high[places])
            low[places] = torch.where(across, low[places], middle[places])
        self.points[rows] = self._between(rows, ends, high)

    def _between(self, rows: Tensor, ends: Tensor, share: Tensor) -> Tensor:
        """Points between images and ``ends``: at a share of the way (l2), or clipped to a radius (linf)."""
        origins = self.origins[rows]
        if self.linf:
            radius = column(share, origins)
            return torch.minimum(torch.maximum(ends, origins - radius), origins + radius).clamp(0.0, 1.0)
        return torch.lerp(origins, ends, column(share, origins))

    def round(self, rows: Tensor, number: int) -> None:
        """One estimate of the normal, a step along it, and back to the boundary."""
        distances = self.distances(rows)
        normal = self._normal(rows, number, distances)
        direction = normal.sign() if self.linf else normal
        step = distances / math.sqrt(number)
        waiting = self.going(rows)
        moved = torch.zeros_like(self.left, dtype=torch.bool)
        places = torch.full_like(self.left, -1)
        places[rows] = torch.arange(len(rows), device=rows.device)
        for _ in range(HALVINGS):
            if not len(waiting):
                break
            at = places[waiting]
            ahead = (self.points[waiting] + column(step[at], direction) * direction[at]).clamp(0.0, 1.0)
            across = self.ask(waiting, ahead)
            self.points[waiting[across]] = ahead[across]
            moved[waiting[across]] = True
            waiting = self.going(waiting[~across])
            step /= 2
        self.to_boundary(rows[moved[rows]])

    def _normal(self, rows: Tensor, number: int, distances: Tensor) -> Tensor:
        """The boundary's unit normal at the points, estimated (equations 13 and 16)."""
        # The first points are far from the images, and their directions may lead further (as published).
        reach = torch.full_like(distances, 0.1) if number == 1 else distances / self.size
        count = int(FIRST_DIRECTIONS * math.sqrt(number))
        total = torch.zeros_like(self.points[rows], dtype=torch.float32)
        plain = torch.zeros_like(total)
        answers = torch.zeros(len(rows), device=rows.device)
        counts = torch.zeros_like(answers)
        for group in range(-(-count // AT_ONCE)):
            draws = self.streams.named("directions").at(number * 1000 + group)
            directions = self._directions(rows, draws)[:, : count - group * AT_ONCE]
            here = self.points[rows][:, None]
            points = (here + column(reach, directions) * directions).clamp(0.0, 1.0).to(here.dtype)
            moved = (points - here).float() / column(reach + 1e-8, directions)
            across, known = self.ask_all(rows, points, torch.ones_like(directions[:, :, 0, 0, 0], dtype=torch.bool))
            signs = (across.float() * 2 - 1) * known
            total += (signs.view(*signs.shape, 1, 1, 1) * moved).sum(1)
            plain += (known.view(*signs.shape, 1, 1, 1) * moved).sum(1)
            answers += signs.sum(1)
            counts += known.sum(1)
        mean = answers / counts.clamp(min=1.0)
        # The mean answer is taken off as a baseline, unless all directions led to one side.
        baseline = torch.where(mean.abs() < 1, mean, 0.0)
        normal = total - column(baseline, total) * plain
        return normal / column(torch.linalg.vector_norm(normal.flatten(1), dim=1).clamp(min=1e-12), normal)

    def _directions(self, rows: Tensor, draws: Streams) -> Tensor:
        """Unit directions (n, AT_ONCE, C, H, W): normal in l2, uniform in linf."""
        shape = (AT_ONCE, *self.origins.shape[1:])
        drawn = draws.uniform(self.ids[rows], shape, -1.0, 1.0) if self.linf else draws.normal(self.ids[rows], shape)
        return drawn / torch.linalg.vector_norm(drawn.flatten(2), dim=2).view(*drawn.shape[:2], 1, 1, 1)


def _plain_colours(channels: int) -> list[Tensor]:
    """The corners of the colour cube, each (C, 1, 1); of more than three channels black and white alone."""
    if channels > 3:
        return [torch.zeros(channels, 1, 1), torch.ones(channels, 1, 1)]
    return [torch.tensor(corner).view(-1, 1, 1) for corner in itertools.product((0.0, 1.0), repeat=channels)]
