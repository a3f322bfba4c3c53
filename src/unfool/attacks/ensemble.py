"""An attack's parts, run in order: each attacks the images that no part before it has fooled.

Legend: B images of the batch, n of them not fooled yet.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from unfool.attacks.engines.best_so_far import BestSoFar
from unfool.attacks.engines.near_misses import (
    NEAR,
    NEAR_SCORES,
    NEAR_UNFINISHED,
    lacking,
    lacking_share,
    repeat_near_misses,
)
from unfool.attacks.objective import LabelLoss
from unfool.attacks.problem import Engine, Perturbed, Problem, in_turns, of_rows

FINISH = "finish"
"""Name of the last part under a bf16 proxy: steps of the model itself, from the best point of each image."""


LearnsFrom = Literal["gradient", "scores", "decisions", "nothing"]
"""What an engine learns from a model: its ``gradient``, its outputs (``scores``), the class alone (``decisions``), or
``nothing``, as random noise."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One engine of an attack.

    Args:
        name: Name of the part in results and of its random draws.
        engine: The loop that perturbs the images.
        loss: The loss that it climbs, one of `LOSSES`.
        learns_from: What it learns from the model. A black-box attack says ``"scores"``, ``"decisions"`` or
            ``"nothing"``: the reliability report then holds its successes against those of gradient attacks.
        from_best: Start from the best point that the parts before it reached for each image.
        exact: Search in fp32 beside a bf16 proxy too, on the fp32 copy that it carries or on the model itself.

    Example:
        >>> part = attacks.Square(Linf(0.1)).parts[0]
        >>> part.name, part.loss, part.learns_from
        ('square', 'margin', 'scores')
    """

    name: str
    engine: Engine
    loss: str = "ce"
    learns_from: LearnsFrom = "gradient"
    from_best: bool = False
    exact: bool = False

    @property
    def follows_gradients(self) -> bool:
        """Whether a model may mislead this part by masking its gradients."""
        return self.learns_from == "gradient"


def attack_passes(parts: Sequence[Part], averaged: int = 1) -> int:
    """About how often one image goes through the network: steps, restarts and targets of all parts, ``averaged``."""
    total = 0
    for part in parts:
        steps, restarts, targets = (getattr(part.engine, name, 1) or 1 for name in ("steps", "restarts", "targets"))
        total += steps * restarts * targets
    return total * averaged


class Checkpoint(Protocol):
    """Keeps a batch's state between parts, so that an attack that was stopped continues after its last part."""

    def load(self) -> dict[str, Tensor] | None:
        """The state after the last finished part, None if there is none."""
        ...

    def save(self, state: dict[str, Tensor]) -> None:
        """Keep the state after a part."""
        ...


def run_alone(part: Part, problem: Problem[LabelLoss]) -> Perturbed:
    """Run the only part of an attack, whose loss the problem has already, on groups of its ``at_once`` images."""
    groups = in_turns(torch.arange(len(problem.images), device=problem.images.device), problem.at_once)
    if len(groups) > 1:
        return Perturbed.joined([run_alone(part, of_rows(problem, rows)) for rows in groups])
    perturbed = part.engine.run(problem)
    if not _in_bf16(problem):
        return perturbed
    most = NEAR_UNFINISHED if part.follows_gradients else NEAR_SCORES
    return repeat_near_misses(part.engine, problem, perturbed, most)


def run_parts(
    parts: Sequence[Part], finisher: Part | None, problem: Problem[LabelLoss], checkpoint: Checkpoint | None = None
) -> tuple[Perturbed, Tensor]:
    """Run the parts in order; return the perturbed images, and which part fooled each (B,), -1 if none did.

    Images that are misclassified as they are come back unchanged. An image that no part fooled comes back as the point
    with the highest margin that any part returned. Where a bf16 proxy was used, the ``finisher``, if there is one,
    starts from those points; near misses that are left then go through the parts that searched on the proxy again,
    without it and with the same draws. Of more images than the problem's ``at_once``, each part attacks those that
    still stand in as few groups as that allows: where few stand, they are attacked together.
    """
    state = checkpoint.load() if checkpoint is not None else None
    if state is None or "lacking" not in state:  # An earlier version's checkpoint lacks some of it.
        state = {**_initial_state(problem, len(parts)), **(state or {})}
    for index in range(int(state["done"]), len(parts)):
        for rows in _standing(state, problem):
            _run_part(parts[index], index, problem, state, rows)
        state["done"].fill_(index + 1)
        if checkpoint is not None:
            checkpoint.save(state)
    if _in_bf16(problem) and int(state["done"]) == len(parts):
        late_gains = _finish(finisher, len(parts), problem, state)
        _repeat_near_misses(parts, problem, state, late_gains)
        state["done"].fill_(len(parts) + 1)
        if checkpoint is not None:
            checkpoint.save(state)
    # Only a part that follows gradients looks for them; each attacks every image that stands.
    looked = any(part.follows_gradients for part in parts)
    perturbed = Perturbed(
        images=state["images"],
        losses=state["margins"],
        fooled=state["fooled"],
        zero_gradient=state["zero_gradient"] & ~state["fooled"] & looked,
        model_images=int(state["model_images"]),
    )
    return perturbed, state["fooled_by_part"]


