"""The Square attack: random search that redraws one window of pixels at a time and asks for logits alone.

Andriushchenko et al., ECCV 2020 (linf: Algorithms 1 and 2; l2: Algorithm 3); in l1 as AutoAttack runs it (Croce & Hein,
"Mind the box", ICML 2021). Without gradients to be masked, it tells when those of other attacks mislead.

Legend: B images of the batch, n of them in play, C channels, H×W pixels.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from unfool.attacks.base import ATTACKS, Attack
from unfool.attacks.best_so_far import BestSoFar, Perturbed
from unfool.attacks.ensemble import Part
from unfool.attacks.objective import Objective
from unfool.attacks.square_moves import L1Moves, L2Moves, LinfMoves, Moves
from unfool.core.config import build, configured
from unfool.core.errors import SpecError
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.tasks.base import at_least_fp32

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Windows after each of which the area of the next is halved: the published schedule for 10,000 queries."""

MOVES: dict[str, type[Moves]] = {"linf": LinfMoves, "l2": L2Moves, "l1": L1Moves}

_CHUNK = 64
"""Windows drawn at once; a draw of one alone would cost more than the rest of its step."""


@dataclass(frozen=True, kw_only=True)
class Square:
    """Settings of the engine: ``steps`` windows after the start, each a query for every image that still stands.

    ``p`` is the share of the image that the first windows cover; as in AutoAttack, its schedule does not depend on
    ``steps``, so that more steps or restarts never lower an image's best loss. The windows of every image are its own,
    and lie wherever they fit (published code draws one window for the whole batch, never at the lower and right edge).
    """

    threat: ThreatModel
    steps: int = 5000
    p: float = 0.8
    restarts: int = 1

    def __post_init__(self) -> None:
        if self.steps < 0 or self.restarts < 1 or not 0 < self.p <= 1:
            raise SpecError(
                f"steps {self.steps}, restarts {self.restarts}, p {self.p} are not allowed; "
                "give steps ≥ 0, restarts ≥ 1, 0 < p ≤ 1"
            )

    def side(self, step: int, height: int, width: int, least: int = 1, odd: bool = False) -> int:
        """Side of the window at a step (from 0) of images H×W; ``least`` and ``odd`` as the norm's moves ask."""
        share = self.p / 2 ** bisect.bisect_left(HALVINGS, step)
        side = max(round(math.sqrt(share * height * width)), least)
        return min(side + (odd and side % 2 == 0), height, width)

    @torch.no_grad()
    def run(
        self,
        objective: Objective,
        images: Tensor,
        ids: Tensor,
        streams: Streams,
        search: Objective | None = None,
        finish: float = 0.1,
        starts: Tensor | None = None,
    ) -> Perturbed:
        """Perturb images (B, C, H, W) in [0,1] until the objective is fooled; images that fool it already come back so.

        ``search`` answers all queries but the last share ``finish``. Whatever it, or the objective itself, calls fooled
        is projected and judged by ``objective`` at once, and searched on where that disagrees. Raises NonFiniteError
        for a loss that is NaN or infinite.
        """
        course = BestSoFar(images, "success", gradients=False)
        rows = course.standing()
        course.record(rows, images, course.read(objective, images, rows))
        rough = 0 if search is None else self.steps - math.ceil(self.steps * finish)
        for restart in range(self.restarts if self.steps and self.threat.eps else 0):
            rows = course.standing()
            if len(rows):
                walk = _Walk(self, course, objective, images, rows)
                walk.go(search if rough and search is not None else objective, rough, ids, streams.at(restart), starts)
        return course.result()


class _Walk:
    """One restart: the best point so far of each image (B, C, H, W), and its loss as told by whoever is asked."""

    def __init__(self, settings: Square, course: BestSoFar, objective: Objective, images: Tensor, rows: Tensor):
        self.settings = settings
        self.course = course
        self.objective = objective
        self.images = images
        self.rows = rows
        self.points = at_least_fp32(images).clone()
        self.losses = torch.full((len(images),), -math.inf, dtype=torch.float64, device=images.device)
        self.moves = MOVES[settings.threat.norm_name](at_least_fp32(images), settings.threat)
        self.draws = self.points.new_empty(len(rows), 0)

    def go(self, asked: Objective, rough: int, ids: Tensor, streams: Streams, starts: Tensor | None) -> None:
        """Start, then try one window after another; from step ``rough`` on ask the objective itself."""
        if starts is None:
            start = self.moves.start(self.rows, ids[self.rows], streams.named("start"))
        else:
            start = at_least_fp32(starts)[self.rows]
        self._try(asked, start, self.rows)
        for step in range(self.settings.steps):
            if step == rough and asked is not self.objective:
                asked = self.objective
                self.losses.fill_(-math.inf)
                self._try(asked, self.points[self.rows], self.rows)
            if not len(self.rows):
                return
            if step % _CHUNK == 0:
                named = streams.named("windows").at(step // _CHUNK)
                self.draws = named.uniform(ids[self.rows], (_CHUNK, self.moves.draws))
            height, width = self.images.shape[-2:]
            side = self.settings.side(step, height, width, self.moves.least, self.moves.odd)
            # index_select copies whole images; indexing by a tensor takes four times as long.
            points = self.points.index_select(0, self.rows)
            points, rows = self.moves.propose(points, self.rows, side, self.draws[:, step % _CHUNK])
            if len(rows):
                self._try(asked, points, rows)
        self._judge(self.rows)

    def _try(self, asked: Objective, points: Tensor, rows: Tensor) -> None:
        """Keep those of the points (n, C, H, W) that have a higher loss; have judged what is called fooled."""
        reading = self.course.read(asked, points.to(self.images.dtype), rows)
        better = reading.losses > self.losses[rows]
        ahead, points = rows[better], points[better]
        self.losses[ahead] = reading.losses[better].to(self.losses.dtype)
        self.points[ahead] = points
        self.moves.settle(ahead, points)
        if reading.fooled is not None:
            self._judge(rows[better & reading.fooled])

    def _judge(self, rows: Tensor) -> None:
        """Bring the best points of these rows into the ball to the last bit, and let the objective itself decide."""
        if not len(rows):
            return
        landed = self.settings.threat.project(self.points[rows].to(self.images.dtype), self.images[rows])
        self.course.record(rows, landed, self.course.read(self.objective, landed, rows))
        standing = ~self.course.fooled[self.rows]
        if not bool(standing.all()):
            self.rows, self.draws = self.rows[standing], self.draws[standing]


@configured
class _Square:
    """``steps`` queries for each image after the start, the first windows over a share ``p`` of it."""

    steps: int = Field(default=5000, ge=0)
    p: float = Field(default=0.8, gt=0, le=1)
    restarts: int = Field(default=1, ge=1)


@ATTACKS.add("square")
def square(name: str, threat: ThreatModel, values: Mapping[str, Any]) -> Attack:
    """Square on the margin of the logits: ``square-1000`` makes 1,000 queries."""
    settings = dataclasses.asdict(build(_Square, values, f"attack {name!r}"))
    part = Part(name=name, engine=Square(threat=threat, **settings), loss="margin", gradients=False)
    return Attack(name=name, parts=(part,), settings=settings)
