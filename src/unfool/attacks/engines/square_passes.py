"""The passes of the Square attack: proposals of an image with one window redrawn, and what the objective says of them.

Legend: B images of the batch, n of them still attacked, m proposals of a pass, C channels, H×W pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from unfool.attacks.engines.square_proposals import LinfProposals, Proposals, Redrawn
from unfool.attacks.engines.square_windows import windows
from unfool.attacks.objective import LabelLoss, Objective, ObjectiveValue
from unfool.models.windowed.chains import chain_of
from unfool.models.windowed.passes import WindowedPasses, windowed_passes

Evaluate = Callable[[Objective, Tensor, Tensor], ObjectiveValue]


class Passes(ABC):
    """Passes with windows of one side, by one objective, from the best ``points`` (B, C, H, W) so far."""

    @abstractmethod
    def look(self, rows: Tensor, draws: Tensor) -> tuple[Tensor, ObjectiveValue | None]:
        """The places (m,) of the proposals that change anything, among those of the images ``rows`` (n,), of which
        several may be of one; and the objective there, None where there are none."""

    @abstractmethod
    def points(self, which: Tensor) -> Tensor:
        """The proposals ``which`` (k,) of the last look, of different images, as images (k, C, H, W): they are kept."""


class WholePasses(Passes):
    """Whole images go through the model."""

    def __init__(
        self,
        proposals: Proposals,
        points: Tensor,
        queried: Objective,
        side: int,
        evaluate: Evaluate,
        dtype: torch.dtype,
    ):
        self.proposals, self.best, self.queried = proposals, points, queried
        self.side, self.evaluate, self.dtype = side, evaluate, dtype
        self.proposed = points[:0]

    def look(self, rows: Tensor, draws: Tensor) -> tuple[Tensor, ObjectiveValue | None]:
        """Every proposal as an image of its own."""
        # index_select copies whole images; indexing by a tensor takes four times as long.
        points = self.best.index_select(0, rows)
        self.proposed, places = self.proposals.propose(points, rows, self.side, draws)
        if not len(places):
            return places, None
        return places, self.evaluate(self.queried, self.proposed.to(self.dtype), rows[places])

    def points(self, which: Tensor) -> Tensor:
        """What was proposed."""
        return self.proposed[which]


class WindowPasses(Passes):
    """The model's first layers compute only what a window changes."""

    def __init__(
        self,
        proposals: LinfProposals,
        points: Tensor,
        queried: LabelLoss,
        passes: WindowedPasses,
        rows: Tensor,
        side: int,
        evaluate: Evaluate,
    ):
        self.proposals, self.best, self.queried, self.passes = proposals, points, queried, passes
        self.side, self.evaluate = side, evaluate
        self.slots = rows.new_zeros(len(points))
        self.slots[rows] = torch.arange(len(rows), device=rows.device)
        self.rows = rows
        empty = rows[:0]
        self.redrawn = Redrawn(points[:0], empty, empty, None)

    def look(self, rows: Tensor, draws: Tensor) -> tuple[Tensor, ObjectiveValue | None]:
        """Every proposal as a window of its image."""
        redrawn = self.proposals.redraw(self.best, rows, rows, self.side, draws)
        places = torch.arange(len(rows), device=rows.device) if redrawn.places is None else redrawn.places
        self.redrawn, self.rows = redrawn.changed(), rows[places]
        if not len(places):
            return places, None
        top, left, slots = self.redrawn.top, self.redrawn.left, self.slots[self.rows]

        def logits(values: Tensor) -> Tensor:
            return self.passes(values, slots, top, left)

        return places, self.evaluate(self.queried.through(logits), self.redrawn.values, self.rows)

    def points(self, which: Tensor) -> Tensor:
        """The best points with the windows redrawn; what the model's layers gave for them is known from now on."""
        self.passes.keep(which)
        points = self.best.index_select(0, self.rows[which])
        each = torch.arange(len(which), device=which.device)
        redrawn = self.redrawn
        windows(points, self.side)[each, :, redrawn.top[which], redrawn.left[which]] = redrawn.values[which]
        return points


def passes_for(
    proposals: Proposals,
    points: Tensor,
    rows: Tensor,
    queried: Objective,
    side: int,
    at_once: int,
    evaluate: Evaluate,
    dtype: torch.dtype,
) -> Passes:
    """The cheaper passes of those that the model and the norm allow, for the images ``rows`` (n,), ``at_once`` windows
    in each at most."""
    whole = WholePasses(proposals, points, queried, side, evaluate, dtype)
    usual = points.device.type == "cpu" and points.dtype == dtype == torch.float32
    if not usual or not isinstance(proposals, LinfProposals) or not isinstance(queried, LabelLoss):
        return whole
    chain = chain_of(queried.model) if queried.draws == 1 and not queried.by_row else None
    if chain is None or not len(rows):
        return whole
    passes = windowed_passes(chain, queried.model, points[rows], side, at_once)
    return whole if passes is None else WindowPasses(proposals, points, queried, passes, rows, side, evaluate)