def _standing(state: dict[str, Tensor], problem: Problem[LabelLoss]) -> tuple[Tensor, ...]:
    """Rows of the images that are not fooled yet, in groups that are attacked together."""
    return in_turns((~state["fooled"]).nonzero().squeeze(1), problem.at_once)


def _in_bf16(problem: Problem[LabelLoss]) -> bool:
    """Whether a search has a bf16 proxy, and not one with other gradients."""
    return problem.proxy_objective is not None and problem.exact_share > 0


def _run_part(
    part: Part, index: int, problem: Problem[LabelLoss], state: dict[str, Tensor], rows: Tensor, finishing: bool = False
) -> None:
    """Attack the images ``rows`` by one part; the finisher starts from their best points, without the proxy."""
    if not len(rows):
        return
    own = of_rows(problem, rows)
    proxy = None if finishing else own.proxy_objective
    in_bf16 = _in_bf16(problem) and not finishing
    if part.exact and in_bf16 and proxy is not None:
        proxy = proxy.exact()
    perturbed = part.engine.run(
        dataclasses.replace(
            own,
            objective=own.objective.with_loss(part.loss),
            streams=problem.streams.named(part.name),
            starts=state["images"][rows] if finishing or part.from_best else None,
            proxy_objective=proxy.with_loss(part.loss) if proxy is not None else None,
            exact_share=0.0,
            near=NEAR if in_bf16 and not part.exact else 0.0,
            reached=state["reached"][rows],
        )
    )
    _update(state, rows, perturbed, index, own.objective, part.follows_gradients)


def _finish(finisher: Part | None, index: int, problem: Problem[LabelLoss], state: dict[str, Tensor]) -> Tensor:
    """Take steps of the model itself from the best points; return how much margin each image gained by them, (B,)."""
    before = state["margins"].clone()
    if finisher is not None:
        for rows in _standing(state, problem):
            _run_part(finisher, index, problem, state, rows, True)
    return state["margins"] - before


def _repeat_near_misses(
    parts: Sequence[Part], problem: Problem[LabelLoss], state: dict[str, Tensor], late_gains: Tensor
) -> None:
    """Attack images that still lack little again, by the parts that the proxy drove, on its fp32 copy.

    ``late_gains`` (B,) are those of a finisher. A search by scores must itself have come near.
    """
    share = torch.full_like(late_gains, math.inf)
    for rows in _standing(state, problem):
        share[rows], evaluated = lacking(
            problem.objective, problem.images, state["images"][rows], rows, late_gains[rows]
        )
        state["model_images"] += evaluated
    proxy = problem.proxy_objective
    exact = dataclasses.replace(problem, proxy_objective=None if proxy is None else proxy.exact(), exact_share=0.0)
    for index, part in enumerate(parts):
        if part.exact or getattr(part.engine, "repeats_trials", False):  # It would do again what it did.
            continue
        near = share <= NEAR if part.follows_gradients else state["lacking"][:, index] <= NEAR_SCORES
        for rows in in_turns((near & ~state["fooled"]).nonzero().squeeze(1), problem.at_once):
            _run_part(part, index, exact, state, rows)


def _initial_state(problem: Problem[LabelLoss], parts: int) -> dict[str, Tensor]:
    """What is known before the first part: the clean images and their margins; ``lacking`` has a column for each part
    and the finisher."""
    images = problem.images
    rows = torch.arange(len(images), device=images.device)
    best_so_far = BestSoFar(images, "success", gradients=False)
    margin = problem.objective.with_loss("margin")
    with torch.no_grad():
        for group in in_turns(rows, problem.at_once):
            best_so_far.record(group, images[group], best_so_far.evaluate(margin, images[group], group))
    clean = best_so_far.losses
    return {
        "images": best_so_far.images,
        "margins": clean.clone(),
        "clean": clean,
        # An infinite number could not be stored in a checkpoint.
        "reached": torch.full_like(clean, torch.finfo(torch.float32).min),
        "lacking": torch.zeros(len(images), parts + 1, device=images.device),
        "fooled": best_so_far.fooled,
        "zero_gradient": torch.ones_like(rows, dtype=torch.bool),
        "fooled_by_part": torch.full_like(rows, -1),
        "model_images": torch.tensor(best_so_far.model_images),
        "done": torch.tensor(0),
    }


def _update(
    state: dict[str, Tensor], rows: Tensor, perturbed: Perturbed, index: int, objective: LabelLoss, by_gradient: bool
) -> None:
    """Keep a part's successes, and for the other images its point where that has the highest margin so far."""
    with torch.no_grad():
        margins = objective.with_loss("margin")(perturbed.images, torch.arange(len(rows), device=rows.device)).losses
    better = perturbed.fooled | (margins > state["margins"][rows])
    state["images"][rows[better]] = perturbed.images[better]
    state["margins"][rows[better]] = margins[better].float()
    state["fooled"][rows] |= perturbed.fooled
    state["fooled_by_part"][rows[perturbed.fooled]] = index
    state["lacking"][rows, index] = lacking_share(margins, state["clean"][rows]).float()
    if by_gradient:
        state["zero_gradient"][rows] &= perturbed.zero_gradient
        state["reached"][rows] = torch.maximum(state["reached"][rows], margins.float())
    state["model_images"] += perturbed.model_images + len(rows) * objective.draws
