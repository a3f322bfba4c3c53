"""Square: random search that redraws one window of pixels at a time, and needs the model's outputs alone.

Andriushchenko et al., ECCV 2020 (linf: algorithms 1 and 2; l2: algorithm 3); in l1 as AutoAttack runs it (Croce & Hein,
"Mind the box", ICML 2021).

Legend: B images of the batch, n of them still attacked, C channels, H×W pixels.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from unfool.attacks.engines.best_so_far import BestSoFar
from unfool.attacks.engines.square_proposals import L1Proposals, L2Proposals, LinfProposals, Proposals
from unfool.attacks.objective import Objective
from unfool.attacks.problem import Perturbed, Problem
from unfool.core.errors import SpecError
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.tasks.base import at_least_fp32

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Steps after each of which the windows' area is halved: the published schedule for 10,000 queries."""

PROPOSALS: dict[str, type[Proposals]] = {"linf": LinfProposals, "l2": L2Proposals, "l1": L1Proposals}

_CHUNK = 64
"""Windows drawn at once; drawing each by itself would cost more than the rest of its step."""


@dataclass(frozen=True, kw_only=True)
class SquareSearch:
    """Random search over windows. More steps or restarts never lower an image's best loss.

    The windows of every image are its own, and lie wherever they fit.

    Args:
        threat: The allowed perturbations.
        steps: Windows after the start; each is one query for every image that is not fooled yet.
        p: Share of the image that the first windows cover. Its schedule does not depend on ``steps``, as in AutoAttack.
        restarts: Runs, each from a start of its own.
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

    def side(self, step: int, height: int, width: int, min_side: int = 1, odd: bool = False) -> int:
        """Side of the window at a step (from 0) of images H×W, at least ``min_side`` and perhaps ``odd``."""
        share = self.p / 2 ** bisect.bisect_left(HALVINGS, step)
        side = max(round(math.sqrt(share * height * width)), min_side)
        return min(side + (odd and side % 2 == 0), height, width)

    @torch.no_grad()
    def run(self, problem: Problem[Objective]) -> Perturbed:
        """Perturb the problem's images until the objective is fooled; images that fool it already come back unchanged.

        A proxy answers all queries but the last share. A point that it, or the objective itself, calls fooled is
        projected and evaluated by the objective at once; where that disagrees the search goes on. Raises NonFiniteError
        for a loss that is NaN or infinite.
        """
        best_so_far = BestSoFar(problem.images, "success", gradients=False)
        rows = best_so_far.remaining_rows()
        best_so_far.record(rows, problem.images, best_so_far.evaluate(problem.objective, problem.images, rows))
        for restart in range(self.restarts if self.steps and self.threat.eps else 0):
            rows = best_so_far.remaining_rows()
            if len(rows):
                _Restart(self, best_so_far, problem, rows).run(problem.streams.at(restart))
        return best_so_far.result()


class _Restart:
    """One restart: the best point so far of each image (B, C, H, W), and its loss by the objective that is queried."""

    def __init__(self, settings: SquareSearch, best_so_far: BestSoFar, problem: Problem[Objective], rows: Tensor):
        self.settings = settings
        self.best_so_far = best_so_far
        self.problem = problem
        self.rows = rows
        images = at_least_fp32(problem.images)
        self.points = images.clone()
        self.losses = torch.full((len(images),), -math.inf, dtype=torch.float64, device=images.device)
        self.proposals = PROPOSALS[settings.threat.norm_name](images, settings.threat)
        self.draws = self.points.new_empty(len(rows), 0)

    def run(self, streams: Streams) -> None:
        """Evaluate the start, then one window after another; the last steps query the objective, not its proxy."""
        problem = self.problem
        proxy_steps = problem.proxy_steps(self.settings.steps)
        queried = problem.proxy_objective if problem.proxy_objective is not None and proxy_steps else problem.objective
        if problem.starts is None:
            start = self.proposals.start(self.rows, problem.ids[self.rows], streams.named("start"))
        else:
            start = at_least_fp32(problem.starts)[self.rows]
        self._try(queried, start, self.rows)
        for step in range(self.settings.steps):
            if step == proxy_steps and queried is not problem.objective:
                queried = problem.objective
                self.losses.fill_(-math.inf)
                self._try(queried, self.points[self.rows], self.rows)
            if not len(self.rows):
                return
            if step % _CHUNK == 0:
                window_streams = streams.named("windows").at(step // _CHUNK)
                self.draws = window_streams.uniform(problem.ids[self.rows], (_CHUNK, self.proposals.draws))
            height, width = problem.images.shape[-2:]
            side = self.settings.side(step, height, width, self.proposals.min_side, self.proposals.odd_side)
            # index_select copies whole images; indexing by a tensor takes four times as long.
            points = self.points.index_select(0, self.rows)
            points, rows = self.proposals.propose(points, self.rows, side, self.draws[:, step % _CHUNK])
            if len(rows):
                self._try(queried, points, rows)
        self._confirm(self.rows)

    def _try(self, queried: Objective, points: Tensor, rows: Tensor) -> None:
        """Keep the points (n, C, H, W) with a higher loss; confirm those that are called fooled."""
        value = self.best_so_far.evaluate(queried, points.to(self.problem.images.dtype), rows)
        better = value.losses > self.losses[rows]
        better_rows, points = rows[better], points[better]
        self.losses[better_rows] = value.losses[better].to(self.losses.dtype)
        self.points[better_rows] = points
        self.proposals.accept(better_rows, points)
        if value.fooled is not None:
            self._confirm(rows[better & value.fooled])

    def _confirm(self, rows: Tensor) -> None:
        """Project the best points of these rows onto the ball to the last bit, and evaluate them by the objective."""
        if not len(rows):
            return
        images, objective = self.problem.images, self.problem.objective
        projected = self.settings.threat.project(self.points[rows].to(images.dtype), images[rows])
        self.best_so_far.record(rows, projected, self.best_so_far.evaluate(objective, projected, rows))
        remaining = ~self.best_so_far.fooled[self.rows]
        if not bool(remaining.all()):
            self.rows, self.draws = self.rows[remaining], self.draws[remaining]
