"""The reference's own defense-aware attack as a rung of the ladder: it looks at two views of an image.

The reversal takes four views; the attack of Mao et al. (ICCV 2021, section 4.4) keeps the loss of two low.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import cast

from torch import Tensor

from unfool.core.streams import Streams
from unfool.defenses import Defense
from unfool.defenses.aware import DefenseAwareLoss
from unfool.defenses.pretext import PretextObjective, TaskLoss
from unfool.evaluation.adaptive.defense_aware import AwareObjective, DefenseAware
from unfool.tasks.contrast import Contrast

VIEWS = 2
"""Views of an image in the reference's defense-aware attack."""


def on_two_views(pretext: TaskLoss) -> TaskLoss:
    """A contrastive loss on two views, with the negatives that two views of each batch-mate give."""
    task = copy.copy(cast("Contrast", pretext.task))
    drawn = max(1, task.settings.drawn * VIEWS // task.settings.views)
    task.settings = replace(task.settings, views=VIEWS, drawn=drawn)
    return TaskLoss(pretext.network, task)


class AwareOfTwoViews(DefenseAware):
    """(e) as in the reference: the attack keeps the loss of two views low, however many the reversal takes."""

    def objective(self, weight: float) -> AwareObjective:
        def of(defense: Defense, labels: Tensor, loss: str, streams: Streams) -> DefenseAwareLoss:
            purifier = defense.purifier
            pretext = on_two_views(cast("TaskLoss", purifier.pretext_proxy))
            same = labels.new_zeros(len(labels))
            noticed = PretextObjective(pretext, same, streams.named("views"), redraw=purifier.redraw)
            return DefenseAwareLoss(
                purifier.classifier, labels, lambda images, rows: noticed(images, rows).losses, weight, loss
            )

        return of

    def images_per_notice(self, defense: Defense) -> int:
        return VIEWS
