"""Square: random search that redraws one window of pixels at a time, and needs the model's outputs alone.

Andriushchenko et al., ECCV 2020 (linf: algorithms 1 and 2; l2: algorithm 3); in l1 as AutoAttack runs it (Croce & Hein,
"Mind the box", ICML 2021); in l0 Sparse-RS, which exchanges pixels.

Legend: B images of the batch, n of them still attacked, C channels, H×W pixels.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from unfool.attacks.engines.best_so_far import BestSoFar
from unfool.attacks.engines.sparse_proposals import L0Proposals
from unfool.attacks.engines.square_passes import Passes, WindowPasses, passes_for
from unfool.attacks.engines.square_proposals import L1Proposals, L2Proposals, LinfProposals, Proposals
from unfool.attacks.objective import Objective, ObjectiveValue
from unfool.attacks.problem import Perturbed, Problem
from unfool.core.errors import SpecError
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.tasks.base import at_least_fp32

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Steps after each of which the windows' area is halved: the published schedule for 10,000 queries."""

PROPOSALS: dict[str, type[Proposals]] = {
    "linf": LinfProposals,
    "l2": L2Proposals,
    "l1": L1Proposals,
    "l0": L0Proposals,
}

VALUES_AT_ONCE = 28 * 3 * 32 * 32
"""Pixel values of the queries of one pass: where few images are left, several windows of each are looked at at once."""

LOOK_EVERY = 500
"""Steps between two looks at the pace of each image's search."""

CAUTION = 2.0
"""How many times the pace of the second half of its search so far an image's search may still take on. Later windows
gain less: of 58 searches that were followed to their end, on a robust network and on ResNet-20, one got further than a
look had allowed for, by 0.006 in margin."""

_CHUNK = 64
"""Windows drawn at once; drawing each by itself would cost more than the rest of its step."""

_MOST_IN_VAIN = 0.4
"""How many of the windows looked at ahead may be kept: what follows the first of them is drawn again from there."""

FULL_PASS, _LESS_IN_VAIN = 64 * 3 * 32 * 32, 0.2
"""The same for larger passes, which gain less: up to so many values a small image gets cheaper."""


