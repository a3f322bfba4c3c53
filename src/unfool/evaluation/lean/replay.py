"""Earlier results as an attack, so that several sets of examples of the same images become one.

Legend: B images of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unfool.attacks import CustomAttack, Part, Perturbed, Problem
from unfool.attacks.engines.best_so_far import BestSoFar
from unfool.attacks.objective import LabelLoss
from unfool.core.files import JsonObject
from unfool.core.threat import ThreatModel
from unfool.evaluation.crafting.adversarial_set import AdversarialSet


@dataclass(frozen=True, kw_only=True, eq=False)
class Replay:
    """An engine that gives the images that one part of earlier attacks ended with; nothing is attacked again.

    Args:
        threat: The threat model of the sets.
        sets: Adversarial sets of some of the images each, with the number that the part has in each.
        chosen: For each set, the ids of the images that are taken from it, fooled or not; None: all that it fooled.
    """

    threat: ThreatModel
    sets: tuple[tuple[AdversarialSet, int], ...]
    chosen: tuple[Tensor, ...] | None = None

    def run(self, problem: Problem[LabelLoss]) -> Perturbed:
        """The sets' images of the problem's ids, and the clean image of an id that is in none of them."""
        images = problem.images.clone()
        fooled = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        zero_gradient = torch.ones_like(fooled)
        ids = problem.ids.cpu()
        for index, (examples, number) in enumerate(self.sets):
            rows, positions = matching(ids, examples.ids)
            by_part = examples.fooled_by_part
            if self.chosen is not None:
                kept = torch.isin(examples.ids[positions], self.chosen[index])
                rows, positions = rows[kept], positions[kept]
                by_part = by_part.clamp(min=0)
            if not len(rows):
                continue
            images[rows] = examples.read(positions).to(images)
            fooled[rows] = (by_part[positions] == number).to(fooled.device)
            zero_gradient[rows] = examples.zero_gradient[positions].to(fooled.device)
        return Perturbed(
            images=images,
            losses=torch.zeros(len(images), device=images.device),
            fooled=fooled,
            zero_gradient=zero_gradient & ~fooled,
            model_images=0,
        )


class OnModelAlone(CustomAttack):
    """An attack that asks the model itself, also where there is a faster copy: it has its examples, or needs all of a
    batch."""

    uses_proxy: ClassVar[bool] = False


@dataclass(frozen=True, kw_only=True, eq=False)
class OneOfEach:
    """An engine that gives the example which was chosen for each image, whether it fooled or not.

    Args:
        threat: The threat model of the sets.
        sets: Adversarial sets, each with the ids (n,) of the images that are taken from it.
    """

    threat: ThreatModel
    sets: tuple[tuple[AdversarialSet, Tensor], ...]

    def run(self, problem: Problem[LabelLoss]) -> Perturbed:
        """The chosen examples, and which of the images are misclassified among the others as their mates."""
        best_so_far = BestSoFar(problem.images, "last", gradients=False)
        images, ids = problem.images.clone(), problem.ids.cpu()
        for examples, taken in self.sets:
            rows, positions = matching(ids, examples.ids)
            kept = torch.isin(examples.ids[positions], taken)
            if kept.any():
                images[rows[kept]] = examples.read(positions[kept]).to(images)
        rows = torch.arange(len(images), device=images.device)
        with torch.no_grad():
            best_so_far.record(rows, images, best_so_far.evaluate(problem.objective, images, rows))
        return best_so_far.result()


def matching(ids: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of ``ids`` (B,) that are among the ``known`` ids, and where they are there."""
    ordered, order = known.sort()
    places = torch.searchsorted(ordered, ids).clamp(max=len(ordered) - 1)
    rows = (ordered[places] == ids).nonzero().squeeze(1)
    return rows, order[places[rows]]


def replayed(
    name: str,
    threat: ThreatModel,
    sets: Sequence[AdversarialSet],
    settings: JsonObject,
    chosen: Sequence[Tensor] | None = None,
) -> CustomAttack:
    """The attack ``name`` whose parts are those of all sets, those of one name together, in the order of the sets.

    ``chosen`` says for each set which ids (n,) are taken from it, whether it says that they were fooled or not.
    """
    of_part: dict[str, list[tuple[AdversarialSet, int]]] = {}
    from_set: dict[str, list[Tensor]] = {}
    follows: dict[str, bool] = {}
    for index, examples in enumerate(sets):
        for number, part in enumerate(examples.parts):
            of_part.setdefault(part, []).append((examples, number))
            follows[part] = examples.follows_gradients[number]
            if chosen is not None:
                from_set.setdefault(part, []).append(chosen[index])
    parts = tuple(
        Part(
            name=part,
            engine=Replay(
                threat=threat,
                sets=tuple(of_part[part]),
                chosen=tuple(from_set[part]) if chosen is not None else None,
            ),
            learns_from="gradient" if follows[part] else "scores",
        )
        for part in of_part
    )
    return CustomAttack(threat, label=name, components=parts, details=settings)
