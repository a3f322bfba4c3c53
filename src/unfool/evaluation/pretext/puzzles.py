"""What a jigsaw answers: its tiles as they are shown, in the order that it predicts, and where they belong; and whether
it reads the grid that JPEG left in images in place of what they show.

Legend: B images, C channels, H×W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from unfool.core.batch import Batch
from unfool.data.table import Table
from unfool.evaluation.pretext.accuracy import PretextQuality, pretext_quality
from unfool.models.modes import frozen_eval
from unfool.models.network import Network
from unfool.tasks import Task
from unfool.tasks.jigsaw import Jigsaw
from unfool.tasks.tiles import laid_out

BLOCK = 16
"""Pixels of the side of what JPEG codes together: four blocks of brightness, one of each colour at half the size."""
OFF_THE_GRID, ON_THE_GRID = "moved by half a block", "moved by a block"
"""Images whose blocks lie elsewhere, and, to compare, as far moved that they lie on their grid again."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SolvedPuzzle:
    """The tiles of an image laid out as images (C, h, w): ``shuffled`` as they are shown, in the order that is
    ``predicted``, and ``solved``; ``right`` of ``count`` tiles come to lie in their place."""

    shuffled: Tensor
    predicted: Tensor
    solved: Tensor
    right: int
    count: int


def solved_puzzles(network: Network, task: Task, images: Tensor) -> list[SolvedPuzzle]:
    """What a jigsaw that is bound to the network answers on images (B, C, H, W): one puzzle for each.

    Empty for a task whose views are no tiles, such as a jigsaw of whole images.
    """
    if not isinstance(task, Jigsaw) or task.settings.form == "whole":
        return []
    with frozen_eval(network), frozen_eval(task), torch.no_grad():
        views = task.views(Batch(images=images, ids=torch.arange(len(images))), None)
        answers = task.head(network.features(views.images, views.stage)).argmax(1)
    puzzles = []
    for row, tiles in enumerate(views.images.unflatten(0, (views.count, -1)).transpose(0, 1)):
        order, answer = task.permutations[views.targets[row]], task.permutations[answers[row]]
        puzzles.append(
            SolvedPuzzle(
                shuffled=laid_out(tiles),
                predicted=laid_out(tiles[answer.argsort()]),
                solved=laid_out(tiles[order.argsort()]),
                right=int((order == answer).sum()),
                count=len(order),
            )
        )
    return puzzles


def grid_qualities(network: Network, task: Task, table: Table) -> dict[str, PretextQuality]:
    """How well a jigsaw without augmentation is solved on images whose JPEG blocks lie elsewhere: moved by half a
    block each way, and, to compare, by a whole one, so that the blocks lie on their grid again.

    Empty for another task, and for images so small that moving them by a block leaves no tile whole.
    """
    if not isinstance(task, Jigsaw) or task.settings.augmentation != "none":
        return {}
    moves = {OFF_THE_GRID: BLOCK // 2, ON_THE_GRID: BLOCK} if table.shape[2] >= task.settings.grid * BLOCK else {}
    return {
        words: pretext_quality(network, task, table, change=partial(torch.roll, shifts=(by, by), dims=(2, 3)))
        for words, by in moves.items()
    }


def task_qualities(network: Network, tasks: Mapping[str, Task], table: Table) -> dict[str, PretextQuality]:
    """How well each of some tasks is done, by name; and `grid_qualities` behind the name of a task that has them."""
    qualities = {}
    for name, task in tasks.items():
        qualities[name] = pretext_quality(network, task, table)
        moved = grid_qualities(network, task, table)
        qualities |= {f"{name} {words}": quality for words, quality in moved.items()}
    return qualities