@dataclass(frozen=True, kw_only=True)
class SquareSearch:
    """Random search over windows. More steps or restarts never lower an image's best loss.

    The windows of every image are its own, and lie wherever they fit.

    Args:
        threat: The allowed perturbations.
        steps: Windows after the start; each is one query for every image that is not fooled yet, beside those that
            were looked at ahead in vain.
        p: Share of the image that the first windows cover. Its schedule does not depend on ``steps``, as in AutoAttack.
        restarts: Runs, each from a start of its own.
        drop_hopeless: Leave an image whose loss, at `CAUTION` times its pace, would end below the margin that gradients
            reached, which did not fool it either: the problem's ``reached``.
    """

    threat: ThreatModel
    steps: int = 5000
    p: float = 0.8
    restarts: int = 1
    drop_hopeless: bool = False

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
        self.next = torch.zeros_like(rows)
        # Share of the windows that are kept, over about the last twenty passes.
        self.kept_share = 0.5
        self.looks: list[Tensor] = []

    def run(self, streams: Streams) -> None:
        """Evaluate the start, then one window after another; the last steps query the objective, not its proxy."""
        problem, steps = self.problem, self.settings.steps
        proxy_steps = problem.proxy_steps(steps)
        queried = problem.proxy_objective if problem.proxy_objective is not None and proxy_steps else problem.objective
        if problem.starts is None:
            start = self.proposals.start(self.rows, problem.ids[self.rows], streams.named("start"))
        else:
            start = at_least_fp32(problem.starts)[self.rows]
        self._try(queried, start, self.rows)
        # Up to the next limit, windows are of one size and one objective is queried.
        limits = {*(step + 1 for step in HALVINGS if step + 1 < steps), steps}
        if queried is not problem.objective:
            limits.add(proxy_steps)
        looks = range(LOOK_EVERY, steps, LOOK_EVERY) if self.settings.drop_hopeless else range(0)
        limits.update(looks)
        step = 0
        for limit in sorted(limits):
            if step == proxy_steps and queried is not problem.objective:
                queried = problem.objective
                self.losses.fill_(-math.inf)
                self.looks.clear()
                self._try(queried, self.points[self.rows], self.rows)
            passes: Passes | None = None
            while step < limit and len(self.rows):
                passes = passes or self._passes(queried, step)
                if self._ahead() > 1:
                    self._search_ahead(passes, streams.named("windows"), step, limit)
                    step = limit
                else:
                    step = self._search(passes, streams.named("windows"), step, limit)
            if step in looks:
                self._drop_hopeless(steps - step)
            if not len(self.rows):
                return
        self._confirm(self.rows)

    def _drop_hopeless(self, left: int) -> None:
        """Leave the images that will not even reach what gradients reached, with ``left`` windows to go."""
        self.looks.append(self.losses.clone())
        halfway, reached = len(self.looks) // 2, self.problem.reached
        if not halfway or reached is None:
            return
        gains = (self.losses - self.looks[halfway - 1]) / (len(self.looks) - halfway)
        ends = self.losses + CAUTION * left / LOOK_EVERY * gains
        hopeless = self.rows[(ends < reached.clamp(max=0.0))[self.rows]]
        if len(hopeless):
            self._confirm(hopeless)
            self._go_on(~torch.isin(self.rows, hopeless))

    def _ahead(self) -> int:
        """How many windows of each image are looked at in one pass."""
        values, kept = max(1, len(self.rows) * self.points[0].numel()), max(self.kept_share, 1e-3)
        few = min(VALUES_AT_ONCE // values, int(_MOST_IN_VAIN / kept))
        return max(1, few, min(FULL_PASS // values, int(_LESS_IN_VAIN / kept)))

    def _side(self, step: int) -> int:
        height, width = self.points.shape[-2:]
        return self.settings.side(step, height, width, self.proposals.min_side, self.proposals.odd_side)

    def _passes(self, queried: Objective, step: int) -> Passes:
        """The passes from a step on, until windows are of another size or another objective is queried."""
        most = max(len(self.rows), max(VALUES_AT_ONCE, FULL_PASS) // self.points[0].numel())
        evaluate, dtype = self.best_so_far.evaluate, self.problem.images.dtype
        side = self._side(step)
        passes = passes_for(self.proposals, self.points, self.rows, queried, side, most, evaluate, dtype)
        if isinstance(passes, WindowPasses):  # Once for what is known, once to compare.
            self.best_so_far.model_images += 2 * len(self.rows)
        return passes

    def _drawn(self, windows: Streams, chunks: range) -> Tensor:
        """The draws (n, windows, values) of some chunks of windows."""
        ids, shape = self.problem.ids[self.rows], (_CHUNK, self.proposals.draws)
        return torch.cat([windows.at(chunk).uniform(ids, shape) for chunk in chunks], 1)

    def _search(self, passes: Passes, windows: Streams, step: int, limit: int) -> int:
        """One window of every image a pass, up to ``limit`` or the chunk's end, which is returned."""
        chunk = step // _CHUNK
        limit = min(limit, (chunk + 1) * _CHUNK)
        self.draws = self._drawn(windows, range(chunk, chunk + 1))
        for place in range(step - chunk * _CHUNK, limit - chunk * _CHUNK):
            if not len(self.rows):
                break
            places, value = passes.look(self.rows, self.draws[:, place])
            if value is not None:
                rows = self.rows[places]
                self._keep(rows, passes.points, value, value.losses > self.losses[rows])
        return limit

    def _search_ahead(self, passes: Passes, windows: Streams, step: int, limit: int) -> None:
        """Several windows of every image a pass, each image from its own ``next``, to ``limit``.

        All of an image's windows are drawn on its best point. What follows the first that is kept was in vain, and is
        drawn again on the new point: the result is that of one window after another.
        """
        chunk = step // _CHUNK
        self.next = torch.full_like(self.rows, step)
        self.draws = self._drawn(windows, range(chunk, chunk + 2))
        while len(self.rows):
            first = int(self.next.min())
            if first >= limit:
                break
            if first >= (chunk + 1) * _CHUNK:
                chunk += 1
                self.draws = torch.cat([self.draws[:, _CHUNK:], self._drawn(windows, range(chunk + 1, chunk + 2))], 1)
            self._pass_ahead(passes, chunk * _CHUNK, min(limit, (chunk + 2) * _CHUNK))

    def _pass_ahead(self, passes: Passes, drawn_from: int, end: int) -> None:
        """One pass: the next windows of every image, none of step ``end`` or later."""
        steps = self.next[:, None] + torch.arange(self._ahead(), device=self.rows.device)
        places = (steps < end).flatten().nonzero().squeeze(1)
        images = places // steps.shape[1]
        rows = self.rows[images]
        draws = self.draws[images, steps.flatten()[places] - drawn_from]
        changed, value = passes.look(rows, draws)
        better = torch.zeros_like(steps, dtype=torch.bool)
        if value is not None:
            rows = rows[changed]
            better.view(-1)[places[changed]] = value.losses > self.losses[rows]
            # Of each image the first that is better; places ascend image by image.
            earliest = better & (better.cumsum(1) == 1)
            self.next = torch.where(earliest.any(1), steps[:, 0] + earliest.int().argmax(1) + 1, steps[:, -1] + 1)
            self._keep(rows, passes.points, value, earliest.flatten()[places[changed]])
        else:
            self.next = steps[:, -1] + 1
        self.next.clamp_(max=end)

    def _try(self, queried: Objective, points: Tensor, rows: Tensor) -> None:
        """Keep the points (n, C, H, W) with a higher loss; confirm those that are called fooled."""
        value = self.best_so_far.evaluate(queried, points.to(self.problem.images.dtype), rows)
        self._keep(rows, points.__getitem__, value, value.losses > self.losses[rows])

    def _keep(self, rows: Tensor, points: Callable[[Tensor], Tensor], value: ObjectiveValue, better: Tensor) -> None:
        """Keep the points of a mask (n,), of different images; confirm those that are called fooled."""
        places = better.nonzero().squeeze(1)
        self.kept_share = 0.95 * self.kept_share + 0.05 * len(places) / len(rows)
        if not len(places):
            return
        rows, kept = rows[places], points(places)
        self.losses[rows] = value.losses[places].to(self.losses.dtype)
        self.points[rows] = kept
        self.proposals.accept(rows, kept)
        if value.fooled is not None:
            self._confirm(rows[value.fooled[places]])

    def _confirm(self, rows: Tensor) -> None:
        """Project the best points of these rows onto the ball to the last bit, and evaluate them by the objective."""
        if not len(rows):
            return
        images, objective = self.problem.images, self.problem.objective
        projected = self.settings.threat.project(self.points[rows].to(images.dtype), images[rows])
        self.best_so_far.record(rows, projected, self.best_so_far.evaluate(objective, projected, rows))
        self._go_on(~self.best_so_far.fooled[self.rows])

    def _go_on(self, mask: Tensor) -> None:
        """Search on for the images of a mask (n,) alone."""
        if not bool(mask.all()):
            self.rows, self.draws, self.next = self.rows[mask], self.draws[mask], self.next[mask]
