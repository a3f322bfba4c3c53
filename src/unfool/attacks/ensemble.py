"""An attack's parts, and how they follow one another: each is given the images that all before it left standing.

Legend: B images of the batch, n of them still standing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from unfool.attacks.best_so_far import BestSoFar, Perturbed
from unfool.attacks.objective import LabelLoss
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel

FINISH = "finish"
"""Name of the last part of a search in bf16, which the model itself takes from the best point of each image."""


class Engine(Protocol):
    """Moves images along an objective."""

    @property
    def threat(self) -> ThreatModel: ...

    def run(
        self,
        objective: LabelLoss,
        images: Tensor,
        ids: Tensor,
        streams: Streams,
        search: LabelLoss | None = None,
        finish: float = 0.1,
        starts: Tensor | None = None,
    ) -> Perturbed:
        """Perturb images (B, C, H, W); ids (B,) name them for the draws, and nothing depends on batch-mates.

        ``search`` is a cheaper twin of the objective: what it claims counts once the objective has confirmed it. The
        last share ``finish`` of the steps is the objective's own. ``starts`` take the place of the engine's start.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Part:
    """One engine under its name, the loss it climbs, and whether it follows gradients (a random search does not)."""

    name: str
    engine: Engine
    loss: str = "ce"
    gradients: bool = True


class Memory(Protocol):
    """Where a batch's state is kept between parts, so that an attack that was stopped goes on after the last one."""

    def load(self) -> dict[str, Tensor] | None: ...

    def save(self, state: dict[str, Tensor]) -> None: ...


def run_parts(
    parts: Sequence[Part],
    finisher: Part | None,
    objective: LabelLoss,
    search: LabelLoss | None,
    images: Tensor,
    ids: Tensor,
    streams: Streams,
    memory: Memory | None = None,
) -> tuple[Perturbed, Tensor]:
    """Run the parts in order, each on what still stands; give what was found, and by which part (B,), -1 if by none.

    Images that are misclassified as they are come back so. Of those that stand to the end comes the point with the
    highest margin any part ended on, which is where ``finisher`` (if there is a search to make good) starts from.
    """
    state = memory.load() if memory is not None else None
    if state is None:
        state = _begun(objective, images)
    plan = [*parts, *([finisher] if finisher is not None else [])]
    for index in range(int(state["done"]), len(plan)):
        part, last = plan[index], index == len(parts)
        rows = (~state["fooled"]).nonzero().squeeze(1)
        if len(rows):
            there = objective.on(rows)
            found = part.engine.run(
                there.with_loss(part.loss),
                images[rows],
                ids[rows],
                streams.named(part.name),
                search.on(rows).with_loss(part.loss) if search is not None and not last else None,
                finish=0.0,
                starts=state["images"][rows] if last else None,
            )
            _noted(state, rows, found, index, there, part.gradients)
        state["done"].fill_(index + 1)
        if memory is not None:
            memory.save(state)
    perturbed = Perturbed(
        images=state["images"],
        losses=state["margins"],
        fooled=state["fooled"],
        flat=state["flat"] & ~state["fooled"],
        model_images=int(state["model_images"]),
    )
    return perturbed, state["by"]


def _begun(objective: LabelLoss, images: Tensor) -> dict[str, Tensor]:
    rows = torch.arange(len(images), device=images.device)
    course = BestSoFar(images, "best", gradients=False)
    with torch.no_grad():
        clean = course.read(objective.with_loss("margin"), images, rows)
    return {
        "images": images.clone(),
        "margins": clean.losses.float(),
        "fooled": torch.zeros_like(rows, dtype=torch.bool) if clean.fooled is None else clean.fooled,
        "flat": torch.ones_like(rows, dtype=torch.bool),
        "by": torch.full_like(rows, -1),
        "model_images": torch.tensor(course.model_images),
        "done": torch.tensor(0),
    }


def _noted(
    state: dict[str, Tensor], rows: Tensor, found: Perturbed, index: int, objective: LabelLoss, gradients: bool
) -> None:
    """Keep a part's successes, and for the others its point where that has the highest margin so far."""
    with torch.no_grad():
        margins = objective.with_loss("margin")(found.images, torch.arange(len(rows), device=rows.device)).losses
    better = found.fooled | (margins > state["margins"][rows])
    state["images"][rows[better]] = found.images[better]
    state["margins"][rows[better]] = margins[better].float()
    state["fooled"][rows] |= found.fooled
    state["by"][rows[found.fooled]] = index
    if gradients:
        state["flat"][rows] &= found.flat
    state["model_images"] += found.model_images + len(rows) * objective.draws
