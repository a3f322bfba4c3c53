"""An attack on a defended system: whatever gradient it follows, the deployed defense confirms every success.

Legend: B images of the batch, n of them in play.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from unfool.attacks import Attack, Attacked, CustomAttack
from unfool.attacks.ensemble import Checkpoint
from unfool.attacks.objective import LOSSES, LabelLoss, ObjectiveValue
from unfool.attacks.problem import Problem
from unfool.tasks.base import at_least_fp32


class DefenseLabelLoss(LabelLoss):
    """A label loss of a defended system, averaged over several forward passes; the first decides who is fooled,
    of a random system by as many draws in a row as a success takes.

    Args:
        passes: Functions from images to logits: the deployed defense, or models with its values and some gradient.
        labels: The labels (B,).
        loss: One of `LOSSES`.
        images_per_prediction: How many images go through a network for each image of a call; counted as draws.
    """

    def __init__(
        self,
        passes: Sequence[Callable[..., Tensor]],
        labels: Tensor,
        loss: str = "ce",
        *,
        images_per_prediction: int,
    ):
        super().__init__(passes[0], labels, loss, draws=images_per_prediction)
        self.passes = passes

    def logits(self, images: Tensor, rows: Tensor) -> Tensor:
        """Those of the first pass, (n, K)."""
        return at_least_fp32(self.passes[0](images))

    def __call__(self, images: Tensor, rows: Tensor) -> ObjectiveValue:
        labels = self.labels[rows]
        targets = None if self.targets is None else self.targets[rows]
        places = self.rows_in_batch(rows)
        outputs = [
            at_least_fp32(logits_of(images, places) if getattr(logits_of, "by_row", False) else logits_of(images))
            for logits_of in self.passes
        ]
        loss = LOSSES[self.usable_loss(outputs[0].shape[1])]
        losses = torch.stack([loss(logits, labels, targets) for logits in outputs]).mean(0)
        fooled, more = self.fooled_by(outputs[0].detach(), images, rows)
        return ObjectiveValue(losses=losses, fooled=fooled, more_images=more)


@dataclass(frozen=True, kw_only=True, repr=False)
class DefenseAttack(CustomAttack):
    """An attack on a defended system, one prediction of which sends ``images_per_prediction`` images through a network.

    The defense itself confirms every success; it has no cheaper proxy.
    """

    images_per_prediction: int

    @classmethod
    def of(cls, attack: Attack, name: str, images_per_prediction: int) -> DefenseAttack:
        """Any attack as one on a defended system, under another name."""
        return cls(
            attack.threat,
            label=name,
            components=attack.parts,
            details=attack.settings,
            eot_draws=attack.averaged_passes,
            success_passes=attack.success_passes,
            images_per_prediction=images_per_prediction,
        )

    def run(self, problem: Problem[LabelLoss], checkpoint: Checkpoint | None = None) -> Attacked:
        objective = problem.objective
        deployed = DefenseLabelLoss(
            [objective.model], objective.labels, images_per_prediction=self.images_per_prediction
        )
        return super().run(dataclasses.replace(problem, objective=deployed, proxy_objective=None), checkpoint)
